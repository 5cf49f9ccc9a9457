import logging

import numpy as np
import pytest
from datasets import Dataset

from trl_onevision.rewards.rows import Unscorable, score_rows, take


def test_rows_are_dicts_of_columns_of_any_kind():
    columns = {
        "a": [1, 2],
        "b": (3, 4),
        "c": np.array([5, 6]),
        "d": Dataset.from_dict({"d": [7, 8]})["d"],
        "trainer_state": object(),
        "name": "text",
        "missing": None,
    }
    assert score_rows("reward", lambda row: row, **columns) == [
        {"a": 1, "b": 3, "c": 5, "d": 7},
        {"a": 2, "b": 4, "c": 6, "d": 8},
    ]


def test_columns_of_different_lengths_are_an_error_of_the_caller():
    with pytest.raises(ValueError, match="shorter"):
        score_rows("reward", lambda row: 1.0, a=[1, 2], b=[1])


def test_a_row_that_cannot_be_scored_is_none_and_named_once(caplog):
    def score(row):
        if row["solution"] == "bad":
            raise Unscorable("the gold is bad")
        return None if row["solution"] == "another's" else 1.0

    columns = {"solution": ["bad", "good", "another's", "bad"], "id": ["broken-1", "fine-1", "x", "broken-2"]}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert score_rows("a_reward", score, **columns) == [None, 1.0, None, None]
    assert [record.getMessage() for record in caplog.records] == [
        f"a_reward cannot score row 'broken-{number}': the gold is bad" for number in (1, 2)
    ]


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        score_rows("reward", lambda row: 1 / row["a"], a=[0])


def test_take():
    assert take({"a": np.array([1, 2, 3]), "b": ("x", "y"), "c": "text"}, [1]) == {"a": [2], "b": ["y"], "c": "text"}
