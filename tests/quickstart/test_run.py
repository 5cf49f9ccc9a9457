"""The quickstart from its command line: what it leaves, what it refuses, and how it goes on."""

import json
import shlex
import signal
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from trl_onevision.cli import app
from trl_onevision.quickstart.run import STAGES, QuickstartError, Size, quickstart

TINY = Size(sft_rows=64, grpo_rows=48, held_out_rows=24, steps=2)


def command(*arguments):
    return CliRunner().invoke(app, ["quickstart", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole quickstart, two steps a stage."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    return folder, quickstart(folder, size=TINY)


def test_leaves_a_table_of_before_and_after(finished):
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    assert set(results) == {"before", "after", "seconds"}
    for moment in ("before", "after"):
        assert set(results[moment]) == {"accuracy", "mean_iou", "format"}
        assert all(0 <= value <= 1 for value in results[moment].values())
    stages = json.loads((folder / "quickstart.json").read_text())
    assert results["seconds"] == pytest.approx(sum(stages.values()))
    assert set(stages) == set(STAGES)


def test_leaves_pictures_that_open(finished):
    folder, _ = finished
    for name in ("curves.png", "samples.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20, "an empty picture"


def test_grpo_logged_all_three_rewards_and_routed_rows_by_task(finished):
    folder, _ = finished
    (state,) = (folder / "grpo").glob("checkpoint-*/trainer_state.json")
    logged = [entry for entry in json.loads(state.read_text())["log_history"] if "reward" in entry]
    assert len(logged) == TINY.steps
    for name in ("accuracy_reward", "iou_reward", "format_reward"):
        assert all(0 <= entry[f"rewards/{name}/mean"] <= 1 for entry in logged)


def test_keeps_what_was_asked_and_answered(finished):
    folder, _ = finished
    predictions = json.loads((folder / "predictions.json").read_text())
    assert len(predictions) == TINY.held_out_rows
    assert set(predictions[0]) == {"id", "task", "solution", "before", "after"}


def test_a_second_run_never_mixes_silently(finished):
    folder, results = finished
    refused = command("--output", folder)
    assert refused.exit_code == 1
    assert "--resume" in refused.output and "--overwrite" in refused.output
    assert json.loads((folder / "results.json").read_text()) == results

    resumed = command("--output", folder, "--resume")
    assert resumed.exit_code == 0
    assert resumed.output.count("done in an earlier run") == len(STAGES)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for flags in ([], ["--resume"], ["--overwrite"]):
        result = command("--output", tmp_path, *flags)
        assert result.exit_code == 1
        assert "thesis.txt" in result.output and "Nothing was changed" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_output_folder(tmp_path):
    file = tmp_path / "notes"
    file.write_text("mine")
    result = command("--output", file)
    assert result.exit_code == 1
    assert "found a file" in result.output
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_an_error_in_a_line(tmp_path):
    (tmp_path / "notes").write_text("mine")
    result = command("--output", tmp_path / "notes" / "run")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and str(tmp_path / "notes" / "run") in result.output


def test_a_full_disk_names_the_stage(tmp_path, monkeypatch):
    def fail(run):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(STAGES, "Render digits", fail)
    with pytest.raises(QuickstartError, match=r"Stage 1, Render digits: .*No space left.*--resume"):
        quickstart(tmp_path / "run")


@pytest.mark.parametrize("cut", ["", '{"Render di', "[1.0]"])
def test_a_cut_state_is_named_with_what_to_do(tmp_path, cut):
    (tmp_path / "quickstart.json").write_text(cut)
    result = command("--output", tmp_path, "--resume")
    assert result.exit_code == 1
    assert "quickstart.json: found no JSON object" in result.output and "--overwrite" in result.output


def test_resume_needs_a_run_and_excludes_overwrite(tmp_path):
    assert "no quickstart to go on with" in command("--output", tmp_path / "new", "--resume").output
    both = command("--output", tmp_path / "new", "--resume", "--overwrite")
    assert both.exit_code == 1
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_says_how_to_go_on_and_does(tmp_path):
    folder = tmp_path / "a folder's name that needs quotes, and is longer than a terminal is wide, so that it wraps"
    code = (
        "from pathlib import Path\n"
        "from trl_onevision.console import fail\n"
        "from trl_onevision.quickstart.run import QuickstartError, Size, quickstart\n"
        f"try:\n    quickstart(Path({str(folder)!r}), size={TINY!r})\n"
        "except QuickstartError as error:\n    fail(error)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if f"cd {shlex.quote(str(folder))} && trl sft --config quickstart-sft.yaml" in line:
                process.send_signal(signal.SIGINT)
                break
        said = process.stdout.read()
    assert "Interrupted in stage 3" in said
    assert f"--output {shlex.quote(str(folder))} --resume" in said
    done = json.loads((folder / "quickstart.json").read_text())
    assert list(done) == list(STAGES)[:2]

    results = quickstart(folder, resume=True, size=TINY)
    assert set(results) == {"before", "after", "seconds"}


def test_a_failing_trl_shows_its_last_lines_and_keeps_what_was_finished(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "quickstart.json").write_text('{"Render digits": 1.0, "Build the model": 1.0}')
    with pytest.raises(QuickstartError, match=r"(?s)trl sft .*--seed 3 .* ended with status 1.*--seed 3 --resume"):
        quickstart(folder, resume=True, size=TINY, seed=3)
    assert "Traceback" in (folder / "sft.log").read_text()


@pytest.mark.slow
def test_grpo_raises_held_out_accuracy_and_keeps_iou(tmp_path):
    results = quickstart(tmp_path / "run")
    before, after = results["before"], results["after"]
    assert after["accuracy"] >= max(0.75, before["accuracy"] + 0.08)
    assert after["mean_iou"] >= max(0.65, before["mean_iou"] - 0.03)  # SFT learns where a lone digit stands
    assert after["format"] >= 0.98
