"""What a person looks at after the quickstart: the reward curves, and held-out rows with the model's answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trl_onevision.answers.extract import answer_block
from trl_onevision.answers.places import BOXES

REWARDS = {"accuracy_reward": "accuracy", "iou_reward": "IoU", "format_reward": "format"}
SMOOTHED = 10
"""Steps over which a curve is averaged."""
COLUMNS, ROWS = 4, 3
TRUE, PREDICTED = "tab:green", "tab:orange"


def draw_curves(log_history: list[dict[str, Any]], path: Path) -> None:
    """Mean reward over the steps of a GRPO run, a line a reward, as `trainer_state.json` logged them."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in REWARDS.items():
        key = f"rewards/{name}/mean"
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        steps, means = np.array(points).T
        (line,) = axes.plot(steps, means, alpha=0.3, linewidth=1)
        width = min(SMOOTHED, len(means))
        smooth = np.convolve(means, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=line.get_color(), label=label)
    title = f"Rewards of sampled completions, and their mean over {SMOOTHED} steps"
    axes.set(xlabel="GRPO step", ylabel="mean reward", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def draw_samples(rows: list[dict[str, Any]], predictions: list[dict[str, Any]], path: Path) -> None:
    """Held-out rows with the answer after GRPO below the question; true boxes green, predicted ones orange."""
    figure = Figure(figsize=(3.2 * COLUMNS, 2.7 * ROWS), layout="constrained")
    panels = figure.subplots(ROWS, COLUMNS, squeeze=False).flat
    for axes, row, prediction in zip(panels, rows, predictions, strict=False):
        answer = answer_block(prediction["after"])
        axes.imshow(row["images"][0])
        axes.set(xticks=[], yticks=[])
        if row["task"] == "boxes":
            for gold in json.loads(row["solution"]):
                _outline(axes, gold["bbox_2d"], TRUE, "-")
            for box in BOXES.read(answer):
                _outline(axes, box.numbers, PREDICTED, "--")
        truth = "" if row["task"] == "boxes" else f"   (true: {row['solution']})"
        title = f"{row['prompt'][0]['content']}\n{_drawable(answer[:60])}{truth}"
        axes.set_title(title, fontsize=8, parse_math=False)
    figure.suptitle("Held-out rows after GRPO: true boxes green, predicted boxes orange", fontsize=10)
    figure.savefig(path, dpi=120)


def _drawable(answer: str) -> str:
    """What a model wrote, on one line; no font has a glyph for a control character."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in answer)


def _outline(axes: Any, box: Any, colour: str, style: str) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=style))
