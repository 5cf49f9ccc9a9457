"""A sheet of made rows for a person to look at: images, question, answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from trl_onevision.data.synthesize.puzzle import Puzzle

CELL, TEXT, COLUMNS, SHOWN = 300, 110, 4, 12
LINE, CHARACTERS = 15, 46


def draw_sheet(puzzles: Sequence[Puzzle], path: Path) -> None:
    """Draw the first dozen puzzles as an image file."""
    shown = puzzles[:SHOWN]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + TEXT)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, puzzle in enumerate(shown):
        left, top = index % COLUMNS * CELL, index // COLUMNS * (CELL + TEXT)
        _draw_images(sheet, puzzle.images, left + 5, top + 5, CELL - 10)
        answer = puzzle.solution
        if puzzle.choices:
            answer += f" ({puzzle.choices['ABCDEFGH'.index(answer)]} of {', '.join(puzzle.choices)})"
        lines = [(line, "black") for line in textwrap.wrap(puzzle.question, CHARACTERS)[:4]]
        lines += [(line, "green") for line in textwrap.wrap(f"= {answer}", CHARACTERS)[:3]]
        for number, (line, colour) in enumerate(lines):
            pen.text((left + 5, top + CELL + LINE * number), line, fill=colour, font=font)
    sheet.save(path)


def _draw_images(sheet: Image.Image, images: Sequence[Image.Image], left: int, top: int, room: int) -> None:
    """The images of one puzzle side by side in squares, at most three to a row."""
    across = min(len(images), 3)
    side = room // across
    for index, image in enumerate(images):
        small = image.copy()
        small.thumbnail((side - 4, side - 4))
        sheet.paste(small, (left + index % across * side, top + index // across * side))
