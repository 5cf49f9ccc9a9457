"""Drawings as text, SVG or Vega-Lite: which of the two it is, whether it may be drawn at all, and what it is made of.

Data formats only: nothing that a model writes runs as code. What reaches for files or the network, or is larger than a
drawing needs to be, is refused before a renderer sees it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

from trl_onevision.answers.json_text import fenced, number

Language = Literal["svg", "vega-lite"]

MOST_CHARACTERS = 50_000
MOST_PARTS = 2_000  # elements of an SVG, values of a chart
MOST_DEPTH = 40
LARGEST = 2_048  # of a side, in pixels
MOST_ELONGATED = 100
GRID = 40  # positions count to a fortieth of the drawing: as near as a person would see

_SHAPES = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "line": ("x1", "y1", "x2", "y2"),
    "polyline": ("points",),
    "polygon": ("points",),
    "path": ("d",),
    "text": ("x", "y"),
}
_CONTAINERS = ("svg", "g", "defs", "title", "desc", "tspan", "linearGradient", "radialGradient", "stop")
_NUMBER = re.compile(r"[-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d{1,3})?")
_MOVE = re.compile(rf"[a-zA-Z]+|{_NUMBER.pattern}")
_LENGTH = re.compile(rf"\s*+({_NUMBER.pattern})\s*+(?:px)?\s*+")
_HIDDEN = {"display": ("none",), "visibility": ("hidden", "collapse")}
_FAINT = 0.05  # an opacity below which nobody sees what is painted


class Refused(ValueError):
    """A text that is no drawing, or one that is not drawn: the reason."""


class Drawing(NamedTuple):
    """A drawing that may be rendered, and the multiset of its parts."""

    language: Language
    source: str
    parts: Counter[Any]


def read_drawing(text: str) -> Drawing:
    """Read an answer as a drawing: the last code fence, or the whole text.

    >>> read_drawing('<svg viewBox="0 0 10 10"><circle cx="5" cy="5" r="2" fill="red"/></svg>').language
    'svg'
    >>> read_drawing('<svg viewBox="0 0 9 9"><script>alert(1)</script></svg>')
    Traceback (most recent call last):
    trl_onevision.rewards.render_source.Refused: <script> is not drawn

    Raises `Refused`.
    """
    source = text[slice(*fenced(text))].strip()
    if len(source) > MOST_CHARACTERS:
        raise Refused(f"longer than {MOST_CHARACTERS} characters")
    if source.startswith("<"):
        return _svg(source)
    if source.startswith("{"):
        return Drawing("vega-lite", source, _vega_lite_parts(source))
    raise Refused("neither SVG nor Vega-Lite")


def similarity(gold: Counter[Any], given: Counter[Any]) -> float:
    """The F1 of two multisets of parts.

    >>> similarity(Counter("aab"), Counter("abc"))
    0.6666666666666666
    """
    both = (gold & given).total()
    return 2 * both / (gold.total() + given.total()) if both else 0.0


# SVG


def _svg(source: str) -> Drawing:
    """An SVG as it was read here: written anew, so that no renderer finds another drawing in it."""
    if "<!" in source.replace("<!--", "") or "<?xml-stylesheet" in source:
        raise Refused("a document type or a stylesheet")
    try:
        root = ElementTree.fromstring(source)
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise Refused(f"no XML ({error})") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    if root.tag != "svg":
        raise Refused(f"<{root.tag}> where <svg> is expected")
    (width, height), within = _sizes(root)
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "width": f"{width:g}", "height": f"{height:g}"}
    parts = _svg_parts(root, side=max(within))
    return Drawing("svg", ElementTree.tostring(root, "unicode"), parts)


def _sizes(root: ElementTree.Element) -> tuple[list[float], list[float]]:
    """Width and height of an SVG's image, and of its own coordinates; all are bounded."""
    given = [_LENGTH.fullmatch(root.get(side, "")) for side in ("width", "height")]
    if any(root.get(side) and not found for side, found in zip(("width", "height"), given, strict=True)):
        raise Refused("a size in other units than pixels")
    sides = [float(found[1]) for found in given if found]
    box = [float(n) for n in _NUMBER.findall(root.get("viewBox", ""))]
    if box and len(box) != 4:
        raise Refused("a viewBox that is not four numbers")
    if not box and len(sides) != 2:
        raise Refused("neither viewBox nor width and height")
    within = box[2:] or sides
    image = sides if len(sides) == 2 else within
    for width, height in (image, within):
        if not (0 < width <= LARGEST and 0 < height <= LARGEST):
            raise Refused(f"a size that is not between 0 and {LARGEST} pixels")
        if max(width, height) > MOST_ELONGATED * min(width, height):
            raise Refused(f"more than {MOST_ELONGATED} times as long as wide")
    return image, within


def _svg_parts(root: ElementTree.Element, side: float) -> Counter[Any]:
    parts: Counter[Any] = Counter()
    count = 0
    pending: list[tuple[ElementTree.Element, dict[str, str], int]] = [(root, {}, 0)]
    while pending:
        element, inherited, depth = pending.pop()
        count += 1
        if count > MOST_PARTS or depth > MOST_DEPTH:
            raise Refused(f"more than {MOST_PARTS} elements, or {MOST_DEPTH} within each other")
        style, tag = _style(element.attrib, inherited), element.tag
        if (tag not in _SHAPES and tag not in _CONTAINERS) or (tag == "svg" and depth):
            raise Refused(f"<{tag}> is not drawn")
        if tag in _SHAPES and "hidden" not in style:
            parts[_svg_part(element, style, side)] += 1
        within = style if tag in ("svg", "g") else style | {"hidden": ""}  # a shape in a gradient or in a shape
        pending.extend((child, within, depth + 1) for child in element)
    return parts


def _style(named: dict[str, str], inherited: dict[str, str]) -> dict[str, str]:
    """What is painted, where, and whether it can be seen: attributes, and the declarations of `style` before them."""
    for key, value in named.items():
        if key == "href" or "url(" in value.replace("url(#", "") or key.startswith("on"):
            raise Refused(f"{key}={value[:40]!r} reaches beyond the drawing")
    declared = (item.partition(":") for item in named.get("style", "").split(";"))
    named = named | {key.strip(): value.strip() for key, _, value in declared if value}
    style = inherited | {key: value for key, value in named.items() if key in ("fill", "stroke")}
    if "transform" in named:
        style["transform"] = " ".join([inherited.get("transform", ""), *_MOVE.findall(named["transform"])])
    faint = _NUMBER.match(named.get("opacity", "1"))
    hidden = any(named.get(key, "").strip() in values for key, values in _HIDDEN.items())
    if hidden or (faint and float(faint[0]) < _FAINT):
        style["hidden"] = ""
    return style


def _svg_part(element: ElementTree.Element, style: dict[str, str], side: float) -> tuple[Any, ...]:
    tag = element.tag
    places = [float(n) / side * GRID for key in _SHAPES[tag] for n in _NUMBER.findall(element.get(key, ""))]
    if not all(map(math.isfinite, places)):
        raise Refused(f"<{tag}> lies beyond all numbers")
    words = " ".join("".join(element.itertext()).split()) if tag == "text" else ""
    colours = _colour(style.get("fill", "black")), _colour(style.get("stroke", "none"))
    return tag, *colours, tuple(map(round, places)), words, style.get("transform", "")


def _colour(value: str) -> Any:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(value.strip())[:3]
    except ValueError:
        return value.strip().casefold()


# Vega-Lite

# Where the grammar looks beyond the drawing: a file, an address, a picture, an expression, data without end
_BEYOND = ("url", "href", "expr", "sequence", "sphere", "graticule", "datasets", "lookup", "usermeta")


def _vega_lite_parts(source: str) -> Counter[Any]:
    try:
        spec = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise Refused(f"no JSON ({error})") from error
    parts: Counter[Any] = Counter()
    for count, (path, value) in enumerate(_walk(spec), start=1):
        if count > MOST_PARTS * 4 or len(path) > MOST_DEPTH:
            raise Refused(f"more than {MOST_PARTS * 4} values, or {MOST_DEPTH} within each other")
        key = path[-1] if path else ""
        if "data" not in path[:-1] or "values" not in path:
            _check_setting(key, value)
        if key == "mark":
            parts["mark", str(value.get("type") if isinstance(value, dict) else value)] += 1
        elif len(path) > 1 and path[-2] == "encoding" and isinstance(value, dict):
            asked = tuple(str(value.get(name)) for name in ("field", "type", "aggregate", "bin", "stack"))
            parts["encoding", key, *asked] += 1
        elif len(path) > 1 and path[-2] == "values" and isinstance(value, dict):
            parts["value", *sorted((name, _rounded(item)) for name, item in value.items())] += 1
    if not any(part[0] == "mark" for part in parts):
        raise Refused("no mark")
    return parts


def _check_setting(key: str, value: Any) -> None:
    if key in _BEYOND or value == "image":
        raise Refused(f"{key}: {str(value)[:40]!r} reaches beyond the drawing")
    if key in ("width", "height", "step", "size", "strokeWidth", "fontSize", "padding"):
        stated = map(number, value if isinstance(value, list) else [value])
        if any(size is not None and not -LARGEST <= size <= LARGEST for size in stated):
            raise Refused(f"{key}: not between 0 and {LARGEST}")
    if key in ("filter", "calculate", "test") and isinstance(value, str):
        raise Refused(f"{key}: an expression")


def _walk(spec: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a JSON text with the names that lead to it; items of a list have their number."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), spec)]
    while pending:
        path, value = pending.pop()
        yield path, value
        if isinstance(value, dict):
            pending.extend(((*path, str(key)), item) for key, item in value.items())
        elif isinstance(value, list):
            pending.extend(((*path, str(place)), item) for place, item in enumerate(value))


def _rounded(value: Any) -> str:
    amount = number(value)
    return str(value) if amount is None else f"{amount:.3g}"
