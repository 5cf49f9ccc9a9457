"""Rewards made of rewards: what a weighted sum of `reward_weights` cannot say.

Every part is a reward as TRL takes them, this package's, TRL's or your own. It is called with all that the whole was
called with, but for `log_extra`: TRL extends a column of its table at each call, and a reward that is also a part of
another would give it more values than there are completions. Parts that are coroutines (the judges) cannot be
composed: TRL awaits those itself.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

from trl_onevision.rewards.accuracy import accuracy_reward
from trl_onevision.rewards.format import format_reward
from trl_onevision.rewards.rows import Reward


class _Composed:
    """Rewards called with all that the whole is called with, and each row's values made into one by `combine`."""

    def __init__(self, rewards: Sequence[Reward], name: str) -> None:
        for reward in rewards:
            if not callable(reward):
                raise TypeError(f"{reward!r} is no reward: expected a callable")
            if inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__):
                raise TypeError(f"{_name(reward)} is a coroutine: TRL awaits those by itself, they cannot be composed")
        if not rewards:
            raise TypeError("expected at least one reward")
        self.rewards = tuple(rewards)
        self.__name__ = name

    def __call__(self, completions: Sequence[Any], log_extra: Any = None, **columns: Any) -> list[float | None]:
        rows = zip(*(reward(completions=completions, **columns) for reward in self.rewards), strict=True)
        return [self.combine(*row) for row in rows]

    def combine(self, *paid: float | None) -> float | None:
        raise NotImplementedError


class Gate(_Composed):
    """Pay a reward only where a condition holds, `otherwise` where it does not.

    >>> from trl_onevision.rewards import accuracy_reward, format_reward
    >>> gated = Gate(format_reward, accuracy_reward)
    >>> gated(completions=["<think>x</think><answer>4</answer>", "<answer>4</answer>"], solution=["4", "4"])
    [1.0, 0.0]
    >>> gated.__name__
    'accuracy_reward_if_format_reward'

    The condition holds where its reward is at least `threshold`. InfiGUI-R1 pays accuracy so, only where the format is
    right.

    Returns what the reward returns or `otherwise`; `None` where either is `None`.
    """

    def __init__(
        self,
        condition: Reward,
        reward: Reward,
        *,
        threshold: float = 1,
        otherwise: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__((condition, reward), name or f"{_name(reward)}_if_{_name(condition)}")
        self.threshold, self.otherwise = threshold, otherwise

    def combine(self, *paid: float | None) -> float | None:
        held, reward = paid
        if held is None or reward is None:
            return None
        return reward if held >= self.threshold else self.otherwise


class Product(_Composed):
    """Pay the product of rewards: each part is a condition of all the others.

    >>> from trl_onevision.rewards import accuracy_reward, format_reward
    >>> hard = Product(format_reward, accuracy_reward)
    >>> hard(completions=["<think>x</think><answer>4</answer>", "<answer>4</answer>"], solution=["4", "4"])
    [1.0, 0.0]

    Vision-R1's hard formatting result reward (arXiv 2503.06749) is this product.

    Returns the product, with a minus where any part has one: two penalties are no reward. `None` where any is `None`.
    """

    def __init__(self, *rewards: Reward, name: str | None = None) -> None:
        super().__init__(rewards, name or "_times_".join(map(_name, rewards)))

    def combine(self, *paid: float | None) -> float | None:
        factors = [part for part in paid if part is not None]
        product = math.prod(factors)
        return None if len(factors) < len(paid) else -abs(product) if min(factors) < 0 else product


class Clip(_Composed):
    """Keep a reward between two bounds.

    >>> from trl_onevision.rewards import step_accuracy_reward
    >>> clipped = Clip(step_accuracy_reward, high=1.0)
    >>> clipped(completions=["r = 3. Answer: 9"], solution=["9"], key_steps=[["r = 3"]])
    [1.0]

    Returns `low` to `high`; `None` where the reward is `None`.
    """

    def __init__(self, reward: Reward, *, low: float = 0.0, high: float = 1.0, name: str | None = None) -> None:
        if low > high:
            raise ValueError(f"expected low <= high, got {low=}, {high=}")
        super().__init__((reward,), name or f"clipped_{_name(reward)}")
        self.low, self.high = low, high

    def combine(self, *paid: float | None) -> float | None:
        return None if paid[0] is None else min(self.high, max(self.low, paid[0]))


class First(_Composed):
    """Pay each row by the first of several rewards that can score it.

    >>> from trl_onevision.rewards import AccuracyReward, format_reward
    >>> first = First(AccuracyReward(), format_reward)
    >>> first(completions=["<answer>4</answer>", "<answer>4</answer>"], solution=["4", None], task=["math", "essay"])
    [1.0, 0.0]

    Returns what the first part returns that is not `None`; `None` where all are.
    """

    def __init__(self, *rewards: Reward, name: str | None = None) -> None:
        super().__init__(rewards, name or "_or_".join(map(_name, rewards)))

    def combine(self, *paid: float | None) -> float | None:
        return next((score for score in paid if score is not None), None)


class Scheduled(_Composed):
    """Scale a reward over the training, by straight lines between (share of the training, scale) points.

    >>> from types import SimpleNamespace
    >>> from trl_onevision.rewards import format_reward
    >>> fading = Scheduled(format_reward, [(0.0, 1.0), (0.5, 0.0)])
    >>> halfway = SimpleNamespace(global_step=25, max_steps=100)
    >>> fading(completions=["<think>x</think><answer>4</answer>"], trainer_state=halfway)
    [0.5]

    Before the first point and after the last one the scale stays as it is there. TRL passes `trainer_state`; without
    it, and in an evaluation before any training, the training is at its start.

    Returns the reward times the scale; `None` where the reward is `None`.
    """

    def __init__(self, reward: Reward, points: Sequence[tuple[float, float]], *, name: str | None = None) -> None:
        shares = [share for share, _ in points]
        if not points or shares != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] <= 1:
            raise ValueError(f"points={points!r}: expected (share, scale) pairs with shares that rise within 0 to 1")
        super().__init__((reward,), name or f"scheduled_{_name(reward)}")
        self.points = [(float(share), float(scale)) for share, scale in points]

    def __call__(
        self, completions: Sequence[Any], log_extra: Any = None, trainer_state: Any = None, **columns: Any
    ) -> list[float | None]:
        steps = trainer_state.max_steps if trainer_state else 0  # 0 where nothing was trained yet
        scale = self.scale(trainer_state.global_step / steps if steps else 0.0)
        rewards = self.rewards[0](completions=completions, trainer_state=trainer_state, **columns)
        return [None if paid is None else paid * scale for paid in rewards]

    def scale(self, progress: float) -> float:
        """Return the scale at a share of the training.

        >>> from trl_onevision.rewards import format_reward
        >>> Scheduled(format_reward, [(0.2, 1.0), (0.6, 0.5)]).scale(0.4)
        0.75
        """
        for (start, low), (end, high) in zip(self.points, self.points[1:], strict=False):
            if progress < end:
                return low + (high - low) * max(0.0, progress - start) / (end - start)
        return self.points[-1][1]


def _name(reward: Reward) -> str:
    return str(getattr(reward, "__name__", type(reward).__name__))


hard_format_accuracy_reward = Product(format_reward, accuracy_reward, name="hard_format_accuracy_reward")
