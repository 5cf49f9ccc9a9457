"""Two scenes that differ in one object: say where, with a box."""

from __future__ import annotations

import json

import numpy as np

from trl_onevision.data.synthesize.puzzle import Pictures, Puzzle
from trl_onevision.data.synthesize.scene import COLOURS, Thing, any_kind, draw, expected_iou, placed

OTHERS = (3, 8, 14)
SIZES = ((57, 71), (33, 45), (21, 27))
CHANGES = ("one is gone", "one is gone or of another colour", "one is gone or of another colour")
LEVELS = {
    f"{change}, {others + 1} objects of {sizes[0]} to {sizes[-1]} pixels": expected_iou(sizes)
    for change, others, sizes in zip(CHANGES, OTHERS, SIZES, strict=True)
}


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """Two scenes, and the box of the object that only one of them shows, or that has another colour in each.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=2)
    >>> len(puzzle.images), puzzle.task
    (2, 'boxes')
    """
    kinds = [any_kind(rng) for _ in range(OTHERS[level - 1] + 1)]
    things = placed(rng, kinds, SIZES[level - 1], "difference")
    changed, rest = things[0], things[1:]
    recoloured = level > 1 and rng.random() < 0.5
    colour = str(rng.choice([c for c in COLOURS if c != changed.colour]))
    after = [Thing(changed.shape, colour, changed.box)] if recoloured else []
    pair = [draw([*rest, changed]), draw([*rest, *after])]
    if rng.random() < 0.5:
        pair.reverse()
    question = (
        "The two images differ in one object. Where is it? Answer with its box as JSON, [x1, y1, x2, y2] in pixels of "
        "the image."
    )
    gold = [{"bbox_2d": list(changed.box), "label": "difference"}]
    return Puzzle(question, pair, json.dumps(gold), "boxes", facts=[[thing.name, *thing.box] for thing in things])
