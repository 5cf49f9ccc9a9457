"""Whether two mathematical answers are equal that `answers.compare` cannot decide: math-verify in workers.

Algebra on text that a model wrote may take forever, so it runs in other processes: see `verify_worker.py`. The kernel
stops those after `seconds` of processor time a pair, and this process after `budget` seconds of wall clock a call,
from its turn on: calls of several threads go one by one.
Works from any thread, inside asyncio and in forked processes (each starts workers of its own). POSIX only.
"""

import os
import re
import time
from collections.abc import Sequence

from trl_onevision.answers.markup import plain
from trl_onevision.rewards.child import Pool

MAX_WORKERS = 4
LONGEST_ANSWER = 1000  # characters; a longer one is compared as text only
MOST_REMEMBERED = 20_000

Pair = tuple[str, str]


def equal(pairs: Sequence[Pair], *, seconds: float = 1.0, budget: float = 30.0) -> list[bool | None]:
    r"""Tell for each (gold, answer) whether they are the same mathematical object; `None` where time ran out.

    >>> equal([("(x+1)^2", "x^2+2x+1"), ("[0, 1)", "[0, 1]")])
    [True, False]

    A verdict is remembered: the other rewards of a batch send the same pairs. The simple ones go first, so that a few
    expensive answers cannot use up the budget of the others. A long answer is no short gold.
    """
    verdicts: dict[Pair, bool | None] = {}
    for gold, answer in pairs:
        if not (gold.strip() and answer.strip()) or len(answer) > max(LONGEST_ANSWER, 2 * len(gold)):
            verdicts[gold, answer] = False
        elif (gold, answer, seconds) in _remembered:
            verdicts[gold, answer] = _remembered[gold, answer, seconds]
    undecided = sorted((pair for pair in dict.fromkeys(pairs) if pair not in verdicts), key=_expense)
    if undecided:
        deadline = time.monotonic() + budget
        found = _pool.check([(_latex(gold), _latex(answer)) for gold, answer in undecided], seconds, budget)
        verdicts |= zip(undecided, found, strict=True)
        if len(_remembered) > MOST_REMEMBERED:
            _remembered.clear()
        asked = time.monotonic() < deadline  # else a pair without a verdict may not have been tried
        _remembered.update(
            {(*pair, seconds): verdicts[pair] for pair in undecided if asked or verdicts[pair] is not None}
        )
    return [verdicts[pair] for pair in pairs]


_remembered: dict[tuple[str, str, float], bool | None] = {}


def _expense(pair: Pair) -> int:
    """Guess what a pair costs: long text, towers of powers and factorials come last."""
    return len(pair[1]) + 20 * (pair[1].count("^") + pair[1].count("!"))


_NAMES = "π=pi ∞=infty ≤=le ≥=ge ≠=ne ∪=cup ∩=cap ×=times ·=cdot ÷=div ±=pm θ=theta ∈=in ∅=emptyset"
_TO_LATEX = str.maketrans({entry[0]: rf"\{entry[2:]} " for entry in _NAMES.split()} | {"°": r"^\circ ", "$": ""})
_ROOT = re.compile(r"√\s{0,2}(?:\{([^{}]{0,100})\}|\(([^()]{0,100})\)|(\d{1,20}|[a-zA-Z]))")
# Without its backslash "tan" is the product of three variables, and "nat" the same.
_PLAIN_NAME = re.compile(
    r"(?<![\\a-zA-Z])(pi|arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|ln|log|exp)(?![a-zA-Z])"
)


def _latex(text: str) -> str:
    """Write what people type (√2, pi, 90°, sin x) as the LaTeX that math-verify reads; `$` is the caller's."""
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2] or root[3]}}}", plain(text))
    return _PLAIN_NAME.sub(lambda name: rf"\{name[1]} ", text.translate(_TO_LATEX)).strip().rstrip(".")


def _most_workers() -> int:
    """Workers of this process: the machine's share, since every rank of it has a pool of its own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return max(1, min(MAX_WORKERS, (os.cpu_count() or 1) // max(ranks, 1)))


class _Checkers(Pool):
    def __init__(self) -> None:
        super().__init__("verify_worker.py", needs="math-verify", most=_most_workers, at_once=8)

    def check(self, pairs: list[Pair], seconds: float, budget: float) -> list[bool | None]:
        answers = self.ask([{"gold": gold, "answer": answer, "seconds": seconds} for gold, answer in pairs], budget)
        return [None if answer in (None, b"T") else answer == b"1" for answer in answers]


_pool = _Checkers()
