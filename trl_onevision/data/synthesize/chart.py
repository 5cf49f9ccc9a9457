"""Charts of known data: read a value, find the largest, add two."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from trl_onevision.data.schema import Task as RowTask
from trl_onevision.data.synthesize.puzzle import NoPuzzle, Pictures, Puzzle, Task

KINDS = ("bars", "bars", "line", "pie")
COUNTS = (3, 5, 6, 4)
MOST = (10, 20, 20, 7)  # of a value; of a pie in tenths
ASKED = (("read", "largest"), ("read", "largest", "sum"), ("read", "largest", "sum"), ("read", "largest"))
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Ida", "Kim", "Leo", "Mia", "Ned")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun")
_LARGEST = {
    "bars": "Which bar is the highest?",
    "line": "In which month is the value largest?",
    "pie": "Which share is the largest?",
}


def _chance(count: int, most: int, asked: tuple[str, ...]) -> float:
    """What an answer at random in the range of its question earns, or always the same."""
    by_question = {"read": 1 / most, "largest": 1 / count, "sum": 1 / (2 * most - 1)}
    return sum(by_question[question] for question in asked) / len(asked)


LEVELS = (
    "bars of 3, values 1 to 10: read or find the largest",
    "bars of 5, values 1 to 20: read, find the largest, or add two",
    "lines over 6 months, values 1 to 20: read, find the largest, or add two",
    "pie of 4, shares of 10 to 70 percent: read or find the largest",
)


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A chart and a question about its data, every answer of a question's range equally likely.

    >>> from trl_onevision.data.synthesize.scene import picture
    >>> puzzle = make(np.random.default_rng(0), picture, level=1)
    >>> puzzle.task in ("number", "choice"), len(puzzle.facts["values"])
    (True, 3)
    """
    kind, count, most = KINDS[level - 1], COUNTS[level - 1], MOST[level - 1]
    names = list(MONTHS) if kind == "line" else [str(name) for name in rng.choice(NAMES, count, replace=False)]
    asked = str(rng.choice(ASKED[level - 1]))
    first, second = (int(index) for index in rng.choice(count, 2, replace=False))
    values = _values(rng, kind, count, most)
    choices: list[str] | None = None
    task: RowTask = "number"
    if asked == "largest":
        while values.count(max(values)) > 1:
            values = _values(rng, kind, count, most)
        largest = values.index(max(values))
        values[first], values[largest] = values[largest], values[first]
        question, task, solution, choices = _LARGEST[kind], "choice", "ABCDEF"[first], names
    elif asked == "sum":
        total = int(rng.integers(2, 2 * most + 1))
        values[first] = int(rng.integers(max(1, total - most), min(most, total - 1) + 1))
        values[second] = total - values[first]
        question = f"What is the sum of the values of {names[first]} and {names[second]}?"
        solution = str(total)
    elif kind == "pie":
        # Of the first share any number of tenths is equally likely
        values[0], values[first] = values[first], values[0]
        question, solution = f"How many percent does {names[first]} have?", f"{10 * values[first]}%"
    else:
        question, solution = f"What is the value of {names[first]}?", str(values[first])
    facts = {"kind": kind, "names": names, "values": values, "asked": asked}
    return Puzzle(question, [draw(kind, names, values, most)], solution, task, choices, facts)


def _values(rng: np.random.Generator, kind: str, count: int, most: int) -> list[int]:
    """Values from 1 to `most`; of a pie tenths of the whole, of which the first has 1 to 7 with equal chance."""
    if kind != "pie":
        return [int(value) for value in rng.integers(1, most + 1, count)]
    first = int(rng.integers(1, most + 1))
    cuts = np.sort(rng.choice(np.arange(1, 10 - first), count - 2, replace=False))
    return [first, *(int(share) for share in np.diff([0, *cuts, 10 - first]))]


def draw(kind: str, names: list[str], values: list[int], most: int) -> Image.Image:
    """The chart as an image of 448 x 336, every step of the scale marked."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise NoPuzzle("chart: needs matplotlib, which is missing; pip install matplotlib.") from error

    figure = Figure(figsize=(4.48, 3.36), dpi=100)
    axes = figure.add_axes((0.1, 0.1, 0.86, 0.86))
    if kind == "pie":
        axes.pie(values, labels=names, startangle=90, counterclock=False, wedgeprops={"edgecolor": "white"})
    else:
        if kind == "bars":
            axes.bar(names, values, width=0.6, color="tab:blue")
        else:
            axes.plot(names, values, "o-", color="tab:blue")
        axes.set_ylim(0, most + 1)
        axes.set_yticks(range(0, most + 1, max(1, most // 5)))
        # One collection and not `grid`, whose ticks take longer to draw than the rest of the chart
        axes.hlines(range(1, most + 1), *axes.get_xlim(), color="0.85", linewidth=0.7, zorder=0)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


CHART = Task(make, dict(zip(LEVELS, map(_chance, COUNTS, MOST, ASKED), strict=True)))
