"""The log by source, task and modality against means worked by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import ONE_BATCH, OURS, update

from trl_onevision.grpo.breakdown import Breakdown
from trl_onevision.grpo.groups import Groups

NAN = float("nan")
LABELS = {"source": ["clevr"] * 4 + ["text"] * 2, "task": ["math"] * 6, "modality": ["image"] * 4 + ["text"] * 2}
TABLE = Groups(
    rewards_NF=torch.tensor([[1, NAN], [0, 0.5], [1, NAN], [1, NAN], [0, NAN], [0, NAN]]),
    weights_F=torch.ones(2),
    lengths_N=torch.tensor([2, 4, 6, 8, 1, 3]),
    size=2,
    names=["accuracy_reward", "iou_reward"],
    labels=LABELS,
)


def test_means_by_hand() -> None:
    metrics: dict[str, list[float]] = defaultdict(list)
    Breakdown().log(TABLE, metrics)
    assert metrics == {
        "rewards/accuracy_reward/clevr/mean": [0.75],
        "rewards/iou_reward/clevr/mean": [0.5],  # and none for text, of which it said nothing
        "frac_reward_zero_std/clevr": [0.5],
        "completions/mean_length/clevr": [5.0],
        "rewards/accuracy_reward/text/mean": [0.0],
        "frac_reward_zero_std/text": [1.0],
        "completions/mean_length/text": [2.0],
        "rewards/accuracy_reward/modality=image/mean": [0.75],
        "rewards/iou_reward/modality=image/mean": [0.5],
        "frac_reward_zero_std/modality=image": [0.5],
        "completions/mean_length/modality=image": [5.0],
        "rewards/accuracy_reward/modality=text/mean": [0.0],
        "frac_reward_zero_std/modality=text": [1.0],
        "completions/mean_length/modality=text": [2.0],
    }


def test_a_dataset_says_before_the_first_step_what_there_will_be() -> None:
    mixed = tiny.dataset(4, text_rows=(2,)).add_column("source", ["a", "a", "b", None])
    assert Breakdown(mixed).seen == {"source": {"a", "b"}, "modality": {"image", "text"}}
    assert Breakdown(mixed.select([0, 1])).seen["source"] == {"a"}
    assert Breakdown(tiny.dataset(2)).seen == {"modality": {"image"}}
    single = mixed.remove_columns("images").add_column("image", [None, b"", b"", b""])
    assert Breakdown(single).seen["modality"] == {"image", "text"}


@pytest.mark.parametrize("columns", [{}, {"source": ["a", "a"], "task": ["math", "math"]}])
def test_where_rows_are_of_one_kind_the_log_is_trls(make: Callable[..., Any], columns: dict[str, Any]) -> None:
    data = tiny.dataset(2)
    for name, values in columns.items():
        data = data.add_column(name, values)
    settings = {"given": tiny.completions([5, 9, 3, 16, 7, 7, 12, 1]), "data": data, **ONE_BATCH}
    assert update(make(**OURS, **settings)).metrics.keys() == update(make(**settings)).metrics.keys()


def test_labels_of_any_kind_are_texts_and_too_many_are_none() -> None:
    rows = tiny.dataset(2).add_column("source", [{"name": "a"}, {"name": "b"}]).add_column("task", [["x"], ["x"]])
    seen = Breakdown(rows).seen
    assert seen["source"] == {"{'name': 'a'}", "{'name': 'b'}"} and seen["task"] == {"['x']"}
    for others, logged in ((30, True), (31, False)):
        breakdown, metrics = Breakdown(), defaultdict(list)
        breakdown.seen["source"] = {f"https://a.b/{n}" for n in range(others)}
        breakdown.log(TABLE, metrics)
        assert ("frac_reward_zero_std/clevr" in metrics) == logged
        assert "frac_reward_zero_std/modality=text" in metrics
