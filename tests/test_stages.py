"""Stages in a row: what each starts from, what is skipped, and how a stopped one goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from trl_onevision.cli import app
from trl_onevision.recipes import recipe_folder
from trl_onevision.stages import StageError, read_stages, walk

sys.path.append(str(Path(__file__).parent / "grpo"))

# Stands where `trl` is looked for, and notes what it was asked: a real run of stages is the last test
RECORDER = """
    import json, os, pathlib, sys, time
    words = sys.argv[1:]
    with open("asked.jsonl", "a") as log:
        log.write(json.dumps(words) + "\\n")
    import yaml
    settings = yaml.safe_load(open(words[words.index("--config") + 1]))
    given = words[words.index("--output_dir") + 1] if "--output_dir" in words else settings["output_dir"]
    output = pathlib.Path(given)
    for step in (2, 10):
        (output / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
        (output / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    if pathlib.Path("slow").exists():
        pathlib.Path("started").touch()
        time.sleep(60)
    if pathlib.Path("broken").exists():
        sys.exit(3)
    (output / settings.get("leaves", "config.json")).write_text("{}")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two recipes and a file of stages, and a recorder in the place of `trl`."""
    (tmp_path / "bin" / "trl" / "cli").mkdir(parents=True)
    for path in ("trl", "trl/cli"):
        (tmp_path / "bin" / path / "__init__.py").touch()
    (tmp_path / "bin" / "trl" / "cli" / "main.py").write_text(textwrap.dedent(RECORDER))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'bin'}:{Path(__file__).parents[1]}")
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"output_dir": f"runs/{name}"}))
    write(tmp_path, "trl sft --config one.yaml", "trl grpo --config two.yaml --learning_rate 1e-6")
    return tmp_path


def write(folder, *lines):
    (folder / "stages.yaml").write_text(yaml.safe_dump(list(lines)))


def asked(folder):
    log = folder / "asked.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_each_stage_starts_from_the_model_of_the_one_before_and_none_runs_twice(folder):
    walk(read_stages("stages.yaml"))
    assert asked(folder) == [
        ["sft", "--config", "one.yaml"],
        ["grpo", "--config", "two.yaml", "--learning_rate", "1e-6", "--model_name_or_path", "runs/one"],
    ]
    walk(read_stages("stages.yaml"))
    assert len(asked(folder)) == 2


def test_an_option_may_be_written_in_any_way_that_trl_reads(folder):
    write(folder, "trl sft --config=one.yaml --output-dir=runs/a", "trl grpo --config two.yaml --model-name-or-path=m")
    first, second = read_stages("stages.yaml")
    assert str(first.output) == "runs/a"
    assert second.command == ("trl", "grpo", "--config", "two.yaml", "--model_name_or_path", "m")


def test_a_stage_that_fails_goes_on_from_its_last_checkpoint(folder):
    (folder / "broken").touch()
    with pytest.raises(StageError, match=r"stage 1 \(trl sft .*status 3"):
        walk(read_stages("stages.yaml"))
    (folder / "broken").unlink()
    walk(read_stages("stages.yaml"))
    assert asked(folder)[1] == ["sft", "--config", "one.yaml", "--resume_from_checkpoint", "runs/one/checkpoint-10"]
    assert [words[0] for words in asked(folder)] == ["sft", "sft", "grpo"]


def test_a_killed_stage_goes_on_too(folder):
    (folder / "slow").touch()
    program = "from trl_onevision.cli import app; app(['stages', 'stages.yaml'])"
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (folder / "slow").unlink()
    walk(read_stages("stages.yaml"))
    assert "--resume_from_checkpoint" in asked(folder)[1]
    assert (folder / "runs" / "two" / "stage.json").exists()


def test_a_folder_of_another_command_is_not_taken_for_done(folder):
    walk(read_stages("stages.yaml"))
    write(folder, "trl sft --config one.yaml --max_steps 3", "trl grpo --config two.yaml")
    with pytest.raises(StageError, match=r"runs/one was made by .*Name another --output_dir"):
        walk(read_stages("stages.yaml"))


def test_adapters_alone_are_no_model_to_start_from(folder):
    (folder / "one.yaml").write_text("output_dir: runs/one\nleaves: adapter_config.json\n")
    with pytest.raises(StageError, match="holds adapters and no model"):
        walk(read_stages("stages.yaml"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["trl"], "stage 1: expected 'trl METHOD --config RECIPE"),
        (["rm -rf --config one.yaml"], "expected 'trl METHOD"),
        (["trl sft --config three.yaml"], "no file beside stages.yaml, and No recipe is named 'three.yaml'"),
        (["trl sft --config one.yaml", "trl grpo --config one.yaml"], "as another stage does; give --output_dir"),
        ([], "expected a list of commands"),
        (["trl sft --config empty.yaml"], "names no output_dir"),
    ],
)
def test_what_cannot_be_walked_is_said_before_anything_runs(folder, lines, message):
    (folder / "empty.yaml").write_text("")
    write(folder, *lines)
    result = CliRunner().invoke(app, ["stages", "stages.yaml"])
    assert result.exit_code == 1 and re.search(re.escape(message), result.output)
    assert asked(folder) == []


def test_a_dry_run_prints_the_commands(folder):
    result = CliRunner().invoke(app, ["stages", "stages.yaml", "--dry-run"])
    assert result.output.splitlines()[1].endswith("--learning_rate 1e-6 --model_name_or_path runs/one")
    assert asked(folder) == []


@pytest.mark.parametrize("name", ["lmm-r1", "vision-r1-ptst", "vl-cogito", "x-reasoner"])
def test_the_stages_that_ship_start_where_the_one_before_ends(name):
    stages = read_stages(recipe_folder() / "stages" / f"{name}.yaml")
    recipes = [yaml.safe_load(Path(stage.command[3]).read_text()) for stage in stages]
    for before, stage, recipe in zip(stages, stages[1:], recipes[1:], strict=False):
        assert stage.command[-2:] == ("--model_name_or_path", str(before.output))
        assert recipe["model_name_or_path"] == str(before.output), "the recipe by itself starts there too"
    shown = CliRunner().invoke(app, ["stages", name, "--dry-run"])
    assert len(shown.output.splitlines()) == len(stages)


@pytest.mark.slow
def test_two_real_stages_train_in_a_row(tmp_path, monkeypatch):
    import tiny

    monkeypatch.chdir(tmp_path)
    for part in tiny.build("qwen2_5_vl"):
        part.save_pretrained("model")
    Path("data").mkdir()
    tiny.dataset(4).to_parquet("data/train.parquet")
    recipe = {
        "model_name_or_path": "model", "dataset_name": "data",
        "reward_funcs": ["trl_onevision.rewards.accuracy_reward"],
        "output_dir": "runs/one", "max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 4,
        "max_completion_length": 8, "use_cpu": True, "bf16": False, "report_to": "none", "dtype": "float32",
    }  # fmt: skip
    Path("grpo.yaml").write_text(yaml.safe_dump(recipe))
    write(tmp_path, "trl grpo --config grpo.yaml", "trl grpo --config grpo.yaml --output_dir runs/two")
    walk(read_stages("stages.yaml"))
    states = [json.loads(Path(f"runs/{name}/checkpoint-1/trainer_state.json").read_text()) for name in ("one", "two")]
    assert [state["global_step"] for state in states] == [1, 1]
