"""Tasks of drawn scenes: how many objects, where one is, and which differs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from trl_onevision.data.synthesize.puzzle import Pictures, Puzzle, Task
from trl_onevision.data.synthesize.scene import COLOURS, Thing, any_kind, draw, expected_iou, others_than, placed

MOST = (4, 6, 9, 12)  # objects of the kind; each number from 1 to it is equally likely
AMONG = (2, 4, 8, 12)
SIZES = ((57, 71), (33, 45), (21, 27))
OTHERS = {"locate": (2, 6, 12), "difference": (3, 8, 14)}
CHANGES = ("one is gone", "one is gone or of another colour", "one is gone or of another colour")
BOX = "Answer with its box as JSON, [x1, y1, x2, y2] in pixels of the image."


def count(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """How many objects of one kind a scene shows, among others that share its shape or its colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = count(np.random.default_rng(0), picture, level=1)
    >>> puzzle.task, 1 <= int(puzzle.solution) <= 4
    ('count', True)
    """
    number = int(rng.integers(1, MOST[level - 1] + 1))
    shape, colour = any_kind(rng)
    kinds = [(shape, colour)] * number + others_than(rng, shape, colour, AMONG[level - 1])
    things = placed(rng, kinds, (25, 31, 37), "count")
    question = f"How many {colour} {shape}s does the image show?"
    return Puzzle(question, [draw(things)], str(number), "count", facts=_facts(things))


def locate(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """Where the one object of its kind lies in a scene, among others that share its shape or its colour.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = locate(np.random.default_rng(0), picture, level=1)
    >>> [*json.loads(puzzle.solution)[0]]
    ['bbox_2d', 'label']
    """
    shape, colour = any_kind(rng)
    kinds = [(shape, colour), *others_than(rng, shape, colour, OTHERS["locate"][level - 1])]
    things = placed(rng, kinds, SIZES[level - 1], "locate")
    image = draw([things[index] for index in rng.permutation(len(things))])
    gold = _box(things[0], things[0].name)
    return Puzzle(f"Locate the {things[0].name}. {BOX}", [image], gold, "boxes", facts=_facts(things))


def difference(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """Two scenes, of which only one shows an object, or in which it has two colours: where is it?

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = difference(np.random.default_rng(0), picture, level=2)
    >>> len(puzzle.images), puzzle.task
    (2, 'boxes')
    """
    kinds = [any_kind(rng) for _ in range(OTHERS["difference"][level - 1] + 1)]
    things = placed(rng, kinds, SIZES[level - 1], "difference")
    changed, rest = things[0], things[1:]
    recoloured = level > 1 and rng.random() < 0.5
    colour = str(rng.choice([c for c in COLOURS if c != changed.colour]))
    after = [Thing(changed.shape, colour, changed.box)] if recoloured else []
    pair = [draw([*rest, changed]), draw([*rest, *after])]
    if rng.random() < 0.5:
        pair.reverse()
    question = f"The two images differ in one object. Where is it? {BOX}"
    return Puzzle(question, pair, _box(changed, "difference"), "boxes", facts=_facts(things))


def _box(thing: Thing, label: str) -> str:
    return json.dumps([{"bbox_2d": list(thing.box), "label": label}])


def _facts(things: Sequence[Thing]) -> list[list[object]]:
    return [[thing.name, *thing.box] for thing in things]


COUNT = Task(
    count, {f"1 to {most} objects, among {others} others": 1 / most for most, others in zip(MOST, AMONG, strict=True)}
)
LOCATE = Task(
    locate,
    {
        f"{sizes[0]} to {sizes[-1]} pixels, among {others} others": expected_iou(sizes)
        for sizes, others in zip(SIZES, OTHERS["locate"], strict=True)
    },
)
DIFFERENCE = Task(
    difference,
    {
        f"{change}, {others + 1} objects of {sizes[0]} to {sizes[-1]} pixels": expected_iou(sizes)
        for change, others, sizes in zip(CHANGES, OTHERS["difference"], SIZES, strict=True)
    },
)
