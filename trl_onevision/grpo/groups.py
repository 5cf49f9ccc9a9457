"""What the rewards said of a generation: the table that shaping, resampling and the log by source read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object

LABELS = ("source", "task", "modality")


@dataclass
class Groups:
    """The N completions of a generation over all ranks, the G of a prompt side by side, and their F rewards.

    Attributes:
        rewards_NF: What each reward function paid; NaN where it said nothing.
        weights_F: TRL's `reward_weights`.
        lengths_N: Tokens of each completion.
        size: G.
        names: The rewards' names, as TRL logs them.
        labels: For each of `source`, `task` and `modality` (`text` or `image`) a value a completion, or None.
        advantages_N: TRL's advantages, once there are any.
        correct: The reward that says what is right; needs no name where there is one reward.
    """

    rewards_NF: torch.Tensor
    weights_F: torch.Tensor
    lengths_N: torch.Tensor
    size: int
    names: Sequence[str]
    labels: dict[str, list[str | None]]
    advantages_N: torch.Tensor | None = None
    correct: str | None = None

    def split(self, values_N: torch.Tensor) -> torch.Tensor:
        """A row for each group (M, G)."""
        return values_N.view(-1, self.size)

    def spread(self, values_M: torch.Tensor) -> torch.Tensor:
        """A group's value for each of its completions (N,)."""
        return values_M.repeat_interleave(self.size)

    @property
    def total_N(self) -> torch.Tensor:
        """The weighted sum that TRL makes of the rewards; NaN where no reward said anything."""
        total_N = (self.rewards_NF * self.weights_F).nansum(1)
        return total_N.masked_fill(self.rewards_NF.isnan().all(1), torch.nan)

    @property
    def correct_N(self) -> torch.Tensor:
        """What the reward that says right or wrong paid."""
        if self.correct is None:
            (of_one_reward,) = self.rewards_NF.T
            return of_one_reward
        return self.rewards_NF[:, list(self.names).index(self.correct)]

    @property
    def right_N(self) -> torch.Tensor:
        """1 where a completion is right (paid 1 or more), 0 where it is not, NaN where nothing was said."""
        return (self.correct_N >= 1).float().masked_fill(self.correct_N.isnan(), torch.nan)

    @property
    def accuracy_M(self) -> torch.Tensor:
        """The share of right completions of each group, NaN where nothing was said of any.

        >>> right = torch.tensor([[1.0], [0.0], [torch.nan], [1.0]])
        >>> Groups(right, torch.ones(1), torch.ones(4), 2, ["accuracy_reward"], {}).accuracy_M.tolist()
        [0.5, 1.0]
        """
        return self.split(self.right_N).nanmean(1)

    @property
    def live_M(self) -> torch.Tensor:
        """Whether the rewards of a group differ; where they do not, nothing can be learnt from it.

        >>> rewards = torch.tensor([[1.0], [1.0], [0.0], [torch.nan], [1.0], [0.0]])
        >>> Groups(rewards, torch.ones(1), torch.ones(6), 2, ["accuracy_reward"], {}).live_M.tolist()
        [False, False, True]
        """
        total_MG = self.split(self.total_N)
        highest_M = total_MG.nan_to_num(nan=-torch.inf).amax(1)
        lowest_M = total_MG.nan_to_num(nan=torch.inf).amin(1)
        return highest_M - lowest_M > 1e-6


def gather_groups(
    trainer: Any, rows: list[dict[str, Any]], completion_ids: list[list[int]], rewards_NF: torch.Tensor
) -> Groups:
    """The table of a generation, from each rank's rows and what TRL gathered already."""
    local = [
        (len(ids), row.get("source"), row.get("task"), _modality(row))
        for row, ids in zip(rows, completion_ids, strict=True)
    ]
    lengths, *labels = zip(*gather_object(local), strict=True)
    return Groups(
        rewards_NF=rewards_NF,
        weights_F=trainer.reward_weights.to(rewards_NF.device),
        lengths_N=torch.tensor(lengths, device=rewards_NF.device),
        size=trainer.num_generations if trainer.model.training else trainer.num_generations_eval,
        names=trainer.reward_func_names,
        labels={label: list(values) for label, values in zip(LABELS, labels, strict=True)},
        correct=trainer.options.correct,
    )


def check_correct(trainer: Any, option: str) -> None:
    """Raise where `option` needs to know what is right and `correct` does not say it, or names no reward."""
    correct, known = trainer.options.correct, trainer.reward_func_names
    if correct is None and len(known) > 1:
        raise ValueError(f"{option} needs correct: the reward that says what is right, one of {known}.")
    if correct is not None and correct not in known:
        raise ValueError(f"correct: {correct!r} is not among the rewards of this run: {known}.")


def _modality(row: dict[str, Any]) -> str | None:
    if "images" not in row and "image" not in row:
        return None
    return "image" if row.get("images") or row.get("image") is not None else "text"
