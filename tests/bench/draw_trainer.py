"""The README's figure: what a group costs as it grows, stock `GRPOTrainer` beside `OneVisionGRPOTrainer`.

    python tests/bench/draw_trainer.py docs/group-cost.png

Measured by `bench_trainer`: policy updates in one process in turns, images of one optimizer step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parent))

import bench_trainer

GROUPS = (2, 4, 8, 16)
PROMPT, COMPLETION = 1067, 128
STOCK, OURS = "tab:gray", "tab:blue"


def draw(updates: list[list[str]], images: list[list[str]], path: Path) -> None:
    """Two panels: seconds of a policy update over the group's size, and how often a step looks at an image."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    sizes = [int(row[2]) for row in updates]
    for name, column, colour in (("TRL 1.16", 4, STOCK), ("trl-onevision", 5, OURS)):
        seconds = [float(row[column]) / 1000 for row in updates]
        left.plot(sizes, seconds, "o-", color=colour, label=name)
        left.annotate(
            f"{seconds[-1]:.1f} s", (sizes[-1], seconds[-1]), (-8, 6), textcoords="offset points", ha="right"
        )
    left.set(xlabel="completions of one prompt (G)", ylabel="seconds, one CPU core", xticks=sizes)
    left.set_ylim(0, 1.15 * float(updates[-1][4]) / 1000)
    left.set_title(f"Policy update: {updates[0][0]} prompt + {COMPLETION} completion tokens", fontsize=10)
    left.grid(alpha=0.3)
    left.legend(loc="upper left")
    labels = ["decoded", "preprocessed"]
    for shift, row, colour in ((-0.2, images[0], STOCK), (0.2, images[1], OURS)):
        bars = right.bar([position + shift for position in range(2)], [int(row[1]), int(row[2])], 0.38, color=colour)
        right.bar_label(bars, fontsize=9)
    right.set(xticks=range(2), xticklabels=labels, yscale="log", ylim=(1, 3000), ylabel="images")
    right.set_title("One step of 8 images, G = 8", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    options = bench_trainer.options(["--parts", "update", "counts"])
    with tempfile.TemporaryDirectory() as folder:
        updates = [bench_trainer.measure(PROMPT, COMPLETION, group, options, folder)[0] for group in GROUPS]
        draw(updates, bench_trainer.count(options, folder), output)


if __name__ == "__main__":
    main()
