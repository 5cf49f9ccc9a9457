"""Drawings that look like the image: the completion writes SVG or Vega-Lite, and is paid for what it draws."""

import contextlib
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from trl_onevision.answers.extract import answer_block
from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.render_source import Drawing, Refused, read_drawing, similarity
from trl_onevision.rewards.renderer import render
from trl_onevision.rewards.rows import LogMetric, NamedReward, Unscorable, score_rows

BLUR = 2.0  # pixels: a line that is a pixel off is nearly right
PAINTED = 0.03  # of a channel's range: what differs less from white is paper


@dataclass(eq=False, kw_only=True)
class RenderReward(NamedReward):
    """Pay a drawing for how much its image and its parts are the gold's: half pixels, half structure (after RRVF).

    >>> disc, blank = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>', '<svg viewBox="0 0 9 9"/>'
    >>> gold = json.dumps({"language": "svg", "source": disc})
    >>> render_reward([disc, "<svg", blank], solution=[gold] * 3, task=["render"] * 3)
    [1.0, 0.0, 0.0]

    The score is in [0, 1]: half `1 - d(answer) / d(blank)`, at least 0, where d is the mean difference of colours to
    the gold's image over what either has painted, slightly blurred; half the F1 of the parts that can be seen (shape,
    colours, place and transforms of an SVG; marks, encodings and values of a chart). Blank paper earns 0, and so does
    an answer that is no SVG or Vega-Lite, does not render within `seconds`, or reaches for a file, an address or an
    expression. vl-convert draws in a process that is killed where it must be; nothing that a model writes
    runs as code, as RRVF's matplotlib does (arXiv 2507.20766). A call draws for `budget` seconds at most; what is left
    earns 0. `opened` is as in `IoUReward`.

    Scores rows whose `task` is `render`, with golds `{"language": "svg" | "vega-lite", "source": …}`. A gold that
    does not render gets `None` and one warning with the row's id. Needs `pip install trl-onevision[render]`.
    """

    side: int = 224
    seconds: float = 2.0
    budget: float = 60.0
    opened: bool = False
    name: str = "render_reward"
    columns = ("task", "id")

    def __call__(
        self, completions: list[Any], solution: list[Any], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        end = time.monotonic() + self.budget
        rendered: list[bool] = []

        def score(row: dict[str, Any]) -> float | None:
            if row.get("task") != "render":
                return None
            gold, gold_image = _gold(row["solution"], self.side)
            left, image = end - time.monotonic(), None
            if left > 0:
                with contextlib.suppress(Refused):
                    answer = answer_block(row["completion"], opened=self.opened)
                    drawing, image = draw(answer, self.side, min(self.seconds, left))
            rendered.append(image is not None)
            if image is None:
                return 0.0
            return (looks_like(gold_image, image) + similarity(gold.parts, drawing.parts)) / 2

        scores = score_rows(self.__name__, score, completion=completions, solution=solution, **columns)
        if log_metric is not None and rendered:
            log_metric(f"{self.__name__}/rendered", sum(rendered) / len(rendered))
        return scores


def _gold(solution: Any, side: int) -> tuple[Drawing, FloatArray]:
    text = solution if isinstance(solution, str) else json.dumps(solution, default=str)
    try:
        drawing, image = _gold_drawn(text, side)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unscorable(f"the gold is no drawing ({error}): {text[:80]!r}") from None
    if image is None:
        raise Unscorable(f"the gold does not render, or to blank paper: {text[:80]!r}")
    return drawing, image


@lru_cache(maxsize=32)  # the G completions of a prompt have one gold, of a megabyte
def _gold_drawn(text: str, side: int) -> tuple[Drawing, FloatArray | None]:
    value = json.loads(text)
    drawing, image = draw(value["source"], side, seconds=10)
    if drawing.language != value["language"]:
        raise ValueError(f"language {value['language']!r}, but the source is {drawing.language}")
    return drawing, image


def draw(text: str, side: int, seconds: float) -> tuple[Drawing, FloatArray | None]:
    """A text as a drawing, and its image: none where it does not render, or to blank paper. Raises `Refused`."""
    drawing = read_drawing(text)
    rendered = render(drawing, side, seconds)
    image = None if rendered is None else pixels(rendered, side)
    return drawing, image if image is not None and painted(image).any() else None


def pixels(image: Image.Image, side: int) -> FloatArray:
    """An image in a white square of `side` pixels, slightly blurred: (side, side, 3), in [0, 1]."""
    image.thumbnail((side, side))
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.filter(ImageFilter.GaussianBlur(BLUR)), np.float64) / 255


def looks_like(gold: FloatArray, given: FloatArray) -> float:
    """How much nearer `given` is to `gold` than blank paper is, over what either has painted: in [0, 1].

    >>> black, grey, white = (np.full((2, 2, 3), value) for value in (0.0, 0.5, 1.0))
    >>> looks_like(black, black), looks_like(black, grey), looks_like(black, white)
    (1.0, 0.5, 0.0)
    """
    either = painted(gold) | painted(given)
    blank = (1 - gold[either]).mean() if either.any() else 0.0
    if blank == 0:
        return 0.0
    return float(max(0.0, 1 - abs(gold - given)[either].mean() / blank))


def painted(image: FloatArray) -> NDArray[np.bool_]:
    """Which pixels of an image are not paper."""
    is_painted: NDArray[np.bool_] = (image < 1 - PAINTED).max(-1)
    return is_painted


render_reward = RenderReward()
