import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trl_onevision.rewards.points import PointReward, point_reward

BOX = '[{"bbox_2d": [0, 0, 10, 10], "label": "button"}]'


def score(answer, gold=BOX, reward=point_reward, **columns):
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["points"], **columns)
    return value


def test_a_point_in_a_box_pays_all_or_nothing():
    assert score("(5, 5)") == score("(0, 10)") == 1
    assert score("(11, 5)") == score("no") == score("") == 0


def test_a_point_near_a_point_pays_by_distance():
    gold = '[{"point_2d": [50, 50]}]'
    assert score("(53, 54)", gold, PointReward(radius=10)) == pytest.approx(0.5)
    assert score("(53, 54)", gold, PointReward(radius=5, soft=False)) == 1
    assert score("(53, 54)", gold, PointReward(radius=4, soft=False)) == 0


def test_scattering_points_does_not_pay():
    grid = json.dumps([[x, y] for x in range(0, 100, 10) for y in range(0, 100, 10)])
    assert score(grid) == pytest.approx(0.01)
    assert score(json.dumps([[5, 5]] * 10)) == pytest.approx(0.1)


def test_several_points_are_paired_one_to_one():
    gold = "[[0, 0], [100, 0]]"
    assert score("[[100, 0], [0, 0]]", gold) == 1
    assert score("[[0, 0], [1, 0]]", gold) == 0.5
    assert score("[[0, 0]]", gold) == 0.5


def test_two_pairs_are_two_points_and_not_a_box():
    assert score("[[50, 50]]", "[[0, 0], [100, 100]]") == 0


def test_labels_pair_only_points_of_one_name():
    reward = PointReward(labels=True)
    assert score('{"point_2d": [5, 5], "label": "Button"}', reward=reward) == 1
    assert score('{"point_2d": [5, 5], "label": "field"}', reward=reward) == 0
    for answer in (
        '<points x1="5" y1="5" alt="button">',
        "<ref>button</ref><point>5 5</point>",
        '{"button": [[5, 5]]}',
    ):
        assert score(answer, reward=reward) == 1
        assert score(answer.replace("button", "field"), reward=reward) == 0
    assert score("(5, 5)", reward=reward) == 0


@pytest.mark.parametrize(
    ("frame", "answer"),
    [("norm1000", "(250, 500)"), ("norm1024", "(256, 512)"), ("norm100", "(25, 50)"), ("norm1", "(0.25, 0.5)")],
)
def test_relative_frames_use_the_image_size_and_the_radius_stays_in_pixels(frame, answer):
    columns = {"images": [[Image.new("RGB", (400, 100))]]}
    assert score(answer, "[[100, 50]]", PointReward(frame=frame), **columns) == pytest.approx(1)
    assert score(answer, "[[105, 50]]", PointReward(radius=10, frame=frame), **columns) == pytest.approx(0.5)


def test_nothing_to_point_at():
    assert score("[]", "[]") == score("none", "[]") == 1
    assert score("(1, 2)", "[]") == score("", "[]") == 0


def test_without_a_task_only_golds_that_are_points_count():
    golds = ['[{"point_2d": [5, 5]}]', "[5, 5]", BOX, "42", "[]"]
    assert point_reward(["(5, 5)"] * 5, solution=golds) == [1, 1, None, None, None]


@pytest.mark.parametrize("gold", ["somewhere", "[[1, 2], 3]", '[{"bbox_2d": [9, 9, 1, 1]}]', "[1e999, 2]", None])
def test_an_unusable_gold_is_reported_once_with_its_row(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        assert [score("(1, 2)", gold, id=[request.node.name]) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert repr(request.node.name) in caplog.text


def test_pickles():
    reward = pickle.loads(pickle.dumps(PointReward(radius=7, name="near_7")))
    assert (reward.__name__, reward.radius) == ("near_7", 7)


@pytest.mark.parametrize("options", [{"radius": 0}, {"radius": float("nan")}, {"frame": "second"}])
def test_a_wrong_option_raises_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PointReward(**options)


@given(st.text(alphabet="[](){},:.\"0123456789eE+-;` point_2dxy'\ud800\x00", max_size=200) | st.text(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_text_scores(text):
    for gold in (BOX, "[[3, 4], [5, 6]]", "[]"):
        assert 0 <= score(text, gold) <= 1


@pytest.mark.parametrize(
    "unit",
    ["(", "(1,1", "(1,1)", "[1,", '{"x":1,"y":2}', "(1e308, -1e308)", "( ", "1", "<point>", "<point x1=1 ", "x=1 "],
)
def test_a_megabyte_of_hostile_text_costs_what_its_length_says(unit, linear):
    assert 0 <= linear(score, unit * (1_000_000 // len(unit))) <= 0.01


def test_numbers_beyond_a_float_earn_nothing_and_do_not_warn():
    with np.errstate(all="raise"):
        assert score("[[1e400, 1e400], [1e308, -1e308]]", "[[1, 1]]") == 0
        assert score("[[NaN, 1], [1, -Infinity]]", "[[1, 1]]") == score("[[NaN, 1]]") == 0
