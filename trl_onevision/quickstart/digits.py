"""Real handwritten digits on canvases: the quickstart's data, drawn offline from scikit-learn's 1,797 bundled scans.

Each row shows one to three digits and asks one of three things: read the number (`number`), say whether a digit is odd
or even (`choice`), or point at a digit (`boxes`). A scan belongs to one split only, so the held-out rows show
handwriting that no training step has seen.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

TILE = 28
"""Side of an enlarged scan in pixels, and of a visual token: what stands on one token is read sooner."""
INK = 64
"""Pixels at least this dark belong to the digit: what its box encloses."""

SPLITS = {"sft": 20, "grpo": 1377, "held-out": 400}
"""Scans a split owns; together, all 1,797. Those of `sft` are two of each digit: what was never shown is not tried."""

TASKS = ("number", "choice", "number", "boxes")
"""The tasks of the rows, in turn."""
CHOICES = ["odd", "even"]

PROMPTS = {
    "number": "Which number is written here?",
    "choice": "Is this digit odd or even? A. odd B. even",
    "boxes": "Locate the digit {label}.",
}

# A guess in the thinking that the answer does not depend on would be paid or punished by chance, so these thoughts
# leave nothing to guess. Every token of them is a pass of the model, and half of GRPO's time is generation.
THOUGHTS = {"number": "I read.", "choice": "I look.", "boxes": "I look."}


@cache
def scans(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The enlarged scans of one split and their labels.

    >>> tiles, labels = scans("sft")
    >>> tiles.shape, labels.shape
    ((20, 28, 28), (20,))

    Returns:
        `uint8` ink of shape `(n, TILE, TILE)`, 0 for paper and 255 for full ink, and `n` labels from 0 to 9.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    training, held_out = np.split(order, [-SPLITS["held-out"]])
    shown = np.concatenate([training[digits.target[training] == digit][:2] for digit in range(10)])
    mine = {"sft": shown, "grpo": training[~np.isin(training, shown)], "held-out": held_out}[split]
    ink = (digits.images[mine] / 16 * 255).astype(np.uint8)
    tiles = [np.asarray(Image.fromarray(scan).resize((TILE, TILE), Image.Resampling.BICUBIC)) for scan in ink]
    return np.stack(tiles), digits.target[mine]


def ink_box(tile: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box around a tile's ink, as `(x1, y1, x2, y2)` in pixels, right and bottom excluded.

    >>> tile = np.zeros((28, 28), np.uint8)
    >>> tile[10:20, 3:6] = 255
    >>> ink_box(tile)
    (3, 10, 6, 20)
    """
    ys, xs = np.nonzero(tile >= INK)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def draw(rng: np.random.Generator, split: str, count: int) -> tuple[Image.Image, list[int], list[list[int]]]:
    """Place `count` random scans of a split on one canvas, left to right, and say what is where.

    >>> image, labels, boxes = draw(np.random.default_rng(0), "sft", 2)
    >>> image.size, len(labels), len(boxes)
    ((84, 56), 2, 2)

    Returns:
        The canvas, the digits in reading order, and their boxes `[x1, y1, x2, y2]` in pixels of the canvas.
    """
    tiles, targets = scans(split)
    canvas = np.zeros((2 * TILE, (count + 1) * TILE), np.uint8)
    gap_after = int(rng.integers(-1, count))  # one gap of a scan's width, somewhere
    labels, boxes = [], []
    for place, index in enumerate(rng.integers(0, len(tiles), size=count)):
        left, top = (place + (place > gap_after)) * TILE, int(rng.integers(0, 2)) * TILE
        canvas[top : top + TILE, left : left + TILE] = tiles[index]
        x1, y1, x2, y2 = ink_box(tiles[index])
        labels.append(int(targets[index]))
        boxes.append([left + x1, top + y1, left + x2, top + y2])
    return Image.fromarray(255 - canvas).convert("RGB"), labels, boxes


def sample(
    rng: np.random.Generator, split: str, index: int
) -> tuple[str, Image.Image, list[int], list[list[int]], int]:
    """What row `index` of a split is about: its task, and a canvas as `draw` gives it; and which digit is asked for.

    >>> task, image, labels, boxes, place = sample(np.random.default_rng(0), "grpo", 1)
    >>> task, len(labels), place
    ('choice', 1, 0)
    """
    task = TASKS[index % len(TASKS)]
    count = 1 if task == "choice" else int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05]))
    image, labels, boxes = draw(rng, split, count)
    while (count > 1 and labels[0] == 0) or (task == "boxes" and len(set(labels)) < count):
        image, labels, boxes = draw(rng, split, count)  # a number does not start with zero; "the digit 4" is one
    return task, image, labels, boxes, int(rng.integers(0, count))


def row(rng: np.random.Generator, split: str, index: int) -> dict[str, Any]:
    """One row of the GRPO contract, with the worked `completion` that supervised training shows.

    >>> example = row(np.random.default_rng(0), "grpo", 0)
    >>> example["task"], example["prompt"][0]["content"], example["id"]
    ('number', 'Which number is written here?', 'digits-grpo-0')
    """
    task, image, labels, boxes, place = sample(rng, split, index)
    label, choices = labels[place], None
    if task == "number":
        solution = answer = "".join(map(str, labels))
    elif task == "choice":
        solution = answer = "AB"[label % 2 == 0]
        choices = CHOICES
    else:
        solution = json.dumps([{"bbox_2d": boxes[place], "label": str(label)}])
        answer = json.dumps(boxes[place], separators=(",", ":"))  # a space is a token
    said = f"<think>{THOUGHTS[task]}</think><answer>{answer}</answer>"
    return {
        "prompt": [{"role": "user", "content": PROMPTS[task].format(label=label)}],
        "completion": [{"role": "assistant", "content": said}],
        "images": [image],
        "solution": solution,
        "task": task,
        "choices": choices,
        "id": f"digits-{split}-{index}",
        "source": "scikit-learn digits",
    }


def rows(split: str, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` rows of a split, the same on every machine.

    >>> [example["task"] for example in rows("held-out", 4)]
    ['number', 'choice', 'number', 'boxes']
    """
    for index in range(count):
        yield row(np.random.default_rng([list(SPLITS).index(split), index]), split, index)
