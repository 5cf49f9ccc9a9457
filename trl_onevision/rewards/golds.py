"""Gold answers: the accepted answers of a `solution`, and its task where the row names none."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from trl_onevision.rewards.choice import LETTERS
from trl_onevision.rewards.dates import read_dates, read_time
from trl_onevision.rewards.literal import accepted, is_yes_or_no, json_list
from trl_onevision.rewards.number import plain_number, quantity
from trl_onevision.rewards.text import boxed, tagged
from trl_onevision.rewards.verify import is_prose

_LONE_LETTERS = re.compile(rf"[(\[]?[{LETTERS}][)\].]?(?:\s?,\s?[{LETTERS}])*")
_MATHEMATICS = re.compile(r"\d|\\[a-zA-Z]|[=^<>+√π∞]|^[a-zA-Z]$|(?<![a-zA-Z])[a-z]\s?[-*/]\s?[a-z](?![a-zA-Z])")
_ABBREVIATIONS = ("n/a", "y/n", "w/o", "b/w")


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
    values = json_list(gold) if gold else solution
    if not isinstance(values, list | tuple) or not values:
        return [gold] if gold else []
    are_lists = all(isinstance(value, list | tuple) for value in values)
    return [json.dumps(one, ensure_ascii=False, default=str) for one in (values if are_lists else [values])]


def _unwrapped(solution: Any) -> str:
    if isinstance(solution, bool) or not isinstance(solution, str | int | float):
        return ""
    if isinstance(solution, float) and not math.isfinite(solution):  # a table's missing value
        return ""
    gold = str(solution)
    block = tagged(gold)
    inner = boxed(gold if block is None else block)
    return (inner if inner is not None else block if block is not None else gold).strip()


def infer_task(gold: str, choices: Sequence[str] | None = None) -> str:
    r"""Return the task of a gold that comes without one.

    >>> infer_task("B"), infer_task("red", choices=["red", "blue"]), infer_task("42"), infer_task(r"\frac12")
    ('choice', 'choice', 'math', 'math')
    >>> infer_task("5 cm"), infer_task("yes"), infer_task("3:05 pm"), infer_task("Route 66"), infer_task('[{"x": 1}]')
    ('number', 'text', 'text', 'text', 'boxes')
    >>> infer_task("a/b"), infer_task("n/a"), infer_task("and/or"), infer_task("A-B-C")
    ('math', 'text', 'text', 'text')

    The first that fits: `choice` where there are `choices` or the gold is letters of A to J; `boxes` where it is JSON
    objects; `text` where it is a yes/no, a date or a time of day; `number` where it has a unit; `math` where it has a
    digit, a LaTeX command or an operator and no words; else `text`. A hyphen, a slash and an asterisk are operators
    between small letters: "A-B-C" is a way, which algebra may walk in any order.
    """
    if choices or _LONE_LETTERS.fullmatch(gold):
        return "choice"
    if gold.startswith(("[{", '{"')):
        return "boxes"
    if is_yes_or_no(gold) or gold in _ABBREVIATIONS or read_dates(gold) or read_time(gold):
        return "text"
    if quantity(gold) and not plain_number(gold):
        return "number"
    return "math" if _MATHEMATICS.search(gold) and not is_prose(gold) else "text"
