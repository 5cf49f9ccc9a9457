"""Points in an answer: inside a box, near a point, several by one-to-one matching."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trl_onevision.rewards.boxes import Box, as_array, boxes_of, is_proper
from trl_onevision.rewards.coordinates import CLOSE, NUMBER, NUMBERS, OPEN, PAIR, SEPARATOR, in_turn, read_items
from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.grounding import GroundingReward, gold_items
from trl_onevision.rewards.json_text import held, labels_of, numbers
from trl_onevision.rewards.pairing import label_mask, matched_share
from trl_onevision.rewards.rows import Positive, Unscorable

POINT_KEYS = ("point_2d", "point", "points_2d", "points", "coordinate", "coordinates", "position")
_TEXT_POINT = re.compile(
    rf"{OPEN}{PAIR}{CLOSE}|\bx\s?[:=]\s?{NUMBER}{SEPARATOR}y\s?[:=]\s?{NUMBER}|\A\s*+{PAIR}\s*+\Z", re.IGNORECASE
)


class Point(NamedTuple):
    """Two numbers as written, in the answer's own frame, with the label beside them."""

    x: float
    y: float
    label: str | None = None


def read_points(text: str) -> list[Point]:
    """Read the points of an answer, in the order written: from tags, from JSON, else from brackets in the text.

    >>> read_points('[{"point_2d": [10, 20.5], "label": "ear"}]')
    [Point(x=10.0, y=20.5, label='ear')]
    >>> read_points('<points x1="10" y1="20" alt="ear">ear</points>')
    [Point(x=10.0, y=20.0, label='ear')]
    >>> [point[:2] for point in read_points("at (-1, 2) or so, and [3 4]")]
    [(-1.0, 2.0), (3.0, 4.0)]

    Tags are those of Qwen and Molmo, JSON is read by `points_of`, at any depth; labels, and what the text denies, are
    as in `read_boxes`. At most 1000 points are read.
    """
    return read_items(text, points_of, _TEXT_POINT, _matched)


def _matched(match: re.Match[str]) -> list[Point]:
    return [Point(x, y) for x, y in in_turn(NUMBERS.findall(match[0]), 2)]


def points_of(value: Any, label: str | None = None) -> list[Point]:
    """Read one JSON value as a point, or as an object of one or several; an empty list if it is neither.

    >>> points_of({"x": 1, "y": 2}), points_of({"points": [[1, 2], [3, 4]], "label": "ear"})
    ([Point(x=1.0, y=2.0, label=None)], [Point(x=1.0, y=2.0, label='ear'), Point(x=3.0, y=4.0, label='ear')])

    A point is two numbers. An object holds them under `point_2d`, `point`, `points_2d`, `points`, `coordinate`,
    `coordinates` or `position`, or as `x` and `y`.
    """
    if isinstance(value, list):
        pair = _pair(value)
        return [] if pair is None else [Point._make((*pair, label))]
    if not isinstance(value, dict):
        return []
    pairs = held(value, POINT_KEYS, _pair) or list(filter(None, [_pair([value.get("x"), value.get("y")])]))
    return [Point._make((*pair, name)) for pair, name in zip(pairs, labels_of(value, len(pairs), label), strict=True)]


def _pair(value: Any) -> tuple[float, ...] | None:
    return numbers(value, 2)


@dataclass(eq=False, kw_only=True)
class PointReward(GroundingReward[Point, Box]):
    """Pay an answer's points for lying in the gold's boxes, or near the gold's points, paired one to one.

    >>> reward = PointReward(radius=10)
    >>> reward(["[5, 5]", "[50, 5]"], solution=['[{"bbox_2d": [0, 0, 10, 10]}]'] * 2, task=["points"] * 2)
    [1.0, 0.0]
    >>> reward(["(5, 5)", "(5, 10)", "(50, 5)"], solution=['[{"point_2d": [5, 5]}]'] * 3)
    [1.0, 0.5, 0.0]

    The score is `sum of the matched credits / max(points answered, places in the gold)`, in [0, 1]: repeating a point
    or scattering many costs. The credit of a point is

    - for a gold box, 1 inside or on its edge, else 0;
    - for a gold point at distance `d`, `max(0, 1 - d / radius)`; with `soft=False`, 1 if `d <= radius`, else 0.

    The radius counts in `gold_frame`, whatever frame the answer is in. `frame`, `gold_frame`, `labels`, `opened`
    and a gold of `[]` are as in `IoUReward`. The gold is a list of `{"point_2d": [x, y], "label": "..."}`, of
    `{"bbox_2d": [x1, y1, x2, y2], "label": "..."}`, or of bare lists; an object that has both is scored by its box.

    Scores rows whose `task` is `points`; without a task, those whose gold has `point_2d` or is all pairs of numbers.
    A gold that cannot be read gets `None` and one warning with the row's id.
    """

    task_name = "points"
    read_answer = staticmethod(read_points)
    radius: Positive = 30.0
    soft: bool = True
    labels: bool = False
    name: str = "point_reward"

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Box]:
        return read_places(gold)

    def claims(self, gold: Any) -> bool:
        return bool(gold) and bool(_is_point(as_array(read_places(gold))).all())

    def score(self, answer: list[Point], gold: list[Box], scale: FloatArray) -> float:
        with np.errstate(over="ignore"):
            points = np.array([point[:2] for point in answer]) * scale
        credit = point_credit(points, as_array(gold), self.radius, self.soft)
        if self.labels:
            credit = credit * label_mask([point.label for point in answer], [place.label for place in gold])
        return matched_share(credit)


def point_credit(points: FloatArray, places: FloatArray, radius: float, soft: bool = True) -> FloatArray:
    """What each point earns at each place, in [0, 1].

    >>> point_credit(np.array([[5, 5], [8, 5]]), np.array([[0, 0, 6, 6], [5, 5, 5, 5]]), radius=10)
    array([[1. , 1. ],
           [0. , 0.7]])

    `points` is (n, 2), `places` (m, 4), the result (n, m). A place is a box, which pays 1 inside, or a point, which is
    a box without an extent and pays by distance.
    """
    xy = points[:, None]
    inside = ((xy >= places[:, :2]) & (xy <= places[:, 2:])).all(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.nan_to_num(np.linalg.norm(xy - places[:, :2], axis=-1), nan=np.inf)
        near = np.clip(1 - distance / radius, 0, 1) if soft else distance <= radius
    return np.where(_is_point(places), near, inside).astype(np.float64)


def read_places(gold: Any) -> list[Box]:
    """Read the places of a gold: boxes, and points as boxes without an extent.

    >>> [place[:4] for place in read_places([{"bbox_2d": [0, 0, 9, 9]}, {"point_2d": [5, 5]}])]
    [(0.0, 0.0, 9.0, 9.0), (5.0, 5.0, 5.0, 5.0)]

    Raises `Unscorable` on anything else, on a box without an inside and on a number that is not finite.
    """
    places = gold_items(gold, _places_of, 'points like [{"point_2d": [x, y]}] or boxes like [{"bbox_2d": [...]}]')
    extents = as_array(places)
    if not np.isfinite(extents).all() or not (is_proper(extents) | _is_point(extents)).all():
        raise Unscorable(f"the gold holds a box without an inside, or a number that is not finite: {places}")
    return places


def _places_of(value: Any, label: str | None) -> list[Box]:
    # Two pairs of numbers are two points here, and never the corners of a box.
    boxes = boxes_of(value, label) if isinstance(value, dict) or numbers(value, 4) else []
    return boxes or [Box(x, y, x, y, name) for x, y, name in points_of(value, label)]


def _is_point(places: FloatArray) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = (places[:, :2] == places[:, 2:]).all(-1)
    return equal


point_reward = PointReward()
