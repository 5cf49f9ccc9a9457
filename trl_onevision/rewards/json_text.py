"""JSON in an answer, however it is dressed, cut off or quoted, and what is looked for in it.

Text is untrusted. Reading is linear in its length: one pass looks for JSON, the regular expression uses possessive
quantifiers, and at most `MAX_ITEMS` items of an answer are taken. A longer list scores as if it held that many, which
already divides its reward by as much.
"""

import itertools
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

Item = TypeVar("Item")

MAX_ITEMS = 1000
LABEL_KEYS = ("label", "category", "class", "name")

_FLAT_OBJECT = re.compile(r"\{[^{}]*+\}")


def read_json(text: str) -> Any | None:
    """The JSON value that an answer holds: in its last code fence, else between its first and last bracket.

    >>> read_json('Here it is: ```json\\n{"bbox_2d": [1, 2, 3, 4]}\\n```')
    {'bbox_2d': [1, 2, 3, 4]}

    Of JSON that does not parse (cut off, one object a line, single quotes, a trailing comma) the innermost complete
    objects are kept:

    >>> read_json("[{'bbox_2d': [1, 2, 3, 4]}, {'bbox_2d': [5, 6")
    [{'bbox_2d': [1, 2, 3, 4]}]

    Returns `None` where there is neither.
    """
    text = last_fence(text)
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=len(text))
    end = max(text.rfind("]"), text.rfind("}")) + 1
    if start >= end:
        return None
    value = _loads(text[start:end])
    if value is not None:
        return value
    complete = itertools.islice(_FLAT_OBJECT.finditer(text), MAX_ITEMS)
    objects = (_loads(found[0]) or _loads(found[0].replace("'", '"')) for found in complete)
    return [item for item in objects if item] or None


def last_fence(text: str) -> str:
    parts = text.split("```")
    if len(parts) == 1:
        return text
    closed = len(parts) % 2 == 1
    return parts[-2] if closed else parts[-1]


def _loads(text: str) -> Any | None:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def collect(value: Any, read_item: Callable[[Any], Item | None]) -> list[Item]:
    """Every item that `read_item` recognises in a JSON value, in the order written, at most `MAX_ITEMS`.

    >>> collect({"a": [3, 1.5], "b": 2}, lambda value: value if isinstance(value, int) else None)
    [3, 2]
    """
    found: list[Item] = []
    # A stack and not recursion: the C parser accepts nesting deeper than Python's own stack.
    pending = [value]
    while pending and len(found) < MAX_ITEMS:
        node = pending.pop()
        item = read_item(node)
        if item is not None:
            found.append(item)
        elif isinstance(node, list):
            pending.extend(reversed(node))
        elif isinstance(node, dict):
            pending.extend(reversed(node.values()))
    return found


def number(value: Any) -> float | None:
    """A JSON number as a float; `None` for anything else, `true` included.

    >>> number(3), number(-0.5), number(True), number("3")
    (3.0, -0.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of a float
        return float("inf")


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` numbers out of a JSON list.

    >>> numbers([1, 2.5], 2), numbers([1, "a"], 2), numbers([1, 2, 3], 2)
    ((1.0, 2.5), None, None)
    """
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    read = [number(item) for item in value]
    return None if None in read else tuple(read)  # type: ignore[arg-type]


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
