"""A picture is cut into pieces that are laid out in another order: say where each belongs.

Jigsaw-R1 (arXiv 2505.23590) and Visual Jigsaw, with an answer that is a permutation or nothing.
"""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, all_differ

GRIDS = ((1, 2), (2, 2), (2, 3), (3, 3), (4, 4))
LEVELS = {f"{rows} x {columns} pieces": 1 / (rows * columns) for rows, columns in GRIDS}  # the share that lies right
TILE = 28  # the sides of a piece are multiples of it, so that a piece is whole visual tokens


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A puzzle of the level's grid; the answer names for each place of the picture the piece that belongs there.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=2)
    >>> puzzle.task, sorted(json.loads(puzzle.solution))
    ('order', [1, 2, 3, 4])
    """
    rows, columns = GRIDS[level - 1]
    for _ in range(TRIES):
        pieces = _cut(pictures(rng), rows, columns)
        if all_differ(pieces):
            break
    else:
        raise NoPuzzle(f"jigsaw: {TRIES} pictures in a row have pieces that look alike; give other --images.")
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
