"""How many objects of one kind a scene shows, among others that share its shape or its colour."""

from __future__ import annotations

import numpy as np

from trl_onevision.data.synthesize.puzzle import Pictures, Puzzle
from trl_onevision.data.synthesize.scene import any_kind, draw, others_than, placed

MOST = (4, 6, 9, 12)  # objects of the kind; each number from 1 to it is equally likely
OTHERS = (2, 4, 8, 12)
LEVELS = {f"1 to {most} objects, among {others} others": 1 / most for most, others in zip(MOST, OTHERS, strict=True)}
SIZES = (25, 31, 37)


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A scene and the number of its objects of one shape and colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> puzzle.task, 1 <= int(puzzle.solution) <= 4
    ('count', True)
    """
    number = int(rng.integers(1, MOST[level - 1] + 1))
    shape, colour = any_kind(rng)
    kinds = [(shape, colour)] * number + others_than(rng, shape, colour, OTHERS[level - 1])
    things = placed(rng, kinds, SIZES, "count")
    question = f"How many {colour} {shape}s does the image show?"
    return Puzzle(question, [draw(things)], str(number), "count", facts=[[thing.name, *thing.box] for thing in things])
