import concurrent.futures
import io
import itertools
import json
import logging
import math
import pickle
import zlib
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trl_onevision.answers.json_text import MAX_ITEMS, MAX_VALUES, collect
from trl_onevision.rewards.boxes import (
    DetectionReward,
    IoUReward,
    average_precision,
    box_giou,
    box_iou,
    detection_reward,
    f_beta,
    iou_reward,
    match,
    to_xyxy,
)

ONE = "[[10, 20, 30, 40]]"
CAT_AND_DOG = json.dumps(
    [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 0, 30, 10], "label": "dog"}],
)


def score(answer, gold=ONE, reward=iou_reward, **columns):
    (value,) = reward([[{"role": "assistant", "content": answer}]], solution=[gold], task=["boxes"], **columns)
    return value


def test_a_gold_object_may_hold_several_boxes_and_scores_itself():
    gold = '[{"label": "pit", "bbox_2d": [[0, 0, 9, 9], [20, 20, 30, 30]]}, {"label": "rim", "bbox_2d": [1, 1, 2, 2]}]'
    assert score(gold, gold, IoUReward(labels=True)) == score(gold, gold, detection_reward) == 1
    assert score(gold.replace("pit", "rim"), gold, IoUReward(labels=True)) == pytest.approx(1 / 3)


# IoU

boxes = st.tuples(*[st.floats(-1000, 1000)] * 2, *[st.floats(0.01, 1000)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@pytest.mark.parametrize("ours, theirs", [(box_iou, torchvision.ops.box_iou), (box_giou, None)])
def test_agrees_with_torchvision_on_random_boxes(ours, theirs):
    theirs = theirs or torchvision.ops.generalized_box_iou
    generator = np.random.default_rng(0)
    low = generator.uniform(-100, 100, (300, 2))
    a = np.hstack([low, low + generator.uniform(0.1, 150, (300, 2))])
    b = a[generator.permutation(300)] + generator.normal(0, 5, (300, 1))
    np.testing.assert_allclose(ours(a, b), theirs(torch.tensor(a), torch.tensor(b)).numpy(), atol=1e-6)


@given(boxes, boxes)
@settings(max_examples=200, deadline=None)
def test_iou_is_symmetric_bounded_and_one_on_itself(a, b):
    assert box_iou([a], [b]) == box_iou([b], [a])
    assert 0 <= box_iou([a], [b]).item() <= 1
    assert box_iou([a], [a]).item() == 1
    assert -1 <= box_giou([a], [b]).item() <= box_iou([a], [b]).item() + 1e-9


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 0, 0),
        (5, 5, 5, 5),
        (0, 0, math.inf, 10),
        (math.nan, 0, 10, 10),
        (0, 0, 1e308, 1e308),
        (0, 0, 5e-324, 1e-9),
    ],
)
def test_a_box_without_an_inside_overlaps_nothing(box):
    assert box_iou([box], [(0, 0, 10, 10)]) == 0
    assert box_giou([box], [(0, 0, 10, 10)]) == -1


def test_box_formats():
    expected = [[10, 20, 40, 60]]
    assert to_xyxy([[10, 20, 30, 40]], "xywh").tolist() == expected
    assert to_xyxy([[25, 40, 30, 40]], "cxcywh").tolist() == expected
    assert to_xyxy([[20, 10, 60, 40]], "yxyx").tolist() == expected


# The score


def test_copies_of_one_box_pay_once_and_a_missing_one_costs():
    """Rex-Omni's reward gives ten copies of a box the same precision as one."""
    one = [10, 20, 30, 40]
    assert score(json.dumps([one])) == 1
    assert score(json.dumps([one] * 10)) == pytest.approx(0.1)
    assert score(json.dumps([one]), gold=json.dumps([one, [50, 50, 60, 60]])) == 0.5


def test_pairs_for_the_best_sum_and_not_greedily():
    """VLM-R1 pairs greedily: the first answer takes the gold that only the second could have."""
    gold = [[0, 0, 10, 10], [0, 0, 10, 4]]
    answer = [[0, 0, 10, 6], [0, 0, 10, 10]]
    best = max(
        sum(box_iou([a], [g]).item() for a, g in zip(answer, order, strict=True))
        for order in itertools.permutations(gold)
    )
    assert score(json.dumps(answer), gold=json.dumps(gold)) == pytest.approx(best / 2)


@given(st.lists(boxes, min_size=1, max_size=5), st.lists(boxes, min_size=1, max_size=5), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_boxes_does_not_matter(answer, gold, random):
    shuffled = random.sample(answer, len(answer))
    a, b = score(json.dumps(answer), json.dumps(gold)), score(json.dumps(shuffled), json.dumps(gold))
    assert a == pytest.approx(b, abs=1e-9)
    assert 0 <= a <= 1


def test_matching_finds_the_optimum_of_every_pairing():
    generator = np.random.default_rng(1)
    for _ in range(20):
        similarity = generator.random((4, 4))
        best = max(sum(similarity[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(4)))
        assert match(similarity).sum() == pytest.approx(best)


def test_threshold_is_the_released_code_of_r1_onevision():
    at_half = IoUReward(threshold=0.5)
    assert score("[10, 20, 30, 40]", reward=at_half) == 1
    assert score("[10, 20, 30, 30]", reward=at_half) == 1  # exactly half counts
    assert score("[10, 20, 30, 29]", reward=at_half) == 0


def test_threshold_pairs_for_the_most_hits():
    """The pairing with the largest IoU sum has one hit here, another has two."""
    gold = [[0, 0, 10, 10], [0, 0, 10, 5.5]]
    answer = [[0, 0, 10, 6], [0, 0, 10, 3.5]]
    reward = IoUReward(threshold=0.59)
    assert score(json.dumps(answer), gold=json.dumps(gold), reward=reward) == 1


def test_giou_tells_near_from_far():
    reward = IoUReward(giou=True)
    near, far = (score(box, reward=reward) for box in ("[31, 20, 51, 40]", "[900, 20, 920, 40]"))
    assert score("[10, 20, 30, 40]", reward=reward) == 1
    assert 0 < far < near < 0.5
    assert score("[30, 40, 10, 20]", reward=reward) == 0


def test_giou_pays_half_for_a_giant_box_as_its_docstring_says():
    (giant,) = IoUReward(giou=True)(["[-1000000, -1000000, 1000000, 1000000]"], solution=["[[0, 0, 10, 10]]"])
    assert giant == pytest.approx(0.5, abs=1e-3)


def test_labels_pair_only_boxes_of_one_name():
    swapped = CAT_AND_DOG.replace("cat", "?").replace("dog", "CAT").replace("?", " dog")
    reward = IoUReward(labels=True)
    assert score(CAT_AND_DOG, CAT_AND_DOG, reward) == 1
    assert score(swapped, CAT_AND_DOG, reward) == 0
    assert score(swapped, CAT_AND_DOG) == 1
    assert score("[[0, 0, 10, 10], [20, 0, 30, 10]]", CAT_AND_DOG, reward) == 0
    assert score(swapped, "[[0, 0, 10, 10], [20, 0, 30, 10]]", reward) == 1


# What peers get wrong


@pytest.mark.parametrize("answer", ["[10.0, 20.0, 30.0, 40.0]", "[ 10, 20, 30, 40]", "(10,20),(30,40)"])
def test_vlm_r1_reads_integers_in_brackets_only(answer):
    assert score(f"<think>…</think><answer>{answer}</answer>") == 1


def test_vlm_r1_cannot_read_a_negative_coordinate():
    assert score("[-5, -5, 5, 5]", gold="[-5, -5, 5, 5]") == 1


def test_vlm_r1_pays_no_overlap_of_a_pixel():
    assert score("[0, 0, 1, 1]", gold="[0, 0, 1, 1]") == 1
    assert score("[0, 0, 1, 10]", gold="[0, 0, 10, 10]") == pytest.approx(0.1)


def test_vlm_r1_divides_by_an_empty_union():
    assert score("[10, 20, 10, 20]") == 0


def test_vlm_r1_takes_the_first_answer_and_lets_a_box_outside_it_pass():
    assert score("<answer>[0, 0, 1, 1]</answer> <answer>[10, 20, 30, 40]</answer>") == 1
    assert score("[10, 20, 30, 40] <answer>none</answer>") == 0
    assert score("<think>[10, 20, 30, 40]</think><answer>[0, 0, 1, 1]</answer>") == 0


def test_vlm_r1_pays_a_third_when_every_label_is_wrong():
    wrong = CAT_AND_DOG.replace("cat", "car").replace("dog", "bus")
    assert score(wrong, CAT_AND_DOG, detection_reward) == 0


def test_vlm_r1_raises_on_an_answer_without_a_label():
    assert score("[[0, 0, 10, 10]]", CAT_AND_DOG, detection_reward) == 0
    assert score('{"bbox_2d": [0, 0, 10, 10], "label": null}', CAT_AND_DOG, detection_reward) == 0


@pytest.mark.parametrize("reward", [detection_reward, DetectionReward(metric="ap")])
def test_vlm_r1_drops_labels_that_the_gold_lacks(reward):
    invented = json.dumps([*json.loads(CAT_AND_DOG), {"bbox_2d": [50, 50, 60, 60], "label": "unicorn"}])
    assert score(invented, CAT_AND_DOG, reward) < score(CAT_AND_DOG, CAT_AND_DOG, reward) == 1


@pytest.mark.parametrize("reward", [iou_reward, detection_reward, DetectionReward(metric="ap")])
def test_backgrounds_without_an_object_can_be_golds(reward):
    """VLM-R1 users ask for negatives; its own "None" == "None" pays 1 for a word in the thinking too."""
    for nothing in (
        "[]",
        "There are none: []",
        '{"boxes": []}',
        "<answer>None</answer>",
        "```json\n[]\n```",
        "null",
        "none.",
        "['No Objects']",
        '["none"]',
        '{"objects": null}',
        "No objects found.",
        "There are no visible objects",
        "没有目标",
    ):
        assert score(nothing, "[]", reward) == 1
        assert score(nothing, ONE, reward) == 0
    for something in (
        ONE,
        "",
        "I cannot tell",
        "<think>none</think>",
        "['No Objects', 1]",
        "No objects but one",
        '["cat"]',
    ):
        assert score(something, "[]", reward) == 0


def test_ms_swift_and_vlm_r1_leave_the_frame_to_luck():
    """A box of the right shape in the wrong frame must not be silently rescued, nor a right one lost."""
    image = Image.new("RGB", (640, 480))
    gold = "[64, 48, 320, 240]"
    assert score("[100, 100, 500, 500]", gold, IoUReward(frame="norm1000"), images=[[image]]) == pytest.approx(1)
    assert score("[0.1, 0.1, 0.5, 0.5]", gold, IoUReward(frame="norm1"), images=[[image]]) == pytest.approx(1)
    assert score("[100, 100, 500, 500]", gold, IoUReward(frame="pixel"), images=[[image]]) < 0.5
    gemini = IoUReward(frame="norm1000", box_format="yxyx", gold_frame="norm1000")
    assert score("[48, 64, 240, 320]", gold, gemini) == 1


def test_a_value_beyond_the_frame_is_not_clipped():
    """Qwen's 0 to 1000 frame sometimes overshoots: the part outside the image costs what it covers."""
    image = Image.new("RGB", (100, 100))
    reward = IoUReward(frame="norm1000")
    assert score("[0, 0, 2000, 1000]", "[0, 0, 100, 100]", reward, images=[[image]]) == pytest.approx(0.5)


# Detection


def test_f_beta_weighs_recall_by_beta():
    half_found, one_extra = np.array([[True, False]]), np.array([[True], [False]])
    assert f_beta(half_found) == f_beta(one_extra) == pytest.approx(2 / 3)
    assert f_beta(half_found, beta=2) == pytest.approx(5 / 9)
    assert f_beta(one_extra, beta=2) == pytest.approx(5 / 6)


def test_average_precision_by_hand():
    """Ranks hit, miss, hit against three golds: precision 1 and 2/3 at the hits, so (1 + 2/3) / 3."""
    overlap = np.array([[0.9, 0, 0], [0.1, 0.2, 0], [0, 0.8, 0]])
    assert average_precision(overlap, 0.5) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(overlap, 0.85) == pytest.approx(1 / 3)
    # Miss, hit, hit: precision 1/2 and then 2/3, which interpolation carries back to the first hit.
    assert average_precision(overlap[[1, 0, 2]], 0.5) == pytest.approx(2 / 3 * 2 / 3)


def test_average_precision_ranks_by_stated_confidence():
    """Rex-Omni's mAP takes every answer for equally sure, so the ranking is left to chance."""
    reward = DetectionReward(metric="ap")
    wrong, right = [50, 50, 60, 60], [10, 20, 30, 40]
    sure = json.dumps([{"bbox_2d": wrong, "score": 0.1}, {"bbox_2d": right, "score": 0.9}])
    unsure = json.dumps([{"bbox_2d": wrong, "score": 0.9}, {"bbox_2d": right, "score": 0.1}])
    assert score(sure, reward=reward) == pytest.approx(0.5)
    assert score(unsure, reward=reward) == pytest.approx(0.25)
    assert score(json.dumps([right, wrong]), reward=reward) == pytest.approx(0.5)


@pytest.mark.parametrize(("metric", "expected"), [("f_beta", 2 / 11), ("ap", 0.1)])
def test_duplicates_are_errors_in_both_metrics(metric, expected):
    answer = json.dumps([[10, 20, 30, 40]] * 10)
    assert score(answer, reward=DetectionReward(metric=metric)) == pytest.approx(expected)


def test_several_thresholds_average():
    reward = DetectionReward(thresholds=(0.4, 0.6))
    assert score("[10, 20, 30, 30]", reward=reward) == 0.5


# Rows


def test_rows_of_another_task_are_left_to_others():
    completions = [ONE, ONE, ONE]
    assert iou_reward(completions, solution=[ONE, "42", ONE], task=["boxes", "math", "text"]) == [1, None, None]


def test_without_a_task_the_gold_decides():
    golds = [ONE, "42", "B", "[1, 2]", "[]", None, '[{"bbox_2d": [10, 20, 30, 40]}]']
    assert iou_reward([ONE] * 7, solution=golds) == [1, None, None, None, None, None, 1]
    assert iou_reward([ONE], solution=[ONE], task=[None]) == [1]


@pytest.mark.parametrize("gold", ["not json", "[[1, 2, 3, 4], 7]", "[30, 40, 10, 20]", "[[1, 1, 1, 5]]", None, "{}"])
def test_an_unusable_gold_is_reported_once_with_its_row(gold, caplog, request):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert score(ONE, gold, id=[request.node.name]) is None
    assert len(caplog.records) == 1
    assert repr(request.node.name) in caplog.text


def test_a_relative_frame_without_an_image_size_is_reported(caplog):
    reward = IoUReward(frame="norm1000")
    with caplog.at_level(logging.WARNING):
        assert score(ONE, reward=reward, id=["no-image"], images=[[]]) is None
        assert score(ONE, reward=reward, id=["broken"], images=[[{"bytes": b"not an image", "path": None}]]) is None
    assert "no-image" in caplog.text and "broken" in caplog.text
    assert score(ONE, images=[[]]) == 1


def test_image_sizes_come_in_every_form_of_an_images_column(tmp_path):
    image = Image.new("RGB", (200, 100))
    image.save(tmp_path / "image.png")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    reward = IoUReward(frame="norm1")
    forms = [image, {"bytes": buffer.getvalue(), "path": None}, {"bytes": None, "path": str(tmp_path / "image.png")}]
    for form in forms:
        assert score("[0.5, 0, 1, 1]", "[100, 0, 200, 100]", reward, images=[[form]]) == 1
        assert score("[0.5, 0, 1, 1]", "[100, 0, 200, 100]", reward, image=[form]) == 1


@pytest.mark.parametrize("image", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "bomb"])
def test_an_image_that_cannot_be_read_has_no_size(image):
    if image == "bomb":  # the header of an image of 4 G pixels
        header = b"IHDR" + (1 << 16).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        image = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    assert score("[0, 0, 1, 1]", "[0, 0, 9, 9]", IoUReward(frame="norm1"), images=[[{"bytes": image}]]) is None


def test_thinking_that_the_template_opened_and_a_cut_off_left_open_earns_nothing():
    assert score(ONE, reward=IoUReward(opened=True)) == 0
    assert score(f"so</think>{ONE}", reward=IoUReward(opened=True)) == 1


def test_logs_the_share_of_answers_without_a_box():
    metrics = {}
    iou_reward([ONE, "?", ONE], solution=[ONE, ONE, "5"], log_metric=metrics.__setitem__)
    assert metrics == {"iou_reward/unread": 0.5}


def test_a_gold_in_answer_tags_and_a_decoded_gold_read():
    assert score(ONE, f"<answer> {ONE} </answer>") == 1
    assert score(ONE, [{"bbox_2d": [10, 20, 30, 40]}]) == 1


@pytest.mark.parametrize("reward", [IoUReward(threshold=0.3, name="iou_30"), DetectionReward(metric="ap")])
def test_pickles(reward):
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.__name__ == reward.__name__
    assert score(CAT_AND_DOG, CAT_AND_DOG, copy) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"frame": "pixels"},
        {"box_format": "xxyy"},
        {"threshold": 0},
        {"threshold": 50},
        {"giou": True, "threshold": 0.5},
    ],
)
def test_a_wrong_option_raises_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        IoUReward(**options)


# Hostile text

PIECES = ["<box>", "</box>", "<ref>a</ref>", "<loc_1>", "<loc0001>", "<|box_start|>", "not", "or", "x1=1", "[1,2,3,4]"]
BOX_SOUP = st.text(alphabet="[](){},:.\"0123456789eE+-;` nbox_2d'\u0661\ud800\x00", max_size=200) | st.lists(
    st.sampled_from(PIECES) | st.text(alphabet="[](),;<>/ 19.", max_size=9), max_size=30
).map("".join)


@given(BOX_SOUP | st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_scores(text):
    for reward in (iou_reward, detection_reward, IoUReward(giou=True, frame="norm1", gold_frame="norm1000")):
        assert 0 <= score(text, reward=reward) <= 1


MEGABYTE = 1_000_000
HOSTILE = {
    "brackets": "[" * MEGABYTE,
    "braces": "{" * MEGABYTE,
    "balanced": "[" * (MEGABYTE // 2) + "]" * (MEGABYTE // 2),
    "objects": '{"a":' * (MEGABYTE // 5),
    "empty objects": "{}" * (MEGABYTE // 2),
    "almost a box": "[1,1,1,1" * (MEGABYTE // 8),
    "almost a pair": "(1,1)," * (MEGABYTE // 6),
    "digits": "[" + "1" * MEGABYTE,
    "digits in JSON": "[1, 2, 3, 0." + "1" * MEGABYTE + "]",
    "exponents": "[1e9999, 1e9999, 1e9999, 1e9999]" * (MEGABYTE // 32),
    "spaces": "[ 1" + " " * MEGABYTE,
    "spaces in brackets": ("[" + " " * 99) * (MEGABYTE // 100),
    "quotes": "{'" * (MEGABYTE // 2),
    "fences": "```" * (MEGABYTE // 3),
    "boxes as JSON": json.dumps([[10, 20, 30, 40]] * (MEGABYTE // 18)),
    "boxes as text": "[10, 20, 30, 40] " * (MEGABYTE // 17),
    "boxes in tags": "<box>10 20 30 40</box>" * (MEGABYTE // 22),
    "names in tags": "<ref>" * (MEGABYTE // 5),
    "almost a tag": "<box 1 " * (MEGABYTE // 7),
    "a tag of numbers": "<box>" + "1 " * (MEGABYTE // 2),
    "location tokens": "<loc_1>" * (MEGABYTE // 7),
    "attributes": "<points " + 'x1="1" ' * (MEGABYTE // 7),
    "denials": "not [1, 1, 2, 2] " * (MEGABYTE // 17),
    "words of denials": "not " * (MEGABYTE // 4) + "[1, 1, 2, 2]",
    "choices": "[1, 1, 2, 2] or" * (MEGABYTE // 15),
    "quoted as Python does": "['" * (MEGABYTE // 2),
    "numbers alone": "1, " * (MEGABYTE // 3),
    "corners in words": "(1, 1) to the bottom right " * (MEGABYTE // 27),
    "names of corners": "x1=1, y1=1, x2=1," * (MEGABYTE // 17),
    "a path of corners": "(1, 1), " * (MEGABYTE // 8),
    "labelled boxes": json.dumps([{"bbox_2d": [10, 20, 30, 40], "label": "x" * 40}] * (MEGABYTE // 85)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_the_worst_text_costs_what_its_length_says(text, linear):
    values = [linear(partial(score, reward=reward), text) for reward in (iou_reward, detection_reward)]
    assert all(0 <= value <= 1 / MAX_ITEMS * 2 for value in values)


def test_of_hollow_json_so_many_values_are_looked_at():
    seen = []
    assert collect([{"a": 1}] * 100_000, lambda value, label: seen.append(value) or []) == []
    assert len(seen) == MAX_VALUES
    assert score(json.dumps([{"a": 1}] * 100_000)) == 0


def test_many_hostile_completions_in_one_call_cost_what_their_number_says_on_any_thread(linear):
    completions = [text[:10_000] for text in itertools.islice(itertools.cycle(HOSTILE.values()), 400)]

    def pay(some):
        return iou_reward(some, solution=[ONE] * len(some), task=["boxes"] * len(some))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        rewards = pool.submit(linear, pay, completions).result()
    assert all(0 <= reward < 0.01 for reward in rewards)


def test_a_flood_of_different_boxes_is_matched_in_time_that_grows_with_it(linear):
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 500, (20_000, 2))
    flood = np.hstack([low, low + 50]).round(1).tolist()
    gold = json.dumps(np.hstack([low[:300], low[:300] + 50]).tolist())
    assert linear(lambda boxes: score(json.dumps(boxes), gold), flood) <= 0.3
