"""The commands of docs/walkthrough.md, as they stand there, with a tiny model, fixture data and one step appended."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

sys.path.append(str(Path(__file__).parent / "data" / "fixtures"))
sys.path.append(str(Path(__file__).parent / "grpo"))

import published
import tiny

from trl_onevision.quickstart.model import build_model, build_processor

TESTS = Path(__file__).parent
FIXTURES = TESTS / "data" / "fixtures"
STEP = "--use_cpu true --max_steps 1 --gradient_accumulation_steps 1"


def commands(page: str) -> list[str]:
    """The lines of the page's bash blocks."""
    text = (TESTS.parent / "docs" / page).read_text()
    return [line for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]


def qwen2_5_vl(folder: Path) -> str:
    processor = build_processor()
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return "--grid 28"


def qwen3_vl(folder: Path) -> str:
    model, processor = tiny.build("qwen3_vl")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return "--grid 32"


def appended(model: Path, grid: str) -> dict[str, str]:
    """What each command gets: model, data and sizes, by how it begins."""
    return {
        "trl-onevision recipes": "",
        "trl-onevision prepare r1-onevision": f"--source {FIXTURES / 'r1_onevision.parquet'} {grid}",
        "trl-onevision prepare clevr": f"--source {FIXTURES / 'clevr.parquet'} {grid}",
        "trl sft": f"--model_name_or_path {model} {STEP} --per_device_train_batch_size 2",
        "trl grpo": f"{STEP} --per_device_train_batch_size 4 --num_generations 4 --max_completion_length 8",
        "trl-onevision bench": "--max-new-tokens 8",
    }


@pytest.mark.parametrize("family", [qwen2_5_vl, pytest.param(qwen3_vl, marks=pytest.mark.slow)])
def test_every_command_runs_in_its_order(family, tmp_path):
    model = tmp_path / "tiny"
    extra = appended(model, family(model))
    work = tmp_path / "work"
    work.mkdir()
    published.write(work / "r1-onevision.tsv")
    lines = commands("walkthrough.md")
    order = [re.match(r"trl(?:-onevision)? (\w+)", line)[1] for line in lines]
    assert order[2:] == ["prepare", "prepare", "sft", "grpo", "bench", "bench"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    for line in lines:
        (more,) = [words for start, words in extra.items() if line.startswith(start)]
        done = subprocess.run(
            shlex.split(f"{line} {more}"), cwd=work, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line} {more}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    assert len(load_dataset(str(work / "data" / "r1-onevision-sft"), split="train")) == 6
    (state,) = (work / "runs" / "r1-onevision-3b-grpo").glob("checkpoint-1/trainer_state.json")
    logged = json.loads(state.read_text())["log_history"][0]
    assert {"rewards/accuracy_reward/mean", "rewards/format_reward/mean", "kl"} <= logged.keys()
    for stage in ("sft", "grpo"):
        results = json.loads((work / "runs" / f"bench-{stage}" / "results.json").read_text())
        assert results["model"] == f"runs/r1-onevision-3b-{stage}"
        assert results["overall"]["n"] == len(published.QUESTIONS)
        assert "| Physics |" in (work / "runs" / f"bench-{stage}" / "report.md").read_text()
