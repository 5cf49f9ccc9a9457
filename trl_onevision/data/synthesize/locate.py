"""Where the one object of its kind lies in a scene, among others that share its shape or its colour."""

from __future__ import annotations

import json

import numpy as np

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle
from trl_onevision.data.synthesize.scene import COLOURS, SHAPES, draw, expected_iou, place

OTHERS = (2, 6, 12)
SIZES = ((57, 71), (33, 45), (21, 27))
LEVELS = tuple(
    f"{sizes[0]} to {sizes[-1]} pixels, among {others} others" for sizes, others in zip(SIZES, OTHERS, strict=True)
)


def chance(level: int) -> float:
    """The mean IoU of a box at random, of a size that the level has."""
    return expected_iou(SIZES[level - 1])


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A scene and the box of its one object of a shape and colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> [*json.loads(puzzle.solution)[0]]
    ['bbox_2d', 'label']
    """
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
    others = [
        (shape, str(rng.choice([c for c in COLOURS if c != colour])))
        if index % 2
        else (str(rng.choice([s for s in SHAPES if s != shape])), colour)
        for index in range(OTHERS[level - 1])
    ]
    for _ in range(TRIES):
        things = place(rng, [(shape, colour), *others], SIZES[level - 1])
        if things is not None:
            break
    else:
        raise NoPuzzle(f"locate: no room for {len(others) + 1} objects of {max(SIZES[level - 1])} pixels.")
    target = things[0]
    order = rng.permutation(len(things))
    image = draw([things[index] for index in order])
    question = f"Locate the {target.name}. Answer with its box as JSON, [x1, y1, x2, y2] in pixels of the image."
    gold = [{"bbox_2d": list(target.box), "label": target.name}]
    return Puzzle(question, [image], json.dumps(gold), "boxes", facts=[[thing.name, *thing.box] for thing in things])
