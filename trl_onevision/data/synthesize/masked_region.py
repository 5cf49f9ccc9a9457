"""A part of a picture is covered: say which of four patches it was.

The false patches are Spatial-SSRL's: cut elsewhere, the right one turned, its inside enlarged.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, all_differ

LEVELS = dict.fromkeys(
    (
        "patches of other pictures",
        "patches of the same picture",
        "the patch turned, its inside enlarged, and a neighbour",
    ),
    1 / 4,
)
SIDE, PATCH = 336, 84
COVER = (128, 128, 128)


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
        patches = [_patch(picture, x, y), *_false(rng, pictures, level, picture, x, y)]
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


def _patch(picture: Image.Image, x: int, y: int) -> Image.Image:
    return picture.crop((x, y, x + PATCH, y + PATCH))


def _false(
    rng: np.random.Generator, pictures: Pictures, level: int, picture: Image.Image, x: int, y: int
) -> list[Image.Image]:
    """Three patches that are not the one at `x` and `y`."""
    if level == 1:
        others = [pictures(rng).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for _ in range(3)]
        return [_patch(other, x, y) for other in others]
    places = [(left, top) for left in range(0, SIDE, PATCH) for top in range(0, SIDE, PATCH) if (left, top) != (x, y)]
    if level == 2:
        return [_patch(picture, *places[index]) for index in rng.choice(len(places), 3, replace=False)]
    near = sorted(places, key=lambda place: abs(place[0] - x) + abs(place[1] - y))
    neighbour = _patch(picture, *near[int(rng.integers(2))])
    patch, quarter = _patch(picture, x, y), PATCH // 4
    inside = patch.crop((quarter, quarter, PATCH - quarter, PATCH - quarter))
    turned = patch.rotate(90 * int(rng.integers(1, 4)))
    return [turned, inside.resize((PATCH, PATCH), Image.Resampling.BICUBIC), neighbour]
