"""Boxes, points and spans as an answer writes them: in the tags of grounding models, in JSON, or in its text.

All of it is linear in the text: possessive quantifiers, and bounds on what repeats.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from trl_onevision.answers.json_text import LABEL_KEYS, collect, first_text, held, number, numbers, read_json
from trl_onevision.answers.stance import MAX_ITEMS, stated

# Twenty digits hold every coordinate; without the bound, a million digits would go through `float`.
NUMBER = r"[-+]?(?:[0-9]{1,20}+(?:\.[0-9]{0,20}+)?|\.[0-9]{1,20}+)(?:[eE][-+]?[0-9]{1,4}+)?"
SEPARATOR = r"(?:\s*+[,;，]\s*+|\s++)"
PAIR = rf"{NUMBER}{SEPARATOR}{NUMBER}"
OPEN, CLOSE = r"[\[(（【]\s*+", r"\s*+[\])）】]"

_NUMBERS = re.compile(rf"(?<![a-z_]){NUMBER}", re.IGNORECASE)  # the 1 of "x1" is none
_TAG = re.compile(
    r"<(?:ref|phrase|\|object_ref_start\|)>(?P<label>[^<>]{0,200}+)<"  # Qwen, InternVL: the name before its boxes
    r"|<\|?(?P<tag>b?box|points?)(?:_start\|)?>(?P<inside>[\s0-9\[\](),;.eE+-]*+)<[/|](?P=tag)(?:_end\|)?>"
    r"|<(?P<element>b?box|points?)\s(?P<attributes>[^<>]*+)>"  # Molmo, Qwen: <points x1="1" y1="2" alt="ear">
    r"|(?P<bins>(?:<loc(?P<florence>_?)[0-9]{1,4}>)++)(?P<behind>[^<>\n;]{0,200}+)",  # Florence, PaliGemma
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    rf"\b(?P<axis>[xy])[0-9]{{0,4}}+\s?=\s?[\"']?(?P<number>{NUMBER})|\b(?:alt|label)\s?=\s?[\"'](?P<alt>[^\"']*+)",
    re.IGNORECASE,
)
# [x1, y1, x2, y2], (x1, y1), (x2, y2) and "(x1, y1) to (x2, y2)", x1=…, y1=…, x2=…, y2=…, or four numbers and no more
_CORNER = r"(?:to\b|(?:and\s)?(?:the\s)?(?:bottom|lower)[ -]right(?:\scorner)?(?:\s(?:at|is))?\s?[:=]?)?"
_NAMES = ("x_?(?:1|min)", "y_?(?:1|min)", "x_?(?:2|max)", "y_?(?:2|max)")
_NAMED = SEPARATOR.join(rf"\b{name}\s?[:=]\s?{NUMBER}" for name in _NAMES)
_TEXT_BOX = re.compile(
    rf"{OPEN}{PAIR}{SEPARATOR}{PAIR}{CLOSE}|{OPEN}{PAIR}{CLOSE}(?:\s*+[,;，]?\s*+{_CORNER}\s*+{OPEN}{PAIR}{CLOSE})++"
    rf"|{_NAMED}|\A\s*+{PAIR}{SEPARATOR}{PAIR}\s*+\Z",
    re.IGNORECASE,
)
_TEXT_POINT = re.compile(
    rf"{OPEN}{PAIR}{CLOSE}|\bx\s?[:=]\s?{NUMBER}{SEPARATOR}y\s?[:=]\s?{NUMBER}|\A\s*+{PAIR}\s*+\Z",
    re.IGNORECASE,
)
_SCORE_KEYS = ("score", "confidence")

Numbers = tuple[float, ...]


class Place(NamedTuple):
    """Numbers as written, in the answer's own frame, with the label and the score that stand beside them."""

    numbers: Numbers
    label: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Kind:
    """How places of one kind are written: `BOXES`, `POINTS`, `SPANS`.

    A JSON value is one where `one` reads its numbers. An object holds one, or a list of them, under one of `keys`, or
    spells one out under each of one of `sides`. In text `pattern` finds some, and `matched` reads them.
    """

    one: Callable[[Any], Numbers | None]
    keys: tuple[str, ...]
    sides: tuple[tuple[str, ...], ...]
    pattern: re.Pattern[str]
    matched: Callable[[re.Match[str]], list[Numbers]]

    def read(self, text: str) -> list[Place]:
        """The places of an answer, in the order written: from its tags, else from its JSON, else from its text.

        >>> BOXES.read('[{"bbox_2d": [10, 20, 30.5, 40], "label": "cat"}]')
        [Place(numbers=(10.0, 20.0, 30.5, 40.0), label='cat', score=None)]
        >>> BOXES.read("<ref>cat</ref><box>10 20 30 40</box>") == BOXES.read('{"cat": [[10, 20, 30, 40]]}')
        True
        >>> [box.numbers for box in BOXES.read("from (-1, 2), (3, 4) to [5 6 7 8], not [0, 0, 1, 1]")]
        [(-1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)]

        JSON is read at any depth; a place is labelled by the object that it stands in, else by its key. What the text
        denies, or offers as one or another, is no answer. At most 1000 are read. Nothing is sorted, clipped or
        dropped: a box that is inverted, empty or infinite is still one that the answer claims.
        """
        found = collect(list(_tagged(text)), self.of) or collect(read_json(text), self.of)
        if not found:
            matches = stated(text, self.pattern.finditer(text))
            found = [Place(place) for match in matches for place in self.matched(match)]
        return found[:MAX_ITEMS]

    def of(self, value: Any, label: str | None = None) -> list[Place]:
        """One JSON value as a place, or as an object of one or several, with the label over it; else nothing.

        >>> POINTS.of({"x": 1, "y": 2}), POINTS.of([3, 4], "ear")
        ([Place(numbers=(1.0, 2.0), label=None, score=None)], [Place(numbers=(3.0, 4.0), label='ear', score=None)])
        """
        if not isinstance(value, dict):
            bare = self.one(value)
            return [] if bare is None else [Place(bare, label)]
        spelled = (self.one([value.get(side) for side in sides]) for sides in self.sides)
        found = held(value, self.keys, self.one) or list(filter(None, spelled))[:1]
        score = next((one for key in _SCORE_KEYS if (one := number(value.get(key))) is not None), None)
        labels = _labels(value, len(found)) or [first_text(value, LABEL_KEYS) or label] * len(found)
        return [Place(place, name, score) for place, name in zip(found, labels, strict=True)]


def _labels(value: dict, count: int) -> list[str | None] | None:
    """A list with a label for each of an object's places."""
    for key in (*LABEL_KEYS, "labels"):
        texts = value.get(key)
        if isinstance(texts, list) and len(texts) == count and all(isinstance(text, str) for text in texts):
            return texts
    return None


def _in_turn(numbers: Sequence[str], count: int) -> list[Numbers]:
    """Numbers as written, `count` at a time; none at all where one is left over.

    >>> _in_turn(_NUMBERS.findall("(x1=1, y1=2), (x2=3, y2=4e1)"), 2), _in_turn(["1", "2", "3"], 2)
    ([(1.0, 2.0), (3.0, 40.0)], [])
    """
    starts = range(0, 0 if len(numbers) % count else len(numbers), count)
    return [tuple(map(float, numbers[start : start + count])) for start in starts]


def _corners(value: Any) -> Numbers | None:
    """Four numbers, or two pairs of numbers."""
    if isinstance(value, list) and len(value) == 2:
        first, second = numbers(value[0], 2), numbers(value[1], 2)
        return None if first is None or second is None else first + second
    return numbers(value, 4)


BOXES = Kind(
    one=_corners,
    keys=("bbox_2d", "bbox", "box_2d", "box", "bboxes", "boxes"),
    sides=(
        ("x1", "y1", "x2", "y2"),
        ("xmin", "ymin", "xmax", "ymax"),
        ("x_min", "y_min", "x_max", "y_max"),
        ("left", "top", "right", "bottom"),
    ),
    pattern=_TEXT_BOX,
    matched=lambda match: _in_turn(_NUMBERS.findall(match[0]), 4),
)

POINTS = Kind(
    one=partial(numbers, count=2),
    keys=("point_2d", "point", "points_2d", "points", "coordinate", "coordinates", "position"),
    sides=(("x", "y"),),
    pattern=_TEXT_POINT,
    matched=lambda match: _in_turn(_NUMBERS.findall(match[0]), 2),
)


def _tagged(text: str) -> Iterator[dict[str, Any]]:
    """What the tags of grounding models say, as the JSON that says the same.

    >>> list(_tagged("<ref>a cat</ref><box>(1,2),(3,4)</box>"))
    [{'label': 'a cat', 'box': [(1.0, 2.0, 3.0, 4.0)]}]
    >>> list(_tagged('<points x1="1" y1="2" x2="3" y2="4" alt="ear">ear</points> <point>5 6</point>'))
    [{'label': 'ear', 'point': [(1.0, 2.0), (3.0, 4.0)]}, {'label': None, 'point': [(5.0, 6.0)]}]
    >>> list(_tagged("cat<loc_1><loc_2><loc_3><loc_4>")) == list(_tagged("<loc0001><loc0002><loc0003><loc0004> cat"))
    True
    """
    label, end = None, 0
    for tag in stated(text, _TAG.finditer(text)) if "<" in text else ():
        if tag["label"] is not None:
            label = tag["label"].strip()
        elif tag["tag"]:
            yield _place(tag["tag"], _NUMBERS.findall(tag["inside"]), label)
        elif tag["element"]:
            found = list(_ATTRIBUTE.finditer(tag["attributes"]))
            xs, ys = ([one["number"] for one in found if (one["axis"] or "").lower() == axis] for axis in "xy")
            alt = next((one["alt"] for one in found if one["alt"]), label)
            pairs = zip(xs, ys, strict=True) if len(xs) == len(ys) else ()
            yield _place(tag["element"], list(itertools.chain(*pairs)), alt)
        else:
            # Florence writes the label before its boxes, PaliGemma behind.
            named = text[max(end, tag.start() - 200) : tag.start()] if tag["florence"] else tag["behind"]
            label = named.rpartition(">")[2].rpartition("\n")[2].strip() or label
            yield _place("box", re.findall(r"[0-9]+", tag["bins"]), label)
        end = tag.end("bins") if tag["bins"] else tag.end()


def _place(tag: str, numbers: list[str], label: str | None) -> dict[str, Any]:
    """Numbers in a tag as a JSON object. Two in a box are a point: so computer-use models write a click."""
    kind, count = ("box", 4) if "box" in tag.lower() and len(numbers) != 2 else ("point", 2)
    return {"label": label, kind: _in_turn(numbers, count)}
