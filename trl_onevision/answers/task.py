"""Of which kind a gold answer is: the only guesser, and the accepted answers of a `solution`."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from trl_onevision.answers import parse
from trl_onevision.answers.choice import LETTERS, gold_choices
from trl_onevision.answers.expression import symbols
from trl_onevision.answers.extract import boxed, tagged
from trl_onevision.answers.markup import plain
from trl_onevision.answers.parse import Algebra, Quantity
from trl_onevision.answers.words import accepted, formula, is_yes_or_no, listed, read_dates, read_time

_LONE_LETTERS = re.compile(rf"[(\[]?[{LETTERS}][)\].]?(?:\s?[,，]\s?[{LETTERS}])*")
_MATHEMATICS = re.compile(r"\d|\\[a-zA-Z]|[=^<>+√π∞αβθ]|^[a-zA-Z]!?$|(?<![a-zA-Z])[a-z]\s?[-*/]\s?[a-z](?![a-zA-Z])")
# A value, and no sentence about one, such as "Route 66"
_BARE = re.compile(r"[-+(\[{|\\∠△√π\d.$€£¥₹°½αβθ]|[A-Za-zα-ω]{1,2}(?![A-Za-z])|(?:sin|cos|tan|ln|log|sqrt|pi)")
_ABBREVIATIONS = ("n/a", "y/n", "w/o", "b/w")
_ASKS_FOR_LETTER = re.compile(
    r"option.{0,3}s? letter|letter of the|choices|options\s*:|correct option|选项", re.IGNORECASE
)


def read_golds(solution: Any) -> list[str]:
    r"""Return the accepted answers of a gold, unwrapped; an empty list where it holds none.

    >>> read_golds("<answer> 5 </answer>"), read_golds(["NYC", "New York"]), read_golds(42), read_golds(None)
    (['5'], ['NYC', 'New York'], ['42'], [])
    """
    if isinstance(solution, list | tuple):
        return [gold for item in solution for gold in read_golds(item)]
    gold = _unwrapped(solution)
    return accepted(gold) or ([gold] if gold else [])


def read_list_golds(solution: Any) -> list[str]:
    r"""Return the accepted answers of a gold that is a list of items; several of them are a list of lists.

    >>> read_list_golds(["red", "green"]), read_list_golds("red, green"), read_list_golds('[["red"], ["rouge"]]')
    (['["red", "green"]'], ['red, green'], ['["red"]', '["rouge"]'])
    """
    gold = "" if isinstance(solution, list | tuple) else _unwrapped(solution)
    values = listed(gold) if gold else solution
    if not isinstance(values, list | tuple) or not values:
        return [gold] if gold else []
    are_lists = all(isinstance(value, list | tuple) for value in values)
    return [json.dumps(one, ensure_ascii=False, default=str) for one in (values if are_lists else [values])]


def _unwrapped(solution: Any) -> str:
    if isinstance(solution, bool) or not isinstance(solution, str | int | float) or solution in (math.inf, -math.inf):
        return ""
    if solution != solution:  # a table's missing value
        return ""
    gold = str(solution)
    for inside in (tagged, boxed):
        inner = inside(gold)
        gold = gold if inner is None else inner
    return gold.strip()


def task_of(gold: str, question: str | None = None, choices: Sequence[Any] | None = None) -> str:
    r"""Return the task of a gold that comes without one.

    >>> task_of("B"), task_of("red", choices=["red", "blue"]), task_of("42"), task_of(r"\frac12"), task_of("2 km")
    ('choice', 'choice', 'number', 'math', 'number')
    >>> task_of("yes"), task_of("3:05 pm"), task_of("Route 66"), task_of('[{"x": 1}]'), task_of("[1, 2, 30, 40]")
    ('text', 'text', 'text', 'boxes', 'boxes')
    >>> task_of("a/b"), task_of("and/or"), task_of("A-B-C"), task_of("C", "Which point is on the line?")
    ('math', 'text', 'text', 'text')

    The first that fits: `choice` where the gold is one of the `choices`, or is letters of A to J and the
    question, where it is known, asks for a letter; `boxes` where it is JSON objects or four numbers in brackets;
    `text` where it is a yes/no, a date, a time of day or a chemical formula; `number` where it is one number,
    with a unit or without; `math` where it is other mathematics; else `text`. A hyphen, a slash and an asterisk are
    operators between small letters: "A-B-C" is a way, which algebra may walk in any order.
    """
    if choices and gold_choices(gold, choices):
        return "choice"
    if choices is None and _LONE_LETTERS.fullmatch(gold.strip()):
        return "choice" if question is None or _ASKS_FOR_LETTER.search(question) else "text"
    if is_boxes(gold):
        return "boxes"
    bare = plain(gold)
    if formula(gold) or is_yes_or_no(bare) or bare.lower() in _ABBREVIATIONS or read_dates(bare) or read_time(bare):
        return "text"
    value = parse.read(gold)
    if isinstance(value, Algebra):
        return "math"
    if value is None or not _BARE.match(bare):
        return "text"
    if isinstance(value, Quantity) and not value.name:
        is_sum = value.units and value.tree[0] == "+" and not symbols(value.tree)  # 2 h 30 min
        if value.is_numeral or is_sum:
            return "number"
    return "math" if _MATHEMATICS.search(bare) else "text"


def is_boxes(gold: str) -> bool:
    """Whether a gold is places in JSON, or the four numbers of a box: never a list of four accepted numbers.

    >>> is_boxes("[211.2, 30, 50, 60]"), is_boxes('{"bbox_2d": [1, 2, 3, 4]}'), is_boxes("[1, 2]")
    (True, True, False)
    """
    gold = gold.strip()
    if gold.startswith(("[{", '{"')):
        return True
    values = listed(gold)
    if not values:
        return False
    rows = values if all(isinstance(row, list) for row in values) else [values]
    return all(len(row) == 4 and all(isinstance(one, int | float) for one in row) for row in rows)
