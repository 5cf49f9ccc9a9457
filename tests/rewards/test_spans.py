import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_onevision.rewards.boxes import box_iou
from trl_onevision.rewards.spans import SpanReward, span_iou, span_reward

GOLD = '{"start": 10, "end": 20}'


def score(answer, gold=GOLD, reward=span_reward, **columns):
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["span"], **columns)
    return value


spans = st.tuples(st.floats(-1000, 1000), st.floats(0.01, 1000)).map(lambda span: (span[0], span[0] + span[1]))


@given(spans, spans)
@settings(max_examples=200, deadline=None)
def test_temporal_iou_is_the_iou_of_boxes_of_equal_height(a, b):
    as_boxes = [[(start, 0, end, 1)] for start, end in (a, b)]
    assert span_iou([a], [b]).item() == pytest.approx(box_iou(*as_boxes).item(), abs=1e-9)
    assert span_iou([a], [b]) == span_iou([b], [a])


def test_disjoint_spans_share_nothing():
    """Peers that divide by the hull of both spans, or clip late, pay for touching ones."""
    assert score("20 to 30") == score("90 to 95") == 0
    assert score("[20, 10]") == score("[15, 15]") == 0


def test_soft_and_threshold():
    assert score("15 to 25") == pytest.approx(1 / 3)
    assert score("15 to 20", reward=SpanReward(threshold=0.5)) == 1
    assert score("16 to 20", reward=SpanReward(threshold=0.5)) == 0


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), "10", None])
def test_a_duration_that_is_no_length_gives_no_score(duration):
    reward = SpanReward(frame="norm1")
    assert score("0.1 to 0.2", reward=reward, duration=[duration]) is None


def test_several_spans_are_paired_one_to_one():
    gold = '[{"start": 0, "end": 10}, {"start": 20, "end": 30}]'
    assert score("[[20, 30], [0, 10]]", gold) == 1
    assert score("[[0, 10], [0, 10]]", gold) == 0.5
    assert score(json.dumps([[10, 20]] * 10)) == pytest.approx(0.1)


def test_relative_frames_use_the_duration():
    assert score("[100, 200]", reward=SpanReward(frame="norm1000"), duration=[100.0]) == pytest.approx(1)
    assert score("[0.1, 0.2]", reward=SpanReward(frame="norm1"), duration=[100]) == pytest.approx(1)
    assert score("[100, 200]", reward=SpanReward(frame="norm1000"), id=["no-duration"]) is None


def test_without_a_task_a_bare_pair_is_not_claimed():
    golds = [GOLD, f"[{GOLD}]", "[10, 20]", "7", "[]"]
    assert span_reward(["10 to 20"] * 5, solution=golds) == [1, 1, None, None, None]
    assert score("10 to 20", "[10, 20]") == 1


def test_no_span():
    assert score("[]", "[]") == 1
    assert score("1 to 2", "[]") == 0


@pytest.mark.parametrize("gold", ["at noon", '{"start": 5, "end": 5}', '{"start": 5}', "[1, 1e999]", None])
def test_an_unusable_gold_is_reported_once_with_its_row(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        assert [score("1 to 2", gold, id=[request.node.name]) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert repr(request.node.name) in caplog.text


def test_pickles():
    assert pickle.loads(pickle.dumps(SpanReward(threshold=0.5, name="tiou_50"))).__name__ == "tiou_50"


@pytest.mark.parametrize("options", [{"threshold": 2}, {"frame": "pixel"}])
def test_a_wrong_option_raises_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SpanReward(**options)


@given(st.text(alphabet="[]{},:.\"0123456789 -~tostartend'\ud800\x00", max_size=200) | st.text(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_text_scores(text):
    assert 0 <= score(text) <= 1


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1:",
        "1 to ",
        "1 ",
        "1:1-1:1 ",
        "[1,",
        "1 -",
        "1 - 1 - 1 frames ",
        "1, ",
        '{"start":1,"end":2}',
        "1h1m1s",
        "between 1 ",
        "1s ends ",
    ],
)
def test_a_megabyte_of_hostile_text_costs_what_its_length_says(unit, linear):
    assert 0 <= linear(score, unit * (1_000_000 // len(unit))) <= 0.5


def test_times_beyond_a_float_earn_nothing_and_do_not_warn():
    with np.errstate(all="raise"):
        assert score("[[1e400, 1e401], [-1e308, 1e308]]") == 0
        assert score("[[NaN, 15], [10, Infinity]]") == 0
