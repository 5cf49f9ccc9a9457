"""Points in an answer: inside a box, near a point, several by one-to-one matching."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trl_onevision.answers.json_text import numbers
from trl_onevision.answers.places import BOXES, POINTS, Place
from trl_onevision.rewards.boxes import is_proper
from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.grounding import GroundingReward, as_array, gold_items, label_mask, matched_share
from trl_onevision.rewards.rows import Positive, Unscorable


@dataclass(eq=False, kw_only=True)
class PointReward(GroundingReward[Place, Place]):
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
    """

    task_name = "points"
    read_answer = staticmethod(POINTS.read)
    radius: Positive = 30.0
    soft: bool = True
    labels: bool = False
    name: str = "point_reward"

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Place]:
        return read_places(gold)

    def claims(self, gold: Any) -> bool:
        return bool(gold) and bool(_is_point(as_array(read_places(gold))).all())

    def score(self, answer: list[Place], gold: list[Place], scale: FloatArray) -> float:
        points = np.array([point.numbers for point in answer]) * scale
        credit = point_credit(points, as_array(gold), self.radius, self.soft)
        if self.labels:
            credit = credit * label_mask(answer, gold)
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
    distance = np.nan_to_num(np.linalg.norm(xy - places[:, :2], axis=-1), nan=np.inf)
    near = np.clip(1 - distance / radius, 0, 1) if soft else distance <= radius
    return np.where(_is_point(places), near, inside).astype(np.float64)


def read_places(gold: Any) -> list[Place]:
    """Read the places of a gold, boxes and points.

    >>> [place.numbers for place in read_places([{"bbox_2d": [0, 0, 9, 9]}, {"point_2d": [5, 5]}])]
    [(0.0, 0.0, 9.0, 9.0), (5.0, 5.0)]

    Raises `Unscorable` on anything else, on a box without an inside and on a number that is not finite.
    """
    places = gold_items(gold, _places_of, 'points like [{"point_2d": [x, y]}] or boxes like [{"bbox_2d": [...]}]')
    extents = as_array(places)
    if not np.isfinite(extents).all() or not (is_proper(extents) | _is_point(extents)).all():
        raise Unscorable(f"the gold holds a box without an inside, or a number that is not finite: {places}")
    return places


def _places_of(value: Any, label: str | None) -> list[Place]:
    # Two pairs of numbers are two points here, and never the corners of a box.
    boxes = BOXES.of(value, label) if isinstance(value, dict) or numbers(value, 4) else []
    return boxes or POINTS.of(value, label)


def _is_point(places: FloatArray) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = (places[:, :2] == places[:, 2:]).all(-1)
    return equal


point_reward = PointReward()
