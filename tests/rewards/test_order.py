"""Orders: every spelling of one, and nothing that is none."""

import itertools
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_onevision.rewards import OrderReward, order_reward
from trl_onevision.rewards.order import read_order


def score(answer, gold="[1, 2, 3, 4]", reward=order_reward, **columns):
    (value,) = reward([f"<answer>{answer}</answer>"], solution=[gold], task=["order"], **columns)
    return value


@pytest.mark.parametrize(
    "text",
    [
        "[2, 3, 1]",
        "2,3,1",
        "2 3 1",
        "(2; 3; 1)",
        "2 -> 3 -> 1",
        "2→3→1",
        "2 > 3 > 1",
        "2、3、1。",
        "```json\n[2,3,1]\n```",
        "``` [2,3,1] ```",
    ],
)
def test_reads_the_ways_to_write_an_order(text):
    assert read_order(text) == [2, 3, 1]


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 3", "1 2 1 2", "[1, 2, 3]", "[0, 1, 2, 3]", "[1, 2, 3, 4, 5]", "[1, 2, 3, 4] or [4, 3, 2, 1]",
        "not [1, 2, 3, 4]", "[1, 2, 3, 4, 1, 2, 3, 4]", "1234", "[[1, 2], [3, 4]]", "first, second", "",
        "[1.0, 2, 3, 4]", "[-1, 2, 3, 4]", "1 2 3 4 or 4 3 2 1", "[1, 2, 3, 4] [1, 2, 3, 4]", "maybe 1 2 3 4",
    ],
)  # fmt: skip
def test_what_is_no_permutation_of_the_pieces_earns_nothing(text):
    assert score(text) == 0


def test_thinking_that_the_template_opened_and_a_cut_off_left_open_earns_nothing():
    rows = {"solution": ["[2, 1]"] * 3, "task": ["order"] * 3}
    answers = ["[2, 1]", "so</think>[2, 1]", "[2, 1]</think>"]
    assert order_reward(answers, **rows) == [1, 1, 0]
    assert OrderReward(opened=True)(answers, **rows) == [0, 1, 0]


def test_the_share_of_right_places_over_all_answers_is_chance():
    golds = list(itertools.permutations(range(1, 5)))
    earned = [score(json.dumps(answer)) for answer in golds]
    assert sum(earned) / len(earned) == pytest.approx(1 / 4)
    exact = [score(json.dumps(answer), reward=OrderReward(partial=False)) for answer in golds]
    assert sum(exact) == 1


@given(st.permutations(list(range(1, 8))))
@settings(max_examples=50, deadline=None)
def test_every_order_is_its_own_answer(order):
    assert score(json.dumps(order), json.dumps(order)) == 1
    assert score(" ".join(map(str, order)), order) == 1


@pytest.mark.parametrize("gold", ["[1, 2, 2]", "abc", "", None, [1, 1], 3.5])
def test_a_gold_that_is_no_order_is_named(gold, caplog):
    with caplog.at_level(logging.WARNING):
        assert score("[1, 2]", gold, id=[f"row of {gold!r}"]) is None
    assert "order_reward cannot score row" in caplog.text


def test_a_row_without_its_task_is_another_rewards():
    assert order_reward(["[1, 2]"], solution=["[1, 2]"]) == [None]
    assert order_reward(["[1, 2]"], solution=["[1, 2]"], task=["list"]) == [None]


@pytest.mark.parametrize("unit", ["1 ", "1,", "[1", "1 > ", "```json\n1"])
def test_hostile_text_costs_what_its_length_says(unit, linear):
    assert linear(score, unit * (1_000_000 // len(unit))) == 0
