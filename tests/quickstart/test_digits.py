"""The quickstart's rows: real scans, exact boxes, golds that pay in full, splits that share nothing."""

import json

import numpy as np
import pytest

from trl_onevision.data import validate_row
from trl_onevision.quickstart.digits import INK, SPLITS, TILE, rows, scans
from trl_onevision.rewards import accuracy_reward, format_reward, iou_reward

COUNT = 60


@pytest.fixture(scope="module", params=list(SPLITS))
def drawn(request):
    return list(rows(request.param, COUNT))


def test_splits_share_no_scan_and_leave_none_out():
    from sklearn.datasets import load_digits

    tiles = np.concatenate([scans(split)[0] for split in SPLITS])
    assert len(tiles) == len(load_digits().images)
    # Two writers can write the same 64 pixels; more than a handful would be a scan in two splits.
    assert len(np.unique(tiles.reshape(len(tiles), -1), axis=0)) > len(tiles) - 5


def test_a_scan_stands_on_one_visual_token(drawn):
    for row in drawn:
        if row["task"] == "boxes":
            ((x1, y1, x2, y2),) = (gold["bbox_2d"] for gold in json.loads(row["solution"]))
            assert (x1 // TILE, y1 // TILE) == ((x2 - 1) // TILE, (y2 - 1) // TILE)


def test_worked_answers_show_two_scans_of_each_digit():
    assert np.bincount(scans("sft")[1]).tolist() == [2] * 10


def test_rows_keep_the_contract(drawn):
    for row in drawn:
        validate_row(row, "grpo")
        validate_row(row, "sft")


def test_every_task_and_every_count_of_digits_occurs(drawn):
    assert {row["task"] for row in drawn} == {"number", "choice", "boxes"}
    assert {len(row["solution"]) for row in drawn if row["task"] == "number"} == {1, 2, 3}


def test_the_worked_completion_earns_every_reward_in_full(drawn):
    columns = {name: [row[name] for row in drawn] for name in ("solution", "task", "choices", "images", "id")}
    completions = [row["completion"] for row in drawn]
    accuracy = accuracy_reward(completions=completions, **columns)
    overlap = iou_reward(completions=completions, **columns)
    assert format_reward(completions=completions, **columns) == [1.0] * COUNT
    for row, right, box in zip(drawn, accuracy, overlap, strict=True):
        assert (right, box) == ((None, 1.0) if row["task"] == "boxes" else (1.0, None))


def test_boxes_enclose_ink_and_touch_it_on_every_side(drawn):
    for row in drawn:
        if row["task"] != "boxes":
            continue
        ink = 255 - np.asarray(row["images"][0].convert("L"))
        for gold in json.loads(row["solution"]):
            x1, y1, x2, y2 = gold["bbox_2d"]
            inside = ink[y1:y2, x1:x2] >= INK
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_a_number_never_starts_with_zero_unless_it_is_zero(drawn):
    numbers = [row["solution"] for row in drawn if row["task"] == "number"]
    assert all(number == str(int(number)) for number in numbers)


def test_rows_are_the_same_every_time():
    first, second = list(rows("grpo", 6)), list(rows("grpo", 6))
    assert [row["solution"] for row in first] == [row["solution"] for row in second]
    assert all(a["images"][0].tobytes() == b["images"][0].tobytes() for a, b in zip(first, second, strict=True))
