"""Every recipe takes one step on a CPU through the literal `trl`: only model, data and sizes are overridden."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parent / "grpo"))

import tiny
from trl.chat_template_utils import qwen2_5_vl_chat_template, qwen3_vl_chat_template

from trl_onevision.data.convert import Conversion
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prepare import prepare
from trl_onevision.data.synthesize.command import synthesize, write_seeds
from trl_onevision.recipes import recipe_names, recipe_path

FIXTURES = Path(__file__).parent / "data" / "fixtures"
IN_DEFAULT_SUITE = ("frozen-vision-grpo", "r1-vl-2b-grpo", "zoom-grpo")

# By the end of a recipe's `dataset_name`: the adapter, its fixture.
DATA = {
    "clevr": ("clevr", "clevr.parquet"),
    "r1-onevision-sft": ("r1-onevision", "r1_onevision.parquet"),
    "refcoco": ("refcoco", "refcoco.jsonl"),
    "mulberry-sft": ("mulberry", "mulberry.json"),
    "r1-vl": ("r1-vl", "r1_vl.json"),
    "geometry3k": ("geometry3k", "geometry3k.parquet"),
    "video-r1": ("video-r1", "video_r1.json"),
    "deepscaler": ("text-math", "text_math.jsonl"),
    "orz-math": ("text-math", "text_math.jsonl"),
    "openthoughts": ("text-math", "text_math.jsonl"),
    "high-resolution": ("clevr", "clevr.parquet"),
    "sft": ("r1-onevision", "r1_onevision.parquet"),  # the quickstart's, which has its own data in its own tests
    "grpo": ("clevr", "clevr.parquet"),
}
MADE = {"jigsaw-seeds": (write_seeds, "jigsaw"), "render": (synthesize, "render")}
# What the model says at every turn, by the end of its recipe's `dataset_name`
SAID = {
    "high-resolution": {"name": "zoom", "arguments": {"box": [0, 0, 56, 56]}},
    "render": {"name": "render", "arguments": {"source": '<svg viewBox="0 0 9 9"><rect width="4" height="4"/></svg>'}},
}
WITH_TOOLS = {"max_completion_length": 1000, "max_tool_calling_iterations": 2}
TEMPLATES = {"qwen2_5_vl": qwen2_5_vl_chat_template, "qwen3_vl": qwen3_vl_chat_template}
ONE_STEP = {"use_cpu": "true", "max_steps": 1, "gradient_accumulation_steps": 1, "logging_steps": 1}
SIZES = {
    "sft": {"per_device_train_batch_size": 2},
    "grpo": {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8},
}


def family_of(model: str) -> str:
    return "qwen3_vl" if "Qwen3" in model else "qwen2_vl" if "Qwen2-VL" in model or "r1-vl" in model else "qwen2_5_vl"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in IN_DEFAULT_SUITE else pytest.mark.slow) for name in recipe_names()],
)
def test_a_recipe_takes_one_step(name, tmp_path):
    recipe = yaml.safe_load(recipe_path(name).read_text())
    method = "grpo" if "reward_funcs" in recipe else "sft"
    family = family_of(recipe["model_name_or_path"])
    options, data = recipe.get("env", {}).get("TRL_ONEVISION", {}), Path(recipe.get("dataset_name", "")).name
    model, processor = tiny.build(family)
    if "environment" in options:
        processor.chat_template = TEMPLATES[family]
    if data in SAID:
        tiny.say_always(model, processor.tokenizer, f"<tool_call>\n{json.dumps(SAID[data])}\n</tool_call>")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    grid = PixelGrid.of(32 if family == "qwen3_vl" else 28, max_pixels=70_000 if data in SAID else None)
    conversion = Conversion(purpose=method, grid=grid, originals=data in SAID)
    for path in [mixed["path"] for mixed in recipe.get("datasets", [])] or [recipe["dataset_name"]]:
        if data in MADE:
            make, task = MADE[data]
            make(task, tmp_path / path, number=4)
            continue
        adapter, fixture = DATA[Path(path).name]
        prepare(adapter, tmp_path / path, source=str(FIXTURES / fixture), conversion=conversion)
    given = {"model_name_or_path": tmp_path / "model", **ONE_STEP, **SIZES[method]}
    given |= WITH_TOOLS if data in SAID else {}
    overrides = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "trl.cli.main", method, "--config", str(recipe_path(name)), *overrides],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    output = tmp_path / recipe["output_dir"]
    assert (output / ("adapter_config.json" if recipe.get("use_peft") else "config.json")).exists()
    if method == "grpo":
        (state,) = output.glob("checkpoint-1/trainer_state.json")
        logged = json.loads(state.read_text())["log_history"][0]
        rewards = [path.rsplit(".", 1)[1] for path in recipe["reward_funcs"]]
        assert all(f"rewards/{reward}/mean" in logged for reward in rewards)
        assert ("kl" in logged) == bool(recipe.get("beta"))
        assert ("GRPOTrainer is OneVisionGRPOTrainer" in done.stdout + done.stderr) == bool(options)
        assert all(f"{key}={value!r}" in done.stdout + done.stderr for key, value in options.items())
        if data in SAID:
            assert logged["tools/call_frequency"] == 2 and logged["tools/failure_frequency"] == 0
