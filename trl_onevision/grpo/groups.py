"""What the rewards said of a generation: the table that shaping, resampling and the log by source read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from trl.trainer.utils import nanstd

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
        normalizes: Whether TRL divides each reward by its group's deviation before it sums them up
            (`multi_objective_aggregation: normalize_then_sum`).
    """

    rewards_NF: torch.Tensor
    weights_F: torch.Tensor
    lengths_N: torch.Tensor
    size: int
    names: Sequence[str]
    labels: dict[str, list[str | None]]
    advantages_N: torch.Tensor | None = None
    correct: str | None = None
    normalizes: bool = False

    def split(self, values_N: torch.Tensor) -> torch.Tensor:
        """A row for each group (M, G)."""
        return values_N.view(-1, self.size)

    def spread(self, values_M: torch.Tensor) -> torch.Tensor:
        """A group's value for each of its completions (N,)."""
        return values_M.repeat_interleave(self.size)

    @property
    def total_N(self) -> torch.Tensor:
        """The weighted sum that TRL makes of the rewards; NaN where no reward said anything.

        >>> from dataclasses import replace
        >>> rewards = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> groups = Groups(rewards, torch.tensor([1.0, 0.5]), torch.ones(2), 2, ["iou", "accuracy"], {})
        >>> groups.total_N, replace(groups, normalizes=True).total_N
        (tensor([1., 1.]), tensor([ 0.3535, -0.3535]))
        """
        rewards_NF = self.rewards_NF
        if self.normalizes:
            each_MGF = rewards_NF.unflatten(0, (-1, self.size))
            deviation_MGF = nanstd(each_MGF, dim=1, keepdim=True)
            rewards_NF = ((each_MGF - each_MGF.nanmean(1, keepdim=True)) / (deviation_MGF + 1e-4)).flatten(0, 1)
        total_N = (rewards_NF * self.weights_F).nansum(1)
        return total_N.masked_fill(self.rewards_NF.isnan().all(1), torch.nan)

    @property
    def correct_N(self) -> torch.Tensor:
        """What the reward that says right or wrong paid."""
        if self.correct is None and len(self.names) > 1:
            raise ValueError(f"correct: name the reward that says what is right, one of {self.names}.")
        return self.rewards_NF[:, 0 if self.correct is None else list(self.names).index(self.correct)]

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
        normalizes=trainer.multi_objective_aggregation == "normalize_then_sum",
    )


def may_hold(trainer: Any, *columns: str) -> bool:
    """Whether rows may have one of these columns; what an environment or a stream brings is not known before."""
    known = getattr(trainer.train_dataset, "column_names", None)
    return trainer.environment_factories is not None or known is None or bool({*columns} & {*known})


def _modality(row: dict[str, Any]) -> str | None:
    if "images" not in row and "image" not in row:
        return None
    return "image" if row.get("images") or row.get("image") is not None else "text"
