"""Coordinates as text writes them: numbers, and the tags of grounding models.

All of it is linear in the text: possessive quantifiers, and bounds on what repeats.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trl_onevision.answers.stance import MAX_ITEMS, stated
from trl_onevision.rewards.json_text import Item, collect, read_json

# Twenty digits hold every coordinate; without the bound, a million digits would go through `float`.
NUMBER = r"[-+]?(?:[0-9]{1,20}+(?:\.[0-9]{0,20}+)?|\.[0-9]{1,20}+)(?:[eE][-+]?[0-9]{1,4}+)?"
SEPARATOR = r"(?:\s*+[,;，；]\s*+|\s++)"
PAIR = rf"{NUMBER}{SEPARATOR}{NUMBER}"
OPEN, CLOSE = r"[\[(（【]\s*+", r"\s*+[\])）】]"

NUMBERS = re.compile(rf"(?<![a-z_]){NUMBER}", re.IGNORECASE)  # the 1 of "x1" is none
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


def read_items(
    text: str,
    read: Callable[[Any, str | None], list[Item]],
    pattern: re.Pattern[str],
    read_match: Callable[[re.Match[str]], list[Item]],
) -> list[Item]:
    """Every item that an answer states: in its tags, else in its JSON, else where its text matches a pattern.

    `read` takes a JSON value and the label over it, as `collect` does.
    """
    found = collect(list(_tagged(text)), read) or collect(read_json(text), read)
    if not found:
        found = [item for match in stated(text, pattern.finditer(text)) for item in read_match(match)][:MAX_ITEMS]
    return found


def in_turn(numbers: Sequence[str], count: int) -> list[list[float]]:
    """Numbers as written, `count` at a time; none at all where one is left over.

    >>> in_turn(NUMBERS.findall("(x1=1, y1=2), (x2=3, y2=4e1)"), 2), in_turn(["1", "2", "3"], 2)
    ([[1.0, 2.0], [3.0, 40.0]], [])
    """
    starts = range(0, 0 if len(numbers) % count else len(numbers), count)
    return [[float(number) for number in numbers[start : start + count]] for start in starts]


def _tagged(text: str) -> Iterator[dict[str, Any]]:
    """What the tags of grounding models say, as the JSON that says the same.

    >>> list(_tagged("<ref>a cat</ref><box>(1,2),(3,4)</box>"))
    [{'label': 'a cat', 'box': [[1.0, 2.0, 3.0, 4.0]]}]
    >>> list(_tagged('<points x1="1" y1="2" x2="3" y2="4" alt="ear">ear</points> <point>5 6</point>'))
    [{'label': 'ear', 'point': [[1.0, 2.0], [3.0, 4.0]]}, {'label': None, 'point': [[5.0, 6.0]]}]
    >>> list(_tagged("cat<loc_1><loc_2><loc_3><loc_4>")) == list(_tagged("<loc0001><loc0002><loc0003><loc0004> cat"))
    True
    """
    label, end = None, 0
    for tag in stated(text, _TAG.finditer(text)) if "<" in text else ():
        if tag["label"] is not None:
            label = tag["label"].strip()
        elif tag["tag"]:
            yield _place(tag["tag"], NUMBERS.findall(tag["inside"]), label)
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
    return {"label": label, kind: in_turn(numbers, count)}
