import json
import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from trl_onevision.rewards.boxes import box_iou
from trl_onevision.rewards.masks import MAX_CORNERS, MaskReward, mask_reward, read_masks

IMAGE = Image.new("RGB", (100, 80))
SQUARE = '[{"polygon": [[10, 10], [30, 10], [30, 30], [10, 30]], "label": "tile"}]'


def score(answer, gold=SQUARE, reward=mask_reward, **columns):
    answer, gold = (value if isinstance(value, str) else json.dumps(value) for value in (answer, gold))
    columns = {"images": [[IMAGE]]} | columns
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["masks"], **columns)
    return value


def rectangle(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


@pytest.mark.parametrize(
    "text",
    [
        SQUARE,
        "[10, 10, 30, 10, 30, 30, 10, 30]",
        "[[10, 10], [30, 10], [30, 30], [10, 30]]",
        '```json\n{"segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}\n```',
        "{'points': [[10, 10], [30, 10], [30, 30], [10, 30]]}",
    ],
)
def test_reads_the_ways_to_write_a_polygon(text):
    assert len(read_masks(text)) == 1
    assert score(text) == 1


@pytest.mark.parametrize("text", ["", "none", "[1, 2, 3, 4]", "[[1, 2], [3, 4]]", "[1, 2, 3, 4, 5]", '{"polygon": 3}'])
def test_what_is_no_polygon_earns_nothing(text):
    assert read_masks(text) == []
    assert score(text) == 0


@given(*[st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 40)] * 2)] * 2)
@settings(max_examples=100, deadline=None)
def test_a_rectangle_scores_its_box_iou(a, b):
    a, b = ((x, y, x + width, y + height) for x, y, width, height in (a, b))
    assert score([rectangle(*a)], [rectangle(*b)]) == pytest.approx(box_iou([a], [b]).item(), abs=1e-9)


def test_run_length_golds_plain_and_compressed():
    pixels = np.zeros((80, 100), dtype=np.uint8)
    pixels[10:30, 10:30] = 1
    compressed = coco.encode(np.asfortranarray(pixels))
    compressed["counts"] = compressed["counts"].decode()
    flat = pixels.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    plain = {"size": [80, 100], "counts": np.diff(edges).tolist()}
    for gold in ([{"segmentation": compressed}], [{"segmentation": plain}], compressed):
        assert score(SQUARE, gold) == 1
        assert score(SQUARE, gold, images=[[]]) == 1
        assert score([rectangle(10, 10, 30, 20)], gold) == pytest.approx(0.5)


@pytest.mark.parametrize("corner", ["NaN", "1e309", "-Infinity", "1" + "0" * 400])
def test_a_corner_that_is_not_finite_makes_a_mask_that_covers_nothing(corner, caplog):
    broken = f"[[[{corner}, 10], [30, 10], [30, 30], [10, 30]]]"
    assert score(broken) == 0
    assert score(f"[{broken[1:-1]}, {SQUARE[1:-1]}]") == 0.5, "it counts as answered"
    assert score(SQUARE, broken, id=[corner]) is None and "not finite" in caplog.text


def test_a_run_length_code_of_another_size_than_the_image_is_reported(caplog):
    gold = {"size": [40, 50], "counts": [0, 2000]}
    assert score("[0, 0, 50, 0, 50, 40, 0, 40]", gold, images=[[]]) == 1
    assert score("[0, 0, 50, 0, 50, 40, 0, 40]", gold, id=["resized"]) is None and "several sizes" in caplog.text


def test_parts_of_one_mask_are_one():
    gold = [{"segmentation": [rectangle(0, 0, 10, 10), rectangle(50, 50, 60, 60)]}]
    assert score(gold, gold) == 1
    assert score([rectangle(0, 0, 10, 10)], gold) == pytest.approx(0.5)


def test_several_masks_are_paired_one_to_one():
    left, right = rectangle(0, 0, 10, 10), rectangle(50, 50, 60, 60)
    assert score([right, left], [left, right]) == 1
    assert score([left] * 10, [left]) == pytest.approx(0.1)
    assert score([left], [left, right]) == 0.5


def test_threshold():
    reward = MaskReward(threshold=0.5)
    assert score([rectangle(10, 10, 30, 20)], reward=reward) == 1
    assert score([rectangle(10, 10, 30, 19)], reward=reward) == 0


def test_relative_frames_use_the_image_size():
    square = [rectangle(0.1, 0.125, 0.3, 0.375)]
    assert score(square, reward=MaskReward(frame="norm1")) == 1
    assert score(square, square, reward=MaskReward(frame="norm1", gold_frame="norm1")) == 1
    assert score([rectangle(100, 125, 300, 375)], reward=MaskReward(frame="norm1000")) == 1


def test_nothing_to_mask():
    assert score("[]", "[]") == 1
    assert score(SQUARE, "[]") == 0


@pytest.mark.parametrize(
    "gold",
    [
        "a leaf",
        [[1, 2, 3, 4]],
        [rectangle(5, 5, 5, 5)],
        {"size": [4, 4], "counts": [3, 3]},
        {"size": [4, 4], "counts": [20]},
        {"size": [4, 4], "counts": "zzz"},
        {"size": [4, 4], "counts": "\x00"},
        {"size": [4, 4], "counts": "oooo0oooo0"},
        {"size": [4, 4], "counts": "0Z1"},
        {"size": [10**9, 10**9], "counts": "0"},
        {"size": "4x4", "counts": [16]},
        {"size": [4, 4], "counts": None},
    ],
)
def test_an_unusable_gold_is_reported_once_with_its_row(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        assert [score(SQUARE, gold, id=[request.node.name]) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert repr(request.node.name) in caplog.text


def test_a_polygon_without_an_image_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        assert score(SQUARE, images=[[]], id=["leaf-3"]) is None
    assert "leaf-3" in caplog.text


def test_without_a_task_the_gold_decides():
    columns = {"images": [[IMAGE]] * 3}
    assert mask_reward([SQUARE] * 3, solution=[SQUARE, "42", "[1, 2, 3, 4]"], **columns) == [1, None, None]


def test_pickles():
    assert pickle.loads(pickle.dumps(MaskReward(threshold=0.5, name="mask_50"))).__name__ == "mask_50"


@pytest.mark.parametrize("options", [{"threshold": 0}, {"frame": "mask"}])
def test_a_wrong_option_raises_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MaskReward(**options)


def test_the_module_loads_without_the_extra_and_a_reward_says_what_to_install():
    code = f"""
import sys
sys.modules["pycocotools"] = None
from PIL import Image
from trl_onevision.rewards.masks import mask_reward
try:
    mask_reward(["x"], solution=[{SQUARE!r}], task=["masks"], images=[[Image.new("L", (9, 9))]])
except ImportError as error:
    print(error)
assert mask_reward(["x"], solution=["B"], task=["choice"]) == [None]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "trl-onevision[masks]"' in done.stdout


# Hostile polygons: the rasteriser walks an outline pixel by pixel


@pytest.mark.parametrize("far", ["1e300", "-1e300", "1e999", "NaN", "1" * 400, "2147483648"])
def test_a_corner_far_outside_is_clamped_and_not_walked_to(far, linear):
    near, beyond = (f"[[0, 0], [{corner}, 0], [{corner}, {corner}], [0, 50]]" for corner in (90, far))
    assert 0 <= linear(lambda texts: score(texts[-1]), [near, near, near, beyond]) <= 1


def test_a_corner_outside_moves_to_the_edge():
    assert score([[0, 0, 1000, 0, 0, 80]], [[0, 0, 100, 0, 0, 80]]) == 1


def test_corners_beyond_the_budget_count_as_answered_and_cover_nothing():
    zigzag = [[100 * (corner % 2), corner % 80] for corner in range(MAX_CORNERS + 1)]
    assert score([zigzag, rectangle(10, 10, 30, 30)]) == 0
    assert score([rectangle(10, 10, 30, 30), zigzag]) == 0.5


@pytest.mark.parametrize(
    "unit", ["[1,2,3,4,5,6],", "[[1,2],[3,4],[5,60]],", "[", "[[1,2],", '{"polygon":[1,2,3,4,5,6]}']
)
def test_a_megabyte_of_hostile_text_costs_what_its_length_says(unit, linear):
    text = unit * (1_000_000 // len(unit))
    assert 0 <= linear(score, text) <= 0.01
    assert 0 <= linear(lambda part: score(f"[{part.rstrip(',')}]"), text) <= 0.01


def test_the_worst_polygon_on_a_large_image_costs_what_its_corners_say(linear):
    zigzag = [[3000 * (corner % 2), (corner * 7919) % 3000] for corner in range(MAX_CORNERS)]
    assert linear(lambda corners: score([corners], images=[[Image.new("1", (3000, 3000))]]), zigzag) < 0.1


values = st.recursive(
    st.none() | st.floats() | st.integers() | st.lists(st.floats(-200, 200), min_size=6, max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["polygon", "counts"]), inner),
    max_leaves=8,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_any_json_scores(value):
    assert 0 <= score(value) <= 1
