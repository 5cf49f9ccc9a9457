"""Tasks made from images, or from nothing: each a pure `make(rng, pictures, level) -> Puzzle`.

The answer is known because the question was made from it. Step-R1-V-Mini names verifiable rewards in the image space
and data from an environment's feedback and publishes no formula: these tasks are an interpretation, after Jigsaw-R1,
Visual Jigsaw, Spatial-SSRL and Vision-Zero.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.synthesize import chart, objects, pieces, render
from trl_onevision.data.synthesize.puzzle import Pictures, Puzzle, Task, row

TASKS: dict[str, Task] = {
    "chart": chart.CHART,
    "count": objects.COUNT,
    "difference": objects.DIFFERENCE,
    "jigsaw": pieces.JIGSAW,
    "locate": objects.LOCATE,
    "masked-region": pieces.MASKED_REGION,
    "render": render.RENDER,
    "rotation": pieces.ROTATION,
}


def find(name: str) -> Task:
    """A task by its name.

    >>> len(find("jigsaw").levels)
    5
    >>> find("sudoku")
    Traceback (most recent call last):
    ValueError: --task 'sudoku': unknown; expected one of chart, count, difference, jigsaw, locate, ...
    """
    if name not in TASKS:
        raise ValueError(f"--task {name!r}: unknown; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def make(name: str, pictures: Pictures, level: int, seed: int, index: int) -> Puzzle:
    """Puzzle `index` of a task, level and seed: the same on every machine, whatever was made before.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> make("count", picture, 2, seed=0, index=7).solution == make("count", picture, 2, seed=0, index=7).solution
    True
    """
    level_of(name, level)
    return find(name).make(np.random.default_rng([seed, zlib.crc32(name.encode()), level, index]), pictures, level)


def make_row(
    name: str, pictures: Pictures, level: int, seed: int, index: int, prompt: Prompt
) -> tuple[Puzzle, dict[str, Any]]:
    """A puzzle as `make` makes it, and the row of the contract that it is, whether written or drawn while training."""
    puzzle = make(name, pictures, level, seed, index)
    return puzzle, row(puzzle, f"{name}-level-{level}-seed-{seed}-{index}", f"synthesize/{name}", prompt)


def level_of(name: str, level: int) -> tuple[str, float]:
    """What a level of a task is, and what answers at random earn.

    >>> level_of("jigsaw", 2)
    ('2 x 2 pieces', 0.25)

    Raises `ValueError` where a task is unknown, or has no such level.
    """
    levels = list(find(name).levels.items())
    if not 1 <= level <= len(levels):
        listed = "; ".join(description for description, _ in levels)
        raise ValueError(f"--level {level}: {name} has levels 1 to {len(levels)}: {listed}")
    return levels[level - 1]
