import json
import logging
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trl_onevision.rewards.actions import ActionReward, action_reward, read_actions

CLICK = '{"action": "click", "bbox_2d": [100, 100, 200, 150]}'
TYPE = '{"action": "type", "text": "Hello World"}'
SCROLL = '{"action": "scroll", "direction": "down"}'


def score(answer, gold=CLICK, reward=action_reward, **columns):
    answer = answer if isinstance(answer, str) else json.dumps(answer)
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["action"], **columns)
    return value


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "click", "coordinate": [150, 120]}',
        "[{'action': 'click', 'coordinate': [150, 120]}]",
        '```json\n{"action_type": "TAP", "x": 150, "y": 120}\n```',
        '<answer>{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [150, 120]}}</answer>',
        'Action: {"action": "Left Click", "point": [150, 120]} done',
    ],
)
def test_reads_the_ways_in_which_models_write_a_click(text):
    assert score(text) == 1


def test_a_click_is_paid_for_its_kind_and_its_place():
    assert score({"action": "click", "coordinate": [200, 150]}) == 1
    assert score({"action": "click", "coordinate": [201, 150]}) == 0.5
    assert score({"action": "click"}) == 0.5
    assert score({"action": "long_press", "coordinate": [150, 120]}) == 0
    assert score({"action": "click", "coordinate": [0, 0]}, reward=ActionReward(type_weight=0.2)) == 0.2


def test_a_point_gold_is_hit_within_the_radius():
    gold = '{"action": "click", "coordinate": [50, 50]}'
    assert score({"action": "click", "coordinate": [53, 54]}, gold, ActionReward(radius=5)) == 1
    assert score({"action": "click", "coordinate": [53, 55]}, gold, ActionReward(radius=5)) == 0.5


def test_words_are_compared():
    assert score({"action": "input_text", "content": " Hello World "}, TYPE) == 1
    assert score({"action": "type", "text": "hello world"}, TYPE) == 0.5
    assert score({"action": "type"}, TYPE) == 0.5
    assert score({"action": "scroll", "direction": "DOWN"}, SCROLL) == 1
    assert score({"action": "scroll", "direction": "up"}, SCROLL) == 0.5
    assert score({"action": "swipe", "direction": "down"}, SCROLL) == 0


BACK = {"action": "system_button", "button": "Back"}
COPY = {"action": "key", "keys": ["ctrl", "c"]}
SWIPE = {"action": "swipe", "coordinate": [10, 10], "coordinate2": [10, 400]}
END = {"action": "terminate", "status": "success"}


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        (BACK, {"action": "system_button", "button": "back"}, 1),
        (BACK, {"action": "system_button", "button": "Home"}, 0.5),
        (COPY, {"action": "key", "keys": ["Ctrl", "C"]}, 1),
        (COPY, {"action": "hotkey", "key": "ctrl + c"}, 1),
        (COPY, {"action": "key", "keys": ["alt", "f4"]}, 0.5),
        (COPY, {"action": "key", "keys": ["c", "ctrl"]}, 0.5),
        (COPY, {"action": "key", "keys": [["ctrl"], "c"]}, 0.5),
        (SWIPE, {**SWIPE, "coordinate2": [12, 390]}, 1),
        (SWIPE, {**SWIPE, "coordinate2": [400, 10]}, 0.5),
        (SWIPE, {"action": "swipe", "coordinate": [10, 10]}, 0.5),
        ({"action": "scroll", "pixels": -300}, {"action": "scroll", "pixels": -500}, 1),
        ({"action": "scroll", "pixels": -300}, {"action": "scroll", "pixels": 300}, 0.5),
        ({"action": "scroll", "pixels": -300}, {"action": "scroll"}, 0.5),
        ({"action": "scroll", "pixels": 300}, {"action": "scroll", "pixels": 0}, 0.5),
        ({"action": "scroll", "pixels": 300}, {"action": "scroll", "pixels": float("nan")}, 0.5),
        (END, END, 1),
        (END, {"action": "terminate", "status": "failure"}, 0.5),
        ({"action": "type", "text": 5}, {"action": "type", "text": "5"}, 1),
        ({"action": "type", "text": "5"}, {"action": "type", "text": 5}, 1),
        ({"action": "type", "text": 5}, {"action": "type", "text": "6"}, 0.5),
        ({"action": "wait", "time": 2}, {"action": "wait", "time": 2.0}, 1),
        ({"action": "wait", "time": 2}, {"action": "wait", "time": 3}, 0.5),
        ({"action": "click", "box": [0, 0, 9, 9]}, {"action": "click", "coordinate": [5, 5]}, 1),
        ({"action": "click", "box": [0, 0, 9, 9]}, {"action": "click", "coordinate": [50, 5]}, 0.5),
        ({"action": "back", "text": None, "coordinate": []}, {"action": "back"}, 1),
        ({"action": "back", "thought": "enough", "id": 7}, {"action": "back"}, 1),
    ],
)
def test_every_argument_that_the_gold_states_is_compared(gold, answer, expected):
    assert score(answer, json.dumps(gold)) == expected


@pytest.mark.parametrize(
    "gold",
    [{"action": "drag", "to": [5, 5]}, {"action": "swipe", "coordinate2": "up"}, {"action": "type", "text": True}],
)
def test_a_gold_with_a_key_that_nothing_reads_cannot_be_scored(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        assert [score(CLICK, json.dumps(gold), id=[request.node.name]) for _ in range(2)] == [None] * 2
    assert len(caplog.records) == 1
    assert "nothing reads" in caplog.text


def test_an_action_without_arguments_is_paid_for_its_kind_as_in_ui_r1():
    assert score({"action": "press_back"}, '{"action": "back"}') == 1


def test_a_typed_text_into_a_place_needs_both():
    gold = '{"action": "type", "text": "a", "bbox_2d": [0, 0, 10, 10]}'
    assert score({"action": "type", "text": "a", "coordinate": [5, 5]}, gold) == 1
    assert score({"action": "type", "text": "a", "coordinate": [50, 5]}, gold) == 0.5
    assert score({"action": "type", "text": "b", "coordinate": [5, 5]}, gold) == 0.5


def test_steps_are_compared_in_order():
    gold = f"[{TYPE}, {SCROLL}]"
    assert score(gold, gold) == 1
    assert score(f"[{SCROLL}, {TYPE}]", gold) == 0
    assert score(TYPE, gold) == 0.5


def test_trying_every_action_does_not_pay():
    every = [{"action": "click", "coordinate": [150, 120]}] * 10
    assert score(every) == pytest.approx(0.1)


def test_relative_frames():
    click = {"action": "click", "coordinate": [500, 500]}
    columns = {"images": [[Image.new("RGB", (300, 240))]]}
    assert score(click, reward=ActionReward(frame="norm1000"), **columns) == 1
    assert score(click, **columns) == 0.5


@pytest.mark.parametrize("answer", ["", "click", "[150, 120]", "{}", '{"action": 3}', "<think>" + CLICK])
def test_no_action_earns_nothing(answer):
    assert score(answer) == 0


def test_without_a_task_the_gold_decides():
    assert action_reward([CLICK, SCROLL], solution=["42", SCROLL]) == [None, 1]


@pytest.mark.parametrize("gold", ["tap it", "[]", '{"action": "click", "bbox_2d": [5, 5, 1, 1]}', '[{"x": 1}]', None])
def test_an_unusable_gold_is_reported_once_with_its_row(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        assert [score(CLICK, gold, id=[request.node.name]) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert repr(request.node.name) in caplog.text


def test_pickles():
    assert pickle.loads(pickle.dumps(ActionReward(name="ui"))).__name__ == "ui"


@pytest.mark.parametrize("options", [{"type_weight": 2}, {"radius": -1}, {"frame": "screen"}])
def test_a_wrong_option_raises_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ActionReward(**options)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just([1, 2]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["action", "coordinate", "text", "x", "y", "bbox_2d"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values)
@settings(max_examples=200, deadline=None)
def test_any_json_scores(value):
    for gold in (CLICK, TYPE):
        assert 0 <= score(value, gold) <= 1


@pytest.mark.parametrize("unit", ["{", '{"action":', '{"action":"click","x":1,"y":2}', "{'action':'type','text':'a'}"])
def test_a_megabyte_of_hostile_text_costs_what_its_length_says(unit, linear):
    assert 0 <= linear(score, unit * (1_000_000 // len(unit))) <= 0.01
    assert len(read_actions(unit * (1_000_000 // len(unit)))) <= 1000
