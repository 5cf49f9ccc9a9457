"""The log by source, task and modality, so that what rises on one and falls on the other is seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from trl_onevision.grpo.groups import Groups


class Breakdown:
    """Metrics of the parts of a generation, once there is more than one source, task or modality.

    `rewards/<name>/<source>/mean`, `frac_reward_zero_std/<source>` and `completions/mean_length/<source>`; a task is
    `task=choice` in the place of the source, a modality `modality=text`.
    """

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = defaultdict(set)

    def log(self, groups: Groups, metrics: dict[str, list[float]]) -> None:
        """Add the means of a generation to TRL's metrics; a reward that said nothing of a part has none there."""
        dead_N = groups.spread(~groups.live_M).float()
        for part, rows_N in self._parts(groups):
            for name, rewards_N in zip(groups.names, groups.rewards_NF.T, strict=True):
                if not rewards_N[rows_N].isnan().all():
                    metrics[f"rewards/{name}/{part}/mean"].append(rewards_N[rows_N].nanmean().item())
            metrics[f"frac_reward_zero_std/{part}"].append(dead_N[rows_N].mean().item())
            metrics[f"completions/mean_length/{part}"].append(groups.lengths_N[rows_N].float().mean().item())

    def _parts(self, groups: Groups) -> Iterator[tuple[str, torch.Tensor]]:
        for label, values in groups.labels.items():
            found = sorted({str(value) for value in values if value is not None})
            self.seen[label].update(found)
            if len(self.seen[label]) > 1:
                for value in found:
                    rows = [other is not None and str(other) == value for other in values]
                    part = value if label == "source" else f"{label}={value}"
                    yield part, torch.tensor(rows, device=groups.rewards_NF.device)
