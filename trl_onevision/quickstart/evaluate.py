"""A checkpoint's answers to held-out rows, and what the rewards make of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trl.data_utils import prepare_multimodal_messages

from trl_onevision.engine import Checkpoint
from trl_onevision.rewards import accuracy_reward, format_reward, iou_reward

BATCH_SIZE = 100
COLUMNS = ("solution", "task", "choices", "images", "id")


def answer(checkpoint: Path, rows: list[dict[str, Any]], max_new_tokens: int) -> Iterator[list[str]]:
    """Greedy completions of `checkpoint` for `rows`, a batch at a time."""
    model = Checkpoint.load(str(checkpoint), "float32")
    for start in range(0, len(rows), BATCH_SIZE):
        messages = [
            prepare_multimodal_messages(row["prompt"], row["images"]) for row in rows[start : start + BATCH_SIZE]
        ]
        yield [said.text for said in model.answer(messages, max_new_tokens, do_sample=False)]


def rewards_of(rows: list[dict[str, Any]], completions: list[str]) -> dict[str, float]:
    """Mean accuracy over the rows with an answer, mean IoU over the rows with a box, format over all.

    >>> row = {"solution": "7", "task": "number", "choices": None, "images": [], "id": "1"}
    >>> box = row | {"solution": '[{"bbox_2d": [0, 0, 10, 10], "label": "7"}]', "task": "boxes"}
    >>> rewards_of([row, box], ["<think>I see 7.</think><answer>7</answer>", "[0, 0, 10, 5]"])
    {'accuracy': 1.0, 'mean_iou': 0.5, 'format': 0.5}
    """
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    rewards: dict[str, Callable[..., Sequence[float | None]]] = {
        "accuracy": accuracy_reward,
        "mean_iou": iou_reward,
        "format": format_reward,
    }
    return {
        name: fmean(score for score in reward(completions=completions, **columns) if score is not None)
        for name, reward in rewards.items()
    }
