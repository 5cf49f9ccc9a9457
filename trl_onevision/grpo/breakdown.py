"""The log by source, task and modality, so that what rises on one and falls on the other is seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from trl_onevision.grpo.groups import Groups

MOST = 32  # values of a label: of more, such as the address of each row, a log tells nothing


class Breakdown:
    """Metrics of the parts of a generation, where rows are of more than one source, task or modality.

    `rewards/<name>/<source>/mean`, `frac_reward_zero_std/<source>` and `completions/mean_length/<source>`; a task is
    `task=choice` in the place of the source, a modality `modality=text`.
    """

    def __init__(self, dataset: Any = None) -> None:
        # Of a stream nothing is known before it was seen
        self.seen = _labels_of(dataset) if isinstance(dataset, Dataset) else defaultdict(set)

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
            if 1 < len(self.seen[label]) <= MOST:
                for value in found:
                    rows = [other is not None and str(other) == value for other in values]
                    part = value if label == "source" else f"{label}={value}"
                    yield part, torch.tensor(rows, device=groups.rewards_NF.device)


def _labels_of(dataset: Dataset) -> dict[str, set[str]]:
    """The sources, tasks and modalities of a dataset, without a look at any image."""
    labels: dict[str, set[str]] = defaultdict(set)
    for label in {"source", "task"} & set(dataset.column_names):
        rows = dataset.select_columns([label])
        found = rows[label] if pa.types.is_nested(rows.data.column(label).type) else rows.unique(label)
        labels[label] = {str(value) for value in found if value is not None}
    for column in {"images", "image"} & set(dataset.column_names):
        cells = dataset.data.column(column)
        has_image = cells.is_valid()
        if column == "images" and not pa.types.is_null(cells.type):  # null where all are empty
            has_image = pc.greater(pc.fill_null(pc.list_value_length(cells), 0), 0)
        labels["modality"] |= {"image" if found else "text" for found in pc.unique(has_image).to_pylist()}
    return labels
