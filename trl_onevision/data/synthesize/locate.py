"""Where the one object of its kind lies in a scene, among others that share its shape or its colour."""

from __future__ import annotations

import json

import numpy as np

from trl_onevision.data.synthesize.puzzle import Pictures, Puzzle
from trl_onevision.data.synthesize.scene import any_kind, draw, expected_iou, others_than, placed

OTHERS = (2, 6, 12)
SIZES = ((57, 71), (33, 45), (21, 27))
LEVELS = {
    f"{sizes[0]} to {sizes[-1]} pixels, among {others} others": expected_iou(sizes)
    for sizes, others in zip(SIZES, OTHERS, strict=True)
}


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A scene and the box of its one object of a shape and colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> [*json.loads(puzzle.solution)[0]]
    ['bbox_2d', 'label']
    """
    shape, colour = any_kind(rng)
    kinds = [(shape, colour), *others_than(rng, shape, colour, OTHERS[level - 1])]
    things = placed(rng, kinds, SIZES[level - 1], "locate")
    target = things[0]
    order = rng.permutation(len(things))
    image = draw([things[index] for index in order])
    question = f"Locate the {target.name}. Answer with its box as JSON, [x1, y1, x2, y2] in pixels of the image."
    gold = [{"bbox_2d": list(target.box), "label": target.name}]
    return Puzzle(question, [image], json.dumps(gold), "boxes", facts=[[thing.name, *thing.box] for thing in things])
