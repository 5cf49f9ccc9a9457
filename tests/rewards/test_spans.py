import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_onevision.rewards.boxes import box_iou
from trl_onevision.rewards.spans import SPANS, SpanReward, span_iou, span_reward

GOLD = '{"start": 10, "end": 20}'


def score(answer, gold=GOLD, reward=span_reward, **columns):
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["span"], **columns)
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"start": 10, "end": 20.5}', [(10, 20.5)]),
        ('{"start_time": "00:10", "end_time": "01:00:20.5"}', [(10, 3620.5)]),
        ('```json\n[{"span": [1, 2]}, {"timestamps": ["0:03", "0:04"]}]\n```', [(1, 2), (3, 4)]),
        ("[[1, 2], [3, 4]]", [(1, 2), (3, 4)]),
        ("from 10 to 20 seconds", [(10, 20)]),
        ("10.0s - 20.5s", [(10, 20.5)]),
        ("between 3 seconds and 5 seconds", [(3, 5)]),
        ("00:10–00:20; 1:00 ~ 1:30", [(10, 20), (60, 90)]),
        ("It starts at 12.5s and ends at 20.3s.", [(12.5, 20.3)]),
        ("The event begins at 12.5 seconds and it ends at 20.3 seconds", [(12.5, 20.3)]),
        ("starting at 0:10, ending at 0:20", [(10, 20)]),
        ("Start time: 12.5 s; End time: 20.3 s", [(12.5, 20.3)]),
        ("It lasts from 10s until 20s", [(10, 20)]),
        ("<12.5 seconds> to <20.3 seconds>", [(12.5, 20.3)]),
        ("12.5s → 20.3s", [(12.5, 20.3)]),
        ("12.5秒到20.3秒", [(12.5, 20.3)]),
        ("从第12.5秒开始，到第20.3秒结束", [(12.5, 20.3)]),
        ("开始于12.5秒，结束于20.3秒", [(12.5, 20.3)]),
        ("1分20秒至2分钟", [(80, 120)]),
        ("1 minute 5 seconds to 1m20s", [(65, 80)]),
        ("1h to 1 hour 2 minutes 3 seconds", [(3600, 3723)]),
        ('{"start_time": "12.5s", "end_time": "20.3 seconds"}', [(12.5, 20.3)]),
        ('["12.5s", "20.3s"]', [(12.5, 20.3)]),
        ('{"timestamp": "00:10 - 00:20"}', [(10, 20)]),
        ('["10s - 20s", "30s - 40s"]', [(10, 20), (30, 40)]),
        ('{"begin": 10, "end": 20}', [(10, 20)]),
        ("It starts at 10s and lasts 20s", []),
        ("at 10 and 20 seconds", []),
        ("not from 10 to 20, from 30 to 40", [(30, 40)]),
        ("10 to 20 is wrong", []),
        ("10s - 20s or 30s - 40s", []),
        ("10秒到20秒或者30秒到40秒", []),
        ("从3秒", []),
        ("at 10", []),
        ('{"start": "soon", "end": 3}', []),
        ("10 - 20 - 30", []),
        ("10, 20, 30", []),
        ("[10, 20, 30]", []),
        ("10, 20, 30, 40, 50", []),
        ("10, 20, 30, 40", [(10, 20), (30, 40)]),
        ("10 to 20, 30 to 40", [(10, 20), (30, 40)]),
        ('{"time": "10 to 20 to 30"}', []),
        ("- 10 - 20\n- 30 - 40", [(10, 20), (30, 40)]),
        ("10 to 20 minutes", [(600, 1200)]),
        ("from 1 - 2 h", [(3600, 7200)]),
        ("10 to 1 minute 20 seconds", [(10, 80)]),
        ("from 10 to 20 frames", []),
        ("frames 10 to 20", []),
        ("10 to 20ms", []),
        ("10 to 20%", []),
        ("第10到20帧", []),
        ("", []),
    ],
)
def test_reads_spans(text, expected):
    assert [span.numbers for span in SPANS.read(text)] == expected


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
