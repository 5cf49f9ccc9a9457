"""Scenes of coloured shapes, drawn so that every object's pixels, box and count are known exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle

SIDE = 336  # of a scene, a multiple of 28 (and of no importance to processors with another grid)
SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = {
    "red": (214, 39, 40), "green": (44, 140, 44), "blue": (31, 90, 180), "yellow": (240, 200, 20),
    "purple": (128, 60, 170), "black": (20, 20, 20),
}  # fmt: skip
PAPER = (250, 250, 250)
GAP = 6  # pixels between two boxes at the least: objects never touch


@dataclass(frozen=True)
class Thing:
    """One object: what it is, and its box `[x1, y1, x2, y2]` in pixels, right and bottom excluded."""

    shape: str
    colour: str
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """As a question names it."""
        return f"{self.colour} {self.shape}"


def draw(things: Sequence[Thing], side: int = SIDE) -> Image.Image:
    """The scene as an image, without anti-aliasing: a box encloses exactly the pixels of its object's colour.

    >>> image = draw([Thing("circle", "red", (10, 20, 31, 41))])
    >>> ys, xs = np.nonzero((np.asarray(image) == COLOURS["red"]).all(-1))
    >>> int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    (10, 20, 31, 41)
    """
    image = Image.new("RGB", (side, side), PAPER)
    pen = ImageDraw.Draw(image)
    for thing in things:
        left, top, right, bottom = thing.box[0], thing.box[1], thing.box[2] - 1, thing.box[3] - 1
        x, y, colour = (left + right) // 2, (top + bottom) // 2, COLOURS[thing.colour]
        if thing.shape == "circle":
            pen.ellipse((left, top, right, bottom), fill=colour)
        elif thing.shape == "square":
            pen.rectangle((left, top, right, bottom), fill=colour)
        elif thing.shape == "triangle":
            pen.polygon([(left, bottom), (right, bottom), (x, top)], fill=colour)
        else:
            pen.polygon([(left, y), (x, top), (right, y), (x, bottom)], fill=colour)
    return image


def place(
    rng: np.random.Generator, names: Sequence[tuple[str, str]], sizes: Sequence[int], side: int = SIDE
) -> list[Thing] | None:
    """Objects of the given (shape, colour) at places where none touches another, or None where they do not fit.

    The first lies anywhere with equal chance; the others are moved until they are clear.
    """
    things: list[Thing] = []
    for shape, colour in names:
        for _ in range(200):
            size = int(rng.choice(sizes))
            x, y = (int(v) for v in rng.integers(0, side - size + 1, 2))
            box = (x, y, x + size, y + size)
            if all(_clear(box, other.box) for other in things):
                things.append(Thing(shape, colour, box))
                break
        else:
            return None
    return things


def placed(rng: np.random.Generator, kinds: Sequence[tuple[str, str]], sizes: Sequence[int], task: str) -> list[Thing]:
    """As `place`, as often as it takes to make them fit. Raises `NoPuzzle` for a task that asks for too many."""
    for _ in range(TRIES):
        if (things := place(rng, kinds, sizes)) is not None:
            return things
    raise NoPuzzle(f"{task}: no room for {len(kinds)} objects of {max(sizes)} pixels.")


def any_kind(rng: np.random.Generator) -> tuple[str, str]:
    """A shape and a colour at random."""
    return str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))


def others_than(rng: np.random.Generator, shape: str, colour: str, count: int) -> list[tuple[str, str]]:
    """Kinds of which half share the shape, and half the colour: neither alone tells the one that is asked for."""
    return [
        (shape, str(rng.choice([c for c in COLOURS if c != colour])))
        if index % 2
        else (str(rng.choice([s for s in SHAPES if s != shape])), colour)
        for index in range(count)
    ]


def _clear(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] >= b[2] + GAP or b[0] >= a[2] + GAP or a[1] >= b[3] + GAP or b[1] >= a[3] + GAP


def picture(rng: np.random.Generator) -> Image.Image:
    """A scene to cut up where there are no photographs: shapes on a gradient, so that no two parts are alike."""
    corner = rng.integers(90, 246, (2, 2, 3)).astype(np.uint8)
    corner[rng.integers(2), rng.integers(2)] = rng.integers(0, 90, 3)
    ground = Image.fromarray(corner).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    shapes = draw(place(rng, [any_kind(rng) for _ in range(14)], (29, 41, 57)) or [])
    on_shape = (np.asarray(shapes) != PAPER).any(-1)
    ground.paste(shapes, mask=Image.fromarray((on_shape * 255).astype(np.uint8)))
    return ground


def expected_iou(sizes: Sequence[int], side: int = SIDE) -> float:
    """The mean IoU of two squares that know nothing of each other, each anywhere, as `place` puts the first object.

    >>> round(expected_iou([side := 100], side), 3), expected_iou([28], 336) < 0.01
    (1.0, True)
    """
    total = 0.0
    for a, b in product(sizes, sizes):
        overlaps = _overlaps(a, b, side)
        for (wide, p), (high, q) in product(overlaps.items(), overlaps.items()):
            shared = wide * high
            total += p * q * shared / (a * a + b * b - shared)
    return total / len(sizes) ** 2


def _overlaps(a: int, b: int, side: int) -> dict[int, float]:
    """How likely two intervals of lengths `a` and `b`, each anywhere within `side`, share how many pixels."""
    starts_a, starts_b = np.arange(side - a + 1)[:, None], np.arange(side - b + 1)[None]
    shared = np.minimum(starts_a + a, starts_b + b) - np.maximum(starts_a, starts_b)
    counts = Counter(shared.clip(min=0).ravel().tolist())
    return {length: count / shared.size for length, count in counts.items() if length}
