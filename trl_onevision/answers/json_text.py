"""JSON in an answer, however it is dressed, cut off or quoted, and what is looked for in it.

Text is untrusted. Reading is linear in its length: one pass looks for JSON, the regular expression uses possessive
quantifiers, and at most `MAX_ITEMS` items of an answer are taken, from its first `MAX_VALUES` values.
"""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from trl_onevision.answers.stance import MAX_ITEMS, asserts, stated

Item = TypeVar("Item")

MAX_VALUES = 30_000  # of an answer's JSON are looked at: a thousand polygons have fewer
LABEL_KEYS = ("label", "category", "class", "name")

_LANGUAGE = re.compile(r"(?:json|svg|xml|vega-lite)\b\s*+|[\w+.-]{0,20}+[ \t]*+\n")
_FLAT_OBJECT = re.compile(r"\{[^{}]*+\}")


def read_json(text: str) -> Any | None:
    """The JSON value that an answer holds: in its last code fence, else between its first and last bracket.

    >>> read_json('Here it is: ```json\\n{"bbox_2d": [1, 2, 3, 4]}\\n```')
    {'bbox_2d': [1, 2, 3, 4]}

    Of JSON that does not parse (cut off, one object a line, single quotes, a trailing comma) the innermost complete
    objects are kept:

    >>> read_json("[{'bbox_2d': [1, 2, 3, 4]}, {'bbox_2d': [5, 6")
    [{'bbox_2d': [1, 2, 3, 4]}]

    Returns `None` where there is neither, and where the text denies what it holds.
    """
    first, last = fenced(text)
    start = min((at for at in (text.find("[", first, last), text.find("{", first, last)) if at >= 0), default=last)
    end = max(text.rfind("]", first, last), text.rfind("}", first, last)) + 1
    if start >= end:
        return None
    value = _loads(text[start:end])
    if value is not None:
        return value if asserts(text, start, end) else None
    objects = (_loads(found[0]) for found in stated(text, _FLAT_OBJECT.finditer(text, first, last)))
    return [item for item in objects if item] or None


def fenced(text: str) -> tuple[int, int]:
    """Where the inside of the last code fence starts, behind its language, and ends; the whole text without one.

    >>> text = "So: ```json\\n[1, 2]```."
    >>> text[slice(*fenced(text))]
    '[1, 2]'
    """
    fences = text.count("```")
    if not fences:
        return 0, len(text)
    end = len(text) if fences % 2 else text.rfind("```")
    start = text.rfind("```", 0, end) + 3
    language = _LANGUAGE.match(text, start, end)
    return language.end() if language else start, end


def unfenced(text: str) -> str:
    """A text without the code fence around it, where that is all of it.

    >>> unfenced("```json\\n[1]\\n```"), unfenced("So ```[1]```")
    ('[1]', 'So ```[1]```')
    """
    text = text.strip()
    whole = text.startswith("```") and text.endswith("```") and text.count("```") == 2
    return text[slice(*fenced(text))].strip() if whole else text


def _loads(text: str) -> Any | None:
    for spelling in (text, text.replace("'", '"')):  # JSON, and how Python prints it
        try:
            return json.loads(spelling)
        except (ValueError, RecursionError):
            continue
    return None


def collect(value: Any, read: Callable[[Any, str | None], list[Item]]) -> list[Item]:
    """Every item that `read` finds in a JSON value, in the order written, at most `MAX_ITEMS`.

    >>> collect({"a": [3, 1.5], "b": 2}, lambda value, label: [(value, label)] if isinstance(value, int) else [])
    [(3, 'a'), (2, 'b')]

    `read` takes a value and the label over it: that of the object that it stands in, else its key. It returns the
    items that the value itself is; where there are none, what the value holds is looked at.
    """
    found: list[Item] = []
    # A stack and not recursion: the C parser accepts nesting deeper than Python's own stack.
    pending: list[tuple[Any, str | None]] = [(value, None)]
    for _ in range(MAX_VALUES):
        if not pending or len(found) >= MAX_ITEMS:
            break
        node, label = pending.pop()
        items = read(node, label)
        if items:
            found += items
        elif isinstance(node, list):
            pending.extend((item, label) for item in reversed(node))
        elif isinstance(node, dict):
            named = first_text(node, LABEL_KEYS)
            pending.extend((item, named or key) for key, item in reversed(node.items()))
    return found[:MAX_ITEMS]


def number(value: Any) -> float | None:
    """A JSON number as a float; `None` for anything else, `true` included.

    >>> number(3), number(-0.5), number(True), number("3"), number(-(10**400))
    (3.0, -0.5, None, None, -inf)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of a float
        return float("inf") if value > 0 else float("-inf")


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` numbers out of a JSON list.

    >>> numbers([1, 2.5], 2), numbers([1, "a"], 2), numbers([1, 2, 3], 2)
    ((1.0, 2.5), None, None)
    """
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    read = [number(item) for item in value]
    return None if None in read else tuple(read)  # type: ignore[arg-type]


def held(value: dict, keys: tuple[str, ...], read: Callable[[Any], Item | None]) -> list[Item]:
    """What the first of `keys` that reads holds: one thing, or a list of things, each of which has to read.

    >>> held({"n": 3}, ("n",), number), held({"n": [3, 4]}, ("m", "n"), number), held({"n": [3, "a"]}, ("n",), number)
    ([3.0], [3.0, 4.0], [])
    """
    for key in keys:
        if key in value:
            one = read(value[key])
            if one is not None:
                return [one]
            parts = [read(part) for part in value[key]] if isinstance(value[key], list) else []
            if parts and None not in parts:
                return parts  # type: ignore[return-value]
    return []


def first_text(value: dict, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that holds a string.

    >>> first_text({"label": 3, "category": "cat"}, ("label", "category"))
    'cat'
    """
    return next((value[key] for key in keys if isinstance(value.get(key), str)), None)


def normalized(text: str | None) -> str | None:
    """A label or a typed text without case and repeated white space.

    >>> normalized("Traffic  Light ")
    'traffic light'
    """
    return None if text is None else " ".join(text.casefold().split())
