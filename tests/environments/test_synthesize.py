"""A row that is drawn while training is the row that would have been prepared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from PIL import Image
from typer.testing import CliRunner

from trl_onevision.cli import app
from trl_onevision.data.synthesize import TASKS
from trl_onevision.environments import Synthesize

FOLDER = Path(__file__).parents[1] / "data" / "fixtures" / "images"


def prepared(output: Path, *options: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["prepare", "synthesize", "--output", str(output), "--workers", "1", *options])
    assert result.exit_code == 0, result.output
    return list(load_dataset(str(output), split="train", cache_dir=str(output.with_name("cache"))))


@pytest.mark.parametrize("task", TASKS)
def test_seeds_give_the_rows_that_would_have_been_prepared(task: str, tmp_path: Path) -> None:
    options = ("--task", task, "--number", "2", "--level", "2", "--seed", "3")
    expected = prepared(tmp_path / "drawn", *options)
    rows = prepared(tmp_path / "online", *options, "--online")
    assert rows == [{"task": task, "level": 2, "seed": 3, "index": index} for index in range(2)]
    environment = Synthesize()
    for row, drawn in zip(rows, expected, strict=True):
        blocks = environment.reset(**row, prompt=[{"role": "user", "content": ""}])
        ((message,), images) = (drawn["prompt"], [block["image"] for block in blocks if block["type"] == "image"])
        assert [block["type"] for block in blocks] == [block["type"] for block in message["content"]]
        assert [block.get("text") for block in blocks] == [block["text"] for block in message["content"]]
        assert [image.tobytes() for image in images] == [image.tobytes() for image in drawn["images"]]
        assert environment.columns.items() <= drawn.items()
        assert environment.columns["solution"] == drawn["solution"]


def test_what_a_row_does_not_say_the_settings_say() -> None:
    drawn = Synthesize("count", level=1)
    other = Synthesize()
    assert drawn.reset(seed=5) == other.reset(seed=5, task="count", level=1)
    assert drawn.reset(seed=5, level=2) == other.reset(seed=5, task="count", level=2)
    assert drawn.reset(seed=6) != other.reset(seed=5, task="count", level=1)


def test_photographs_come_from_a_folder(tmp_path: Path) -> None:
    Image.effect_mandelbrot((200, 160), (-2, -1.2, 1, 1.2), 50).convert("RGB").save(tmp_path / "a.png")
    (image, _) = Synthesize("jigsaw", 2, images=tmp_path, prompt="plain").reset(seed=1)
    assert image["image"].size == (168, 112)


@pytest.mark.parametrize(
    ("settings", "row", "message"),
    [
        ({}, {"task": "count", "level": 1, "id": "a"}, r"a row has no seed, .*--online` writes. It has id\."),
        ({}, {"seed": 3}, "no task and no level"),
        ({}, {"seed": 3, "task": "sudoku", "level": 1}, "--task 'sudoku': unknown"),
        ({}, {"seed": 3, "task": "count", "level": 9}, "count has levels 1 to 4"),
        ({"task": "sudoku"}, {"seed": 3}, "--task 'sudoku': unknown"),
        ({"task": "count", "level": 9}, {"seed": 3, "level": 1}, "count has levels 1 to 4"),
        ({"images": "no/such"}, {}, "no/such: cannot be read"),
        ({"prompt": "plane"}, {}, "prompt 'plane': unknown"),
    ],
)
def test_what_is_missing_is_named(settings: dict[str, Any], row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthesize(**settings).reset(**row)


def test_environments_need_neither_torch_nor_trl() -> None:
    code = (
        "import sys, trl_onevision.environments; sys.exit(bool({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
