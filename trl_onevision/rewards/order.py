"""Answers that put things in order: a permutation, or nothing."""

import json
import re
from dataclasses import dataclass
from typing import Any

from trl_onevision.answers.extract import answer_block
from trl_onevision.answers.json_text import unfenced
from trl_onevision.rewards.rows import NamedReward, Unscorable, score_rows

MOST = 1000
_BETWEEN = r"(?:\s*+(?:[,;、，；>]|->|→)\s*+|\s++)"
_ORDER = re.compile(rf"[\[({{<]?\s*+(\d{{1,4}}+(?:{_BETWEEN}\d{{1,4}}+)*+)\s*+[\])}}>]?\s*+[.。]?")


def read_order(text: str) -> list[int] | None:
    """Read a whole answer as an order of 1 to n; `None` where it is anything else, a number twice or missing included.

    >>> read_order("[2, 3, 1]"), read_order("2 → 1"), read_order("1 2 3 3"), read_order("[2, 1] or [1, 2]")
    ([2, 3, 1], [2, 1], None, None)
    """
    found = _ORDER.fullmatch(unfenced(text))
    if found is None:
        return None
    numbers = [int(number) for number in re.findall(r"\d+", found[1])]
    return numbers if len(numbers) <= MOST and sorted(numbers) == list(range(1, len(numbers) + 1)) else None


@dataclass(eq=False, kw_only=True)
class OrderReward(NamedReward):
    """Pay an order of things: the share of places that are right, or with `partial=False` 1 where all are.

    >>> reward = OrderReward()
    >>> reward(["<answer>[2, 1, 3, 4]</answer>", "<answer>1 2 3 3</answer>"], solution=["[1, 2, 3, 4]"] * 2,
    ...     task=["order"] * 2)
    [0.5, 0.0]

    The score is in [0, 1]. An answer that is no permutation of 1 to n earns 0, whatever of it is right: Jigsaw-R1
    (arXiv 2505.23590), whose measure this is, pays 0.75 for "1 2 3 3". An order at random earns 1/n, and 1/n! without
    `partial`. `opened` is as in `IoUReward`. Scores rows whose `task` is `order`, and no row without a task: a list of
    numbers may be anything. A gold that is no permutation gets `None` and one warning with the row's id.
    """

    partial: bool = True
    opened: bool = False
    name: str = "order_reward"
    columns = ("task", "id")

    def __call__(self, completions: list[Any], solution: list[Any], **columns: Any) -> list[float | None]:
        return score_rows(self.__name__, self._score, completion=completions, solution=solution, **columns)

    def _score(self, row: dict[str, Any]) -> float | None:
        if row.get("task") != "order":
            return None
        solution = row["solution"]
        gold = read_order(solution if isinstance(solution, str) else json.dumps(solution, default=str))
        if gold is None:
            raise Unscorable(f"the gold is not an order of 1 to n, such as '[2, 3, 1]': {str(solution)[:80]!r}")
        answer = read_order(answer_block(row["completion"], opened=self.opened))
        if answer is None or len(answer) != len(gold):
            return 0.0
        right = sum(given == wanted for given, wanted in zip(answer, gold, strict=True))
        return right / len(gold) if self.partial else float(right == len(gold))


order_reward = OrderReward()
