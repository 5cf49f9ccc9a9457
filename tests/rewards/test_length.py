import math
import uuid
from typing import ClassVar

import numpy as np
import pytest

from trl_onevision.rewards.length import BudgetReward, ConciseReward, DynamicLengthReward, groups

RIGHT, WRONG = "<answer>4</answer>", "<answer>5</answer>"


def lengths(*numbers):
    return [[0] * number for number in numbers]


class TestConcise:
    def test_the_shortest_right_one_of_each_group_earns_the_bonus(self):
        rewards = ConciseReward()(
            [RIGHT, WRONG, RIGHT, RIGHT, RIGHT],
            solution=["4"] * 5,
            completion_ids=lengths(300, 110, 200, 150, 500),
            prompts=["a", "a", "a", "b", "b"],
        )
        assert rewards == [0, 0, 0.2, 0.2, 0]

    def test_a_shortest_one_that_hardly_thinks_earns_nothing(self):
        reward = ConciseReward(floor=100)
        assert reward([RIGHT] * 2, ["4"] * 2, completion_ids=lengths(100, 300)) == [0, 0]
        assert reward([RIGHT] * 2, ["4"] * 2, completion_ids=lengths(101, 300)) == [0.2, 0]

    def test_equally_short_ones_all_earn_it(self):
        assert ConciseReward()([RIGHT] * 3, ["4"] * 3, completion_ids=lengths(200, 200, 201)) == [0.2, 0.2, 0]

    def test_a_gold_that_cannot_be_scored(self):
        assert ConciseReward()([RIGHT] * 2, [None, "4"], completion_ids=lengths(200, 200)) == [None, 0.2]


class TestDynamicLength:
    ROWS: ClassVar = {"solution": ["4"] * 4, "completion_ids": lengths(100, 200, 75, 1000)}

    def test_the_target_is_the_mean_length_of_the_right_ones(self):
        rewards = DynamicLengthReward()([RIGHT, RIGHT, WRONG, WRONG], **self.ROWS)
        assert rewards == pytest.approx(
            [(1 - math.cos(math.pi * length / 150)) / 2 for length in (100, 200, 75)] + [0]
        )

    def test_without_a_right_one_the_target_is_the_maximum(self):
        rewards = DynamicLengthReward(max_length=1000)([WRONG] * 4, **self.ROWS)
        assert rewards[-1] == pytest.approx(1)
        assert rewards[2] < rewards[0] < rewards[1] < rewards[3]

    def test_as_in_the_released_code(self):
        reward = DynamicLengthReward(low=-0.5, high=0.0, wrong_only=True)
        assert reward([RIGHT, RIGHT, WRONG, WRONG], **self.ROWS) == pytest.approx([0, 0, -0.25, -0.5])

    def test_empty_completions(self):
        assert DynamicLengthReward()([RIGHT], ["4"], completion_ids=[[]]) == [0]

    def test_wrong_options(self):
        with pytest.raises(ValueError, match="max_length > 0"):
            DynamicLengthReward(max_length=0)


class TestBudget:
    @pytest.mark.parametrize(
        ("length", "difficulty", "uncertainty", "expected"),
        [
            (96, 1, 0, 1),
            (346, 1, 0, 0.5),
            (10_000, 1, 0, 0),
            (10_000, 3.5, 0, 1),
            (10_000, 4.9, 9, 1),
            (256, 5, 0, 1),
            (256 + 250, 5, 0, 0.5),
            (256 + 250 + 50, 5, 2, 0.5),
            (5, None, 0, None),
            (346, 1, None, 0.5),
        ],
    )
    def test_budgets(self, length, difficulty, uncertainty, expected):
        (paid,) = BudgetReward()(
            ["x"], completion_ids=lengths(length), difficulty=[difficulty], uncertainty=[uncertainty]
        )
        assert paid == expected

    @pytest.mark.parametrize("difficulty", ["hard", float("nan"), True])
    def test_a_difficulty_that_is_no_number_is_reported_with_its_row(self, difficulty, caplog):
        columns = {"completion_ids": lengths(9), "difficulty": [difficulty], "id": [f"row-{difficulty}"]}
        assert BudgetReward()(["x"], **columns) == BudgetReward()(["x"], **columns) == [None]
        assert [f"row-{difficulty}" in record.getMessage() for record in caplog.records] == [True]

    def test_without_uncertainty(self):
        assert BudgetReward()(["x"], completion_ids=lengths(256), difficulty=[9]) == [1]

    def test_wrong_options(self):
        with pytest.raises(ValueError, match="decay > 0"):
            BudgetReward(decay=0)


def test_groups_are_rows_wherever_their_completions_stand():
    assert groups(["4", "9", "4"], id=["a", "b", "a"]) == [[0, 2], [1]]
    assert groups(["4", "4"], id=["a", "b"]) == [[0], [1]]
    assert groups(["4", "4"]) == [[0, 1]]
    assert groups(["4", "4"], id=[np.int64(1), np.int64(2)]) == [[0], [1]]
    assert groups(["4", "4"], id=[uuid.UUID(int=1), uuid.UUID(int=2)]) == [[0], [1]]
    assert groups(["4"] * 4, id=[None] * 4, prompts=["p", "q", "p", "q"]) == [[0, 2], [1, 3]]
    assert groups(["4"] * 3, id=["a", None, None], prompts=["p", "p", "p"]) == [[0], [1, 2]]
    assert groups(["4"] * 3, id=["1"] * 3, source=["clevr", "geometry3k", "clevr"]) == [[0, 2], [1]]
    assert groups(["4"] * 2, id=["1"] * 2, prompts=["p", "q"]) == groups(["4", "5"], id=["1"] * 2) == [[0], [1]]
    prompts = [[{"role": "user", "content": [{"image": object()}, {"text": text}]}] for text in "ppq"]
    assert groups(["4"] * 3, prompts=prompts) == [[0, 1], [2]]
