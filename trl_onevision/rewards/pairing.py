"""Answers against golds, one to one: the pairing that earns most, and the score that it comes to."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.json_text import normalized
from trl_onevision.rewards.places import Place


def match(similarity: FloatArray) -> FloatArray:
    """The similarities of the best one-to-one pairing (Hungarian) of answers, the rows, with golds, the columns.

    >>> match(np.array([[0.9, 0.8], [0.7, 0.1]]))
    array([0.8, 0.7])
    """
    matched: FloatArray = similarity[linear_sum_assignment(similarity, maximize=True)]
    return matched


def matched_share(similarity: FloatArray, threshold: float | None = None) -> float:
    """The sum of the best pairing over the larger count, so that copies cost; with a threshold, of hits.

    >>> matched_share(np.array([[0.9, 0.8], [0.7, 0.1]])), matched_share(np.array([[0.9], [0.9]]), threshold=0.5)
    (0.75, 0.5)
    """
    if threshold is not None:
        similarity = (similarity >= threshold).astype(np.float64)
    return float(match(similarity).sum() / max(similarity.shape))


def label_mask(answers: list[Place], golds: list[Place]) -> NDArray[np.bool_]:
    """Which answers may stand for which golds by their label; a gold without a label takes any.

    >>> label_mask([Place((), "Cat"), Place(())], [Place((), "cat"), Place((), "dog"), Place(())])
    array([[ True, False,  True],
           [False, False,  True]])
    """
    given, wanted = ([normalized(place.label) for place in places] for places in (answers, golds))
    allowed = [[gold is None or gold == label for gold in wanted] for label in given]
    return np.array(allowed, dtype=bool).reshape(len(answers), len(golds))
