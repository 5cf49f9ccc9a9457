"""Rows that are drawn while training: a made task's question, image and answer, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl_onevision.data.prompts import find_prompt
from trl_onevision.data.synthesize import level_of, make_row
from trl_onevision.data.synthesize.pictures import from_folder
from trl_onevision.data.synthesize.scene import picture


class Synthesize:
    """Draws the row that `trl-onevision prepare synthesize` would have written: same seed, same image, same answer.

    >>> environment = Synthesize()
    >>> shown = environment.reset(task="count", level=1, seed=0, index=7)
    >>> [block["type"] for block in shown], environment.columns["task"]
    (['image', 'text'], 'count')
    >>> shown[0]["image"] == Synthesize().reset(task="count", level=1, seed=0, index=7)[0]["image"]
    True

    Args:
        task: The task of rows that name none (`trl_onevision.data.synthesize.names`).
        level: The level of rows that name none.
        images: A folder of photographs to make tasks from. Default: drawn scenes.
        prompt: One of `trl_onevision.data.prompts.PROMPTS`.

    Rows hold `seed`, and `task`, `level` and `index` where they differ. Every copy of a row draws the same, since all
    of it comes from the row. `columns` is what rewards read of the drawn row, `solution` and `task` among it:
    `OneVisionGRPOTrainer` puts it over the columns of the row that it was drawn for. There is no tool.
    """

    def __init__(
        self,
        task: str | None = None,
        level: int | None = None,
        images: str | Path | None = None,
        prompt: str = "think-answer",
    ) -> None:
        if task is not None:
            level_of(task, level or 1)
        self.task, self.level, self.prompt = task, level, find_prompt(prompt)
        self.pictures = picture if images is None else from_folder(images)
        self.columns: dict[str, Any] = {}

    def reset(
        self,
        seed: int | None = None,
        index: int = 0,
        task: str | None = None,
        level: int | None = None,
        **row: Any,
    ) -> list[dict[str, Any]]:
        """Draw the row of a seed: the blocks of its question, images and text.

        Raises `ValueError` where the row lacks a seed, and on an unknown task or level.
        """
        task, level = task or self.task, level or self.level
        if seed is None or task is None or level is None:
            lacking = [name for name, value in (("seed", seed), ("task", task), ("level", level)) if value is None]
            raise ValueError(
                f"Synthesize: a row has no {' and no '.join(lacking)}, columns that `trl-onevision prepare synthesize "
                f"--online` writes. It has {', '.join(sorted(row)) or 'no others'}."
            )
        puzzle, drawn = make_row(task, self.pictures, level, seed, index, self.prompt)
        self.columns = {key: value for key, value in drawn.items() if key not in ("prompt", "images")}
        images = iter(puzzle.images)
        (message,) = drawn["prompt"]
        return [
            {**block, "image": next(images)} if block["type"] == "image" else block for block in message["content"]
        ]
