"""A part of a picture is covered: say which of four patches it was.

The false patches are Spatial-SSRL's: cut elsewhere, the right one turned, its inside enlarged.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, all_differ

LEVELS = (
    "patches of other pictures",
    "patches of the same picture",
    "the patch turned, its inside enlarged, and a neighbour",
)
SIDE, PATCH = 336, 84
COVER = (128, 128, 128)


def chance(level: int) -> float:
    """What a guess earns."""
    return 1 / 4


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A picture with a grey square, and four patches as images 2 to 5, the right one at any place.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=3)
    >>> len(puzzle.images), puzzle.choices
    (5, ['image 2', 'image 3', 'image 4', 'image 5'])
    """
    for _ in range(TRIES):
        picture = pictures(rng).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        x, y = (int(v) * PATCH for v in rng.integers(0, SIDE // PATCH, 2))
        patch = picture.crop((x, y, x + PATCH, y + PATCH))
        patches = [patch, *_false(rng, picture, patch, (x, y), pictures, level)]
        if all_differ(patches):
            break
    else:
        raise NoPuzzle(f"masked-region: {TRIES} pictures in a row have patches that look alike; give other --images.")
    covered = picture.copy()
    covered.paste(COVER, (x, y, x + PATCH, y + PATCH))
    order = rng.permutation(4)
    right = int(np.flatnonzero(order == 0)[0])
    return Puzzle(
        "A square of the first image is covered in grey. Which of the other images shows what is under it?",
        [covered, *(patches[index] for index in order)],
        "ABCD"[right],
        "choice",
        [f"image {number}" for number in range(2, 6)],
        facts={"bbox_2d": [x, y, x + PATCH, y + PATCH]},
    )


def _false(
    rng: np.random.Generator,
    picture: Image.Image,
    patch: Image.Image,
    at: tuple[int, int],
    pictures: Pictures,
    level: int,
) -> list[Image.Image]:
    if level == 1:
        others = [pictures(rng).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for _ in range(3)]
        return [other.crop((at[0], at[1], at[0] + PATCH, at[1] + PATCH)) for other in others]
    places = [(x, y) for x in range(0, SIDE, PATCH) for y in range(0, SIDE, PATCH) if (x, y) != at]
    near = sorted(places, key=lambda place: abs(place[0] - at[0]) + abs(place[1] - at[1]))
    if level == 2:
        chosen = [places[index] for index in rng.choice(len(places), 3, replace=False)]
        return [picture.crop((x, y, x + PATCH, y + PATCH)) for x, y in chosen]
    quarter = PATCH // 4
    inside = patch.crop((quarter, quarter, PATCH - quarter, PATCH - quarter))
    x, y = near[int(rng.integers(2))]
    return [
        patch.rotate(90 * int(rng.integers(1, 4))),
        inside.resize((PATCH, PATCH), Image.Resampling.BICUBIC),
        picture.crop((x, y, x + PATCH, y + PATCH)),
    ]
