"""Which of the measured rows are kept, in which order, and which random ones stand beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from trl_onevision.select.measure import Measured

Order = Literal["easy", "hard"]
Rule = Callable[[Measured], bool]


@dataclass(frozen=True)
class Preset:
    """A paper's rule: what it keeps, of how many answers, where it was published."""

    rule: Rule
    words: str
    source: str
    k: int = 8
    blind: bool = False


RAP_LAMBDA = 0.5

PRESETS: dict[str, Preset] = {
    "vl-cogito": Preset(
        lambda row: row.pass_rate <= 0.5,
        "at most half of 8 answers are right",
        "VL-Cogito (arXiv 2507.22607): samples that are solved in more than half of 8 trials are dropped",
    ),
    "gthinker": Preset(
        lambda row: row.pass_rate > 0,
        "at least one of 16 answers is right",
        "GThinker (arXiv 2506.01078): samples that are not failed in all of 16 trials are kept",
        k=16,
    ),
    "temporal-r1": Preset(
        lambda row: row.reward_std > 0,
        "the rewards of the answers differ",
        "Temporal-R1 (arXiv 2506.01908): selection by the variance of repeated answers; the least bound is this "
        "package's, since the paper's are of its own rewards",
    ),
    "rap": Preset(
        lambda row: row.pass_rate_blind is None or row.pass_rate - row.pass_rate_blind >= RAP_LAMBDA,
        f"right at least {RAP_LAMBDA} more often with the image than without",
        "RAP (arXiv 2506.04755), its estimator of causal discrepancy alone, at its lambda of 0.5; attention is not "
        "looked at, and rows without an image are kept",
        blind=True,
    ),
}


def band(text: str) -> Rule:
    """The rule of `--keep LOW:HIGH`, both included; one that is left out bounds nothing.

    >>> from trl_onevision.select.measure import Scored
    >>> half = Measured(0, "a", [Scored("4", True, 1.0, True), Scored("5", True, 0.0, False)])
    >>> band("0.1:0.9")(half), band(":0.4")(half)
    (True, False)
    >>> band("0.9:0.1")
    Traceback (most recent call last):
    ValueError: --keep '0.9:0.1': expected LOW:HIGH with 0 <= LOW <= HIGH <= 1, as in 0.1:0.9
    """
    low, colon, high = text.partition(":")
    try:
        least, most = float(low or 0), float(high or 1)
    except ValueError:
        colon, least, most = "", 0.0, 0.0
    if not colon or not 0 <= least <= most <= 1:
        raise ValueError(f"--keep {text!r}: expected LOW:HIGH with 0 <= LOW <= HIGH <= 1, as in 0.1:0.9")
    return lambda row: least <= row.pass_rate <= most


def is_kept(row: Measured, rules: Sequence[Rule]) -> bool:
    """Whether a row was measured and all rules keep it."""
    return not row.reason and all(rule(row) for rule in rules)


def kept(rows: Sequence[Measured], rules: Sequence[Rule], order: Order | None = None) -> list[Measured]:
    """The rows that are kept: as in the data, or by their pass rate, where equal ones stay in order."""
    chosen = [row for row in rows if is_kept(row, rules)]
    if order is not None:
        chosen.sort(key=lambda row: row.pass_rate, reverse=order == "easy")
    return chosen


def control(rows: Sequence[Measured], size: int, seed: int) -> list[Measured]:
    """As many of the measured rows at random, in the data's order."""
    drawn = random.Random(seed).sample([row for row in rows if not row.reason], size)
    return sorted(drawn, key=lambda row: row.index)
