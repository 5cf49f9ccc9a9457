"""Length rewards that look at a group or at a row's budget.

TRL has those that look at one completion alone, in `trl.rewards`: `get_cosine_scaled_reward`,
`get_repetition_penalty_reward` and `get_soft_overlong_punishment`. A length is a number of tokens (`completion_ids`).

A group is the completions of one row: the same `source`, `id`, prompt and gold. Where a batch is split so that a
process sees a part of a group, the statistics are that part's.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl_onevision.answers.json_text import number
from trl_onevision.rewards.accuracy import AccuracyReward
from trl_onevision.rewards.rows import NamedReward, Reward, Unscorable, score_rows


@dataclass(eq=False, kw_only=True)
class _GroupReward(NamedReward):
    """What the rewards that look at a group share: right completions by `accuracy`, and `pay` for each group."""

    accuracy: Reward = field(default_factory=AccuracyReward)

    def __call__(
        self,
        completions: Sequence[Any],
        solution: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_extra: Any = None,  # the table's columns are for `accuracy` to fill where it is a reward itself
        **kwargs: Any,
    ) -> list[float | None]:
        correct = self.accuracy(completions=completions, solution=solution, **kwargs)
        rewards: list[float | None] = [None] * len(completions)
        for group in groups(solution, **kwargs):
            paid = self.pay([(correct[index] == 1, len(completion_ids[index])) for index in group])
            for index, reward in zip(group, paid, strict=True):
                rewards[index] = None if correct[index] is None else reward
        return rewards

    def pay(self, group: list[tuple[bool, int]]) -> list[float]:
        """What each completion of a group earns, given whether it is right and its length."""
        raise NotImplementedError


@dataclass(eq=False, kw_only=True)
class ConciseReward(_GroupReward):
    """Pay a bonus for the shortest right completion of a group (Observe-R1, arXiv 2505.12432), 0 for the others.

    >>> reward = ConciseReward(bonus=0.2, floor=2)
    >>> completions = ["<answer>4</answer>", "<answer>4</answer>", "<answer>5</answer>"]
    >>> reward(completions, solution=["4"] * 3, completion_ids=[[0] * 9, [0] * 5, [0] * 3], prompts=["2 + 2"] * 3)
    [0.0, 0.2, 0.0]

    Right is what `accuracy` pays in full. The shortest earns nothing if it has no more than `floor` tokens, so that
    not thinking at all is not what is learnt. Equally short ones all earn it.

    Returns 0 or `bonus`; `None` where `accuracy` gives `None`.
    """

    bonus: float = 0.2
    floor: int = 100
    name: str = "concise_reward"

    def pay(self, group: list[tuple[bool, int]]) -> list[float]:
        shortest = min((length for right, length in group if right), default=0)
        return [self.bonus * (right and length == shortest > self.floor) for right, length in group]


@dataclass(eq=False, kw_only=True)
class DynamicLengthReward(_GroupReward):
    """Pay for a length near the mean length of the group's right completions (DyLR of VL-Cogito, arXiv 2507.22607).

    >>> reward = DynamicLengthReward(max_length=100)
    >>> completions = ["<answer>4</answer>", "<answer>5</answer>", "<answer>5</answer>"]
    >>> paid = reward(completions, ["4"] * 3, completion_ids=[[0] * 10, [0] * 5, [0] * 20], prompts=["2 + 2"] * 3)
    >>> [round(value, 6) for value in paid]
    [1.0, 0.5, 0.0]

    `low + (high - low) / 2 * (1 - cos(π L / L_target))` for a length L up to twice the target, `low` beyond. The
    target is the mean length of the right completions, `max_length` where none is right. `wrong_only=True` leaves
    right completions at `high`, as the released code does with `low=-0.5, high=0.0`.

    Returns `low` to `high`; `None` where `accuracy` gives `None`.
    """

    max_length: int = 2048
    low: float = 0.0
    high: float = 1.0
    wrong_only: bool = False
    name: str = "dynamic_length_reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length <= 0 or self.low > self.high:
            raise ValueError(f"expected max_length > 0 and low <= high, got {self}")

    def pay(self, group: list[tuple[bool, int]]) -> list[float]:
        right = [length for is_right, length in group if is_right]
        target = sum(right) / len(right) if sum(right) else float(self.max_length)
        return [
            self.high if self.wrong_only and is_right else self._near(length / target) for is_right, length in group
        ]

    def _near(self, ratio: float) -> float:
        return self.low + (self.high - self.low) / 2 * (1 - math.cos(math.pi * min(ratio, 2.0)))


@dataclass(eq=False, kw_only=True)
class BudgetReward(NamedReward):
    """Pay for staying within a token budget that depends on how hard the row is (PixelThink, arXiv 2505.23727).

    >>> reward = BudgetReward()
    >>> reward(["…"] * 3, completion_ids=[[0] * 90, [0] * 346, [0] * 9000], difficulty=[2, 2, 4])
    [1.0, 0.5, 1.0]
    >>> reward(["…"], completion_ids=[[0] * 306], difficulty=[7], uncertainty=[2])
    [1.0]

    `clip(1 - (L - budget) / decay, 0, 1)`. The budget of an easy row (`difficulty` below `medium`) is `easy` tokens,
    of a hard one (at least `hard_from`) `hard + per_uncertainty * uncertainty`; rows between have none. The paper
    multiplies its accuracy by this: `compose.Product`.

    Returns 0 to 1; `None` where the row has no `difficulty`. A missing `uncertainty` is 0.
    """

    easy: float = 96
    hard: float = 256
    per_uncertainty: float = 25
    medium: float = 3.5
    hard_from: float = 5
    decay: float = 500
    name: str = "budget_reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay <= 0 or self.medium > self.hard_from:
            raise ValueError(f"expected decay > 0 and medium <= hard_from, got {self}")

    def __call__(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        difficulty: Sequence[float | None],
        uncertainty: Sequence[float | None] | None = None,
        id: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        columns = {"ids": completion_ids, "difficulty": difficulty, "uncertainty": uncertainty, "id": id}
        return score_rows(self.__name__, self._score, **columns)

    def _score(self, row: dict[str, Any]) -> float | None:
        stated = row["difficulty"], row.get("uncertainty") or 0
        if stated[0] is None:
            return None
        difficulty, uncertainty = map(number, stated)
        if difficulty is None or uncertainty is None or not math.isfinite(difficulty + uncertainty):
            raise Unscorable(f"difficulty and uncertainty are {stated}: expected two numbers")
        length = len(row["ids"])
        if self.medium <= difficulty < self.hard_from:
            return 1.0
        budget = self.easy if difficulty < self.medium else self.hard + self.per_uncertainty * uncertainty
        return min(1.0, max(0.0, 1 - (length - budget) / self.decay))


def groups(
    solution: Sequence[Any],
    prompts: Sequence[Any] | None = None,
    id: Sequence[Any] | None = None,
    source: Sequence[Any] | None = None,
    **kwargs: Any,
) -> list[list[int]]:
    """Return the indices of the completions of each row.

    >>> groups(["4", "9", "4"], prompts=["2 + 2", "3 x 3", "2 + 2"])
    [[0, 2], [1]]
    """
    columns = [[None] * len(solution) if column is None else column for column in (source, id, prompts, solution)]
    found: defaultdict[str, list[int]] = defaultdict(list)
    for index, (origin, row_id, prompt, gold) in enumerate(zip(*columns, strict=True)):
        key = (origin, str(row_id), prompt, gold)  # an id may be of any type: a NumPy integer, a UUID
        # An image in a message is an object of its own in every copy of a row: its type is all that can be compared.
        found[json.dumps(key, default=lambda thing: type(thing).__name__, skipkeys=True)].append(index)
    return list(found.values())


concise_reward = ConciseReward()
dynamic_length_reward = DynamicLengthReward()
budget_reward = BudgetReward()
