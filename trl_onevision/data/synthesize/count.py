"""How many objects of one kind a scene shows, among others that share its shape or its colour."""

from __future__ import annotations

import numpy as np

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle
from trl_onevision.data.synthesize.scene import COLOURS, SHAPES, draw, place

MOST = (4, 6, 9, 12)  # objects of the kind; each number from 1 to it is equally likely
OTHERS = (2, 4, 8, 12)
LEVELS = tuple(f"1 to {most} objects, among {others} others" for most, others in zip(MOST, OTHERS, strict=True))
SIZES = (25, 31, 37)


def chance(level: int) -> float:
    """What a number at random in the level's range earns, or always the same."""
    return 1 / MOST[level - 1]


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A scene and the number of its objects of one shape and colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> puzzle.task, 1 <= int(puzzle.solution) <= 4
    ('count', True)
    """
    number = int(rng.integers(1, MOST[level - 1] + 1))
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
    # Half of the others share the shape, half the colour: neither alone gives the answer
    others = [
        (shape, str(rng.choice([c for c in COLOURS if c != colour])))
        if index % 2
        else (str(rng.choice([s for s in SHAPES if s != shape])), colour)
        for index in range(OTHERS[level - 1])
    ]
    for _ in range(TRIES):
        things = place(rng, [(shape, colour)] * number + others, SIZES)
        if things is not None:
            break
    else:
        raise NoPuzzle(f"count: no room for {number + len(others)} objects of {max(SIZES)} pixels.")
    question = f"How many {colour} {shape}s does the image show?"
    return Puzzle(question, [draw(things)], str(number), "count", facts=[[thing.name, *thing.box] for thing in things])
