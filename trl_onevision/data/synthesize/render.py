"""An image that was drawn from text: write the text, SVG or Vega-Lite, that draws it again (after RRVF)."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from trl_onevision.data.synthesize.chart import MONTHS, NAMES
from trl_onevision.data.synthesize.puzzle import NoPuzzle, Pictures, Puzzle, Task
from trl_onevision.data.synthesize.scene import COLOURS, SIDE, Thing, any_kind, placed

PARTS = (2, 5, 4, 6)
# Chance is measured, since no formula gives it: over rows 0 to 399 of seed 0, each answered with the next one's source
LEVELS = {
    "SVG of 2 shapes": 0.000,
    "SVG of 5 shapes": 0.000,
    "Vega-Lite bars of 4": 0.427,
    "Vega-Lite lines of 2 series over 6 months": 0.198,
}
SIZES = (45, 65, 91)


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """An image, and the source that it was drawn from.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> puzzle.task, json.loads(puzzle.solution)["language"]
    ('render', 'svg')
    """
    language = "svg" if level <= 2 else "vega-lite"
    source = _scene(rng, PARTS[level - 1]) if language == "svg" else _chart(rng, level)
    asked = "as SVG with basic shapes and a viewBox" if language == "svg" else "as a Vega-Lite specification in JSON"
    question = f"Write the source of a drawing that looks exactly like this image, {asked}."
    solution = json.dumps({"language": language, "source": source})
    return Puzzle(question, [draw(language, source)], solution, "render")


def _scene(rng: np.random.Generator, count: int) -> str:
    things = placed(rng, [any_kind(rng) for _ in range(count)], SIZES, "render")
    shapes = "".join(map(_shape, things))
    return f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}">{shapes}</svg>'


def _shape(thing: Thing) -> str:
    left, top, right, bottom = thing.box
    size, x, y = right - left, (left + right) / 2, (top + bottom) / 2
    colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[thing.colour])
    if thing.shape == "circle":
        return f'<circle cx="{x:g}" cy="{y:g}" r="{size / 2:g}" fill="{colour}"/>'
    if thing.shape == "square":
        return f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="{colour}"/>'
    corners: dict[str, list[tuple[float, float]]] = {
        "triangle": [(left, bottom), (right, bottom), (x, top)],
        "diamond": [(left, y), (x, top), (right, y), (x, bottom)],
    }
    points = " ".join(f"{a:g},{b:g}" for a, b in corners[thing.shape])
    return f'<polygon points="{points}" fill="{colour}"/>'


def _chart(rng: np.random.Generator, level: int) -> str:
    encoding: dict[str, Any] = {"y": {"field": "value", "type": "quantitative"}}
    if level == 3:
        names = [str(name) for name in rng.choice(NAMES, PARTS[2], replace=False)]
        values = [{"name": name, "value": int(rng.integers(1, 21))} for name in names]
        encoding["x"] = {"field": "name", "type": "nominal", "sort": None}
    else:
        series = [str(name) for name in rng.choice(NAMES, 2, replace=False)]
        values = [
            {"month": month, "name": name, "value": int(rng.integers(1, 21))} for name in series for month in MONTHS
        ]
        encoding["x"] = {"field": "month", "type": "ordinal", "sort": None}
        encoding["color"] = {"field": "name", "type": "nominal"}
    spec = {
        "mark": "bar" if level == 3 else "line",
        "width": 240,
        "height": 200,
        "data": {"values": values},
        "encoding": encoding,
    }
    return json.dumps(spec)


def draw(language: str, source: str) -> Image.Image:
    """A drawing of our own as an image, on white."""
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise NoPuzzle(f"render: needs {error.name}; pip install 'trl-onevision[render]'.") from error
    if language == "svg":
        png = vl_convert.svg_to_png(source.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    else:  # with the font that it brings along: text is left out where a machine has no sans-serif
        png = vl_convert.vegalite_to_png(source, config={"font": "Liberation Sans"})
    image = Image.open(BytesIO(png)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


RENDER = Task(make, LEVELS)
