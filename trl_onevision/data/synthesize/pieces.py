"""Tasks of any picture: laid out again of its pieces, turned, or covered in a part."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from trl_onevision.answers.choice import LETTERS
from trl_onevision.data.synthesize import scene
from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, Task, all_differ

GRIDS = ((1, 2), (2, 2), (2, 3), (3, 3), (4, 4))
TILE = 28  # the sides of a piece are multiples of it, so that a piece is whole visual tokens
ANGLES = ((0, 180), (0, 90, 180, 270), tuple(range(0, 360, 45)), (0, 90, 180, 270))  # upright first
ROUND, ALONE = 3, 4  # levels of rotation
TURNED = 224  # pixels
SIDE, PATCH = 336, 84
COVER = (128, 128, 128)


def _tries(rng: np.random.Generator, pictures: Pictures, task: str, alike: str) -> Iterator[Image.Image]:
    """Pictures until one will do."""
    for _ in range(TRIES):
        yield pictures(rng)
    raise NoPuzzle(f"{task}: {TRIES} pictures in a row {alike}; give other --images.")


def jigsaw(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A picture is cut into pieces that are laid out in another order: say where each belongs.

    >>> puzzle = jigsaw(np.random.default_rng(0), scene.picture, level=2)
    >>> puzzle.task, sorted(json.loads(puzzle.solution))
    ('order', [1, 2, 3, 4])

    The answer names for each place of the picture the piece that belongs there. After Jigsaw-R1 (arXiv 2505.23590)
    and Visual Jigsaw, with an answer that is a permutation or nothing.
    """
    rows, columns = GRIDS[level - 1]
    for picture in _tries(rng, pictures, "jigsaw", "have pieces that look alike"):
        pieces = _cut(picture, rows, columns)
        if all_differ(pieces):
            break
    laid = rng.permutation(len(pieces))  # place i of the shown image holds piece laid[i]
    width, height = pieces[0].size
    shown = Image.new("RGB", (columns * width, rows * height))
    for place, piece in enumerate(laid):
        shown.paste(pieces[piece], ((place % columns) * width, (place // columns) * height))
    order = (np.argsort(laid) + 1).tolist()  # piece j lies at place argsort(laid)[j]
    question = (
        f"A picture was cut into {rows} x {columns} pieces of one size, and they were laid out in another order, or "
        f"in the same. Number the pieces of this image from 1 to {len(pieces)}, row by row from the top left. Which "
        "piece belongs at each place of the picture, row by row from the top left? Answer with a list of all numbers, "
        f"as in {json.dumps(list(range(1, len(pieces) + 1)))}."
    )
    return Puzzle(question, [shown], json.dumps(order), "order", facts={"grid": [rows, columns]})


def _cut(picture: Image.Image, rows: int, columns: int) -> list[Image.Image]:
    width = max(picture.width // columns // TILE, 1) * TILE
    height = max(picture.height // rows // TILE, 1) * TILE
    whole = picture.resize((columns * width, rows * height), Image.Resampling.BICUBIC)
    return [
        whole.crop((c * width, r * height, (c + 1) * width, (r + 1) * height))
        for r in range(rows)
        for c in range(columns)
    ]


def rotation(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A picture was turned clockwise: say by how much. Beside the upright one, or alone, where that has to be seen.

    >>> puzzle = rotation(np.random.default_rng(0), scene.picture, level=2)
    >>> puzzle.choices, puzzle.solution in "ABCD", len(puzzle.images)
    (['0 degrees', '90 degrees', '180 degrees', '270 degrees'], True, 2)

    Each of the level's angles is equally likely.
    """
    if level == ALONE and pictures is scene.picture:
        raise NoPuzzle(f"rotation: level {ALONE} asks which way is up, which drawn scenes do not tell; give --images.")
    angles = ANGLES[level - 1]
    for picture in _tries(rng, pictures, "rotation", "look alike when turned"):
        upright = _middle(picture)
        turned = [_turn(upright, angle, level) for angle in angles]
        if all_differ(turned):
            break
    index = int(rng.integers(len(angles)))
    subject = "This photograph was" if level == ALONE else "The second image is the first,"
    return Puzzle(
        f"{subject} turned clockwise. By how many degrees?",
        [turned[index]] if level == ALONE else [turned[0], turned[index]],
        LETTERS[index],
        "choice",
        [f"{angle} degrees" for angle in angles],
        facts={"angle": angles[index]},
    )


def _middle(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.crop((left, top, left + side, top + side))
    return middle.resize((TURNED, TURNED), Image.Resampling.BICUBIC)


def _turn(upright: Image.Image, angle: int, level: int) -> Image.Image:
    turned = upright.rotate(-angle, Image.Resampling.BICUBIC)
    if level == ROUND:  # a square would show its angle by its corners
        mask = Image.new("L", upright.size, 0)
        ImageDraw.Draw(mask).ellipse((0, 0, TURNED - 1, TURNED - 1), fill=255)
        turned = Image.composite(turned, Image.new("RGB", upright.size, "white"), mask)
    return turned


def masked_region(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A part of a picture is covered: say which of four patches it was, images 2 to 5, the right one at any place.

    >>> puzzle = masked_region(np.random.default_rng(0), scene.picture, level=3)
    >>> len(puzzle.images), puzzle.choices
    (5, ['image 2', 'image 3', 'image 4', 'image 5'])

    The false patches are Spatial-SSRL's: cut elsewhere, the right one turned, its inside enlarged.
    """
    for whole in _tries(rng, pictures, "masked-region", "have patches that look alike"):
        picture = whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        x, y = (int(v) * PATCH for v in rng.integers(0, SIDE // PATCH, 2))
        patches = [_patch(picture, x, y), *_false(rng, pictures, level, picture, x, y)]
        if all_differ(patches):
            break
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


JIGSAW = Task(jigsaw, {f"{rows} x {columns} pieces": 1 / (rows * columns) for rows, columns in GRIDS})
ROTATION = Task(
    rotation,
    {
        "two pictures, upside down or not": 1 / 2,
        "two pictures, quarter turns": 1 / 4,
        "two round pictures, eighth turns": 1 / 8,
        "one upright photograph, quarter turns (needs --images)": 1 / 4,
    },
)
MASKED_REGION = Task(
    masked_region,
    dict.fromkeys(
        (
            "patches of other pictures",
            "patches of the same picture",
            "the patch turned, its inside enlarged, and a neighbour",
        ),
        1 / 4,
    ),
)
