"""Boxes, points and spans as answers write them."""

import pytest

from trl_onevision.answers.places import BOXES, POINTS, Place
from trl_onevision.answers.spans import SPANS


def corners(text):
    return [box.numbers for box in BOXES.read(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"bbox_2d": [10, 20, 30, 40]}', [(10, 20, 30, 40)]),
        ('```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}]\n```', [(10, 20, 30, 40)]),
        ("Sure:\n```\n[[10, 20, 30, 40]]\n```\nDone.", [(10, 20, 30, 40)]),
        ("```json\n[[1, 1, 2, 2]]\n``` no, rather ```json\n[[10, 20, 30, 40]]\n```", [(10, 20, 30, 40)]),
        ('{"objects": {"cats": [[10, 20, 30, 40], [1, 2, 3, 4]]}}', [(10, 20, 30, 40), (1, 2, 3, 4)]),
        ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40}', [(10, 20, 30, 40)]),
        ("[[10, 20], [30, 40]]", [(10, 20, 30, 40)]),
        ("{'bbox_2d': [10, 20, 30, 40], 'label': 'cat'}", [(10, 20, 30, 40)]),
        ('{"bbox_2d": [1, 2, 3, 4]}\n{"bbox_2d": [5, 6, 7, 8]}', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6,', [(1, 2, 3, 4)]),
        ("[{'bbox_2d': [1, 2, 3, 4]},]", [(1, 2, 3, 4)]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a dog that', [(1, 2, 3, 4)]),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4]}', [(1, 2, 3, 4)]),
        ('{"bbox_2d": "[1, 2, 3, 4]"}', [(1, 2, 3, 4)]),
        ("The box is [ 10 , 20 , 30 , 40 ].", [(10, 20, 30, 40)]),
        ("[10.5, -20, .5, 4e1]", [(10.5, -20, 0.5, 40)]),
        ("(10,20),(30,40)", [(10, 20, 30, 40)]),
        ("<|box_start|>(10,20),(30,40)<|box_end|>", [(10, 20, 30, 40)]),
        ("<box>[[10, 20, 30, 40]]</box>", [(10, 20, 30, 40)]),
        ("(10, 20, 30, 40) and [1 2 3 4]", [(10, 20, 30, 40), (1, 2, 3, 4)]),
        ("<box>10 20 30 40</box>", [(10, 20, 30, 40)]),
        ("<bbox>10,20,30,40</bbox>", [(10, 20, 30, 40)]),
        (
            "<box>(10,20),(30,40)</box><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>",
            [(10, 20, 30, 40), (1, 2, 3, 4), (5, 6, 7, 8)],
        ),
        ("<box x1='10' y1=\"20\" x2=30 y2='40'/>", [(10, 20, 30, 40)]),
        ("x1=10, y1=20, x2=30, y2=40", [(10, 20, 30, 40)]),
        ("x_min: 10, y_min: 20, x_max: 30, y_max: 40", [(10, 20, 30, 40)]),
        ('{"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}', [(10, 20, 30, 40)]),
        ('{"left": 10, "top": 20, "right": 30, "bottom": 40}', [(10, 20, 30, 40)]),
        ("10, 20, 30, 40", [(10, 20, 30, 40)]),
        (" 10 20 30 40\n", [(10, 20, 30, 40)]),
        ("the numbers 10, 20, 30, 40", []),
        ("10, 20, 30, 40, 50", []),
        ("（10，20），（30，40）", [(10, 20, 30, 40)]),
        ("From (10, 20) to (30, 40)", [(10, 20, 30, 40)]),
        ("top-left (10, 20), bottom-right (30, 40)", [(10, 20, 30, 40)]),
        ("top left: (10, 20) and the bottom right corner at (30, 40)", [(10, 20, 30, 40)]),
        ("(10, 20) and (30, 40)", []),
        ("<|box_start|>(10,20)<|box_end|>", []),
        ("<box>10 20 30 40", []),
        ("<box>ten</box>", []),
        ("<box>10 20 30 40 50</box>", []),
        ("<box y1='20' x1='10' y2='40' x2='30'/>", [(10, 20, 30, 40)]),
        ("<box x1='10' y1='20' x2='30'/>", []),
        ("(10, 20), (30, 40), (50, 60)", []),
        ("[[10, 20], [30, 40], [50, 60]]", []),
        ("(10, 20), (30, 40), (1, 2), (3, 4)", [(10, 20, 30, 40), (1, 2, 3, 4)]),
        ("[1, 2, 3, 4, 5]", []),
        ("[1, 2, 3]", []),
        ("[true, 2, 3, 4]", []),
        ("[１０, ２０, ３０, ４０]", []),
        ("no box here", []),
        ("", []),
    ],
)
def test_reads_boxes(text, expected):
    assert corners(text) == expected


LABELLED = [
    '{"label": "pit", "bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}',
    '{"pit": [[1, 2, 3, 4], [5, 6, 7, 8]]}',
    "{'pit': [[1, 2, 3, 4], [5, 6, 7, 8]]}",
    '{"pit": [{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]}',
    '{"objects": [{"name": "pit", "instances": [[1, 2, 3, 4], {"box": [5, 6, 7, 8]}]}]}',
    '{"bboxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["pit", "pit"]}',
    "<ref>pit</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>",
    "<ref>pit</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>",
    "<|object_ref_start|>pit<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>",
    "pit<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>",
    "<loc0001><loc0002><loc0003><loc0004> pit ; <loc0005><loc0006><loc0007><loc0008> pit",
]


@pytest.mark.parametrize("text", LABELLED)
def test_every_box_has_the_label_that_stands_over_it(text):
    assert BOXES.read(text) == [Place((1, 2, 3, 4), label="pit"), Place((5, 6, 7, 8), label="pit")]


def test_a_label_of_its_own_goes_before_the_one_over_it():
    text = '{"animals": {"cat": [1, 2, 3, 4], "dogs": [{"bbox": [5, 6, 7, 8], "label": "dog"}]}}'
    assert [box.label for box in BOXES.read(text)] == ["cat", "dog"]
    text = '{"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["cat", "dog", "cow"]}'
    assert {box.label for box in BOXES.read(text)} == {None}, "which of the three are these?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is not at [10, 20, 30, 40].", []),
        ("It isn't the box [10, 20, 30, 40]", []),
        ("The cat cannot be found at (10, 20), (30, 40)", []),
        ('It is not {"bbox_2d": [10, 20, 30, 40]}', []),
        ("Not this one: ```json\n[10, 20, 30, 40]\n```", []),
        ("not <box>10 20 30 40</box>", []),
        ("[10, 20, 30, 40] is wrong", []),
        ("The wrong box is [10, 20, 30, 40]", []),
        ("My first answer, [1, 2, 3, 4], was wrong: [10, 20, 30, 40]", [(1, 2, 3, 4), (10, 20, 30, 40)]),
        ("[1, 2, 3, 4] was wrong: [10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("I cannot find the object: [0, 0, 0, 0]", []),
        ("[10, 20, 30, 40] is not the dog", []),
        ("不是[10, 20, 30, 40]", []),
        ("[10, 20, 30, 40]是错的", []),
        ("It is not [1, 2, 3, 4] but [10, 20, 30, 40].", [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40], not [1, 2, 3, 4]", [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40] instead of [1, 2, 3, 4]", [(10, 20, 30, 40)]),
        ('not {"bbox_2d": [1, 2, 3, 4]} but {"bbox_2d": [10, 20, 30, 40]}', [(10, 20, 30, 40)]),
        ("不是[1, 2, 3, 4]，是[10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40] or [1, 2, 3, 4]", []),
        ("either [10, 20, 30, 40] or maybe [1, 2, 3, 4]", []),
        ("[10, 20, 30, 40]或者[1, 2, 3, 4]", []),
        ('{"bbox_2d": [10, 20, 30, 40]} or {"bbox_2d": [1, 2, 3, 4]}', []),
        ("<box>10 20 30 40</box> or <box>1 2 3 4</box>", []),
        ("I am not sure, but [10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("There is no cat. The dog: [10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("The dog that is not red is at [10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "not a cat"}', [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40] and [1, 2, 3, 4]", [(10, 20, 30, 40), (1, 2, 3, 4)]),
    ],
)
def test_what_the_text_denies_or_leaves_open_is_no_answer(text, expected):
    assert corners(text) == expected


def test_reads_labels_and_scores():
    assert BOXES.read('[{"bbox": [1, 2, 3, 4], "category": "cat", "confidence": 0.5}]') == [
        Place((1, 2, 3, 4), label="cat", score=0.5)
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7, 8], "lab',
        '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]',
        '{"objects": [{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]}',
        "[{'bbox_2d': [1, 2, 3, 4], 'label': 'cat'}]",
        'As [one] can see: {"bbox_2d": [1, 2, 3, 4], "label": "cat"}',
    ],
)
def test_odd_json_keeps_its_labels(text):
    assert BOXES.read(text) == [Place((1, 2, 3, 4), label="cat")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"point_2d": [10, 20]}', [(10, 20)]),
        ('```json\n[{"point": [10, 20]}, {"point": [1.5, -2]}]\n```', [(10, 20), (1.5, -2)]),
        ('{"x": 10, "y": 20}', [(10, 20)]),
        ("[[10, 20], [30, 40]]", [(10, 20), (30, 40)]),
        ("Click (10, 20).", [(10, 20)]),
        ("[10 20]", [(10, 20)]),
        ('<points x1="10" y1="20" alt="ear">ear</points>', [(10, 20)]),
        ('<points x1="10" y1="20" x2="30.5" y2="40" alt="ears">ears</points>', [(10, 20), (30.5, 40)]),
        ("<point x='10' y='20'>ear</point>", [(10, 20)]),
        ("<point>10 20</point>", [(10, 20)]),
        ("<point>(10, 20)</point><point>[30, 40]</point>", [(10, 20), (30, 40)]),
        ("<|point_start|>(10,20)<|point_end|>", [(10, 20)]),
        ("click(start_box='<|box_start|>(10,20)<|box_end|>')", [(10, 20)]),
        ("x=10, y=20", [(10, 20)]),
        ("10, 20", [(10, 20)]),
        ("（10，20）", [(10, 20)]),
        ("about 10, 20", []),
        ("(x: 10, y: 20)", [(10, 20)]),
        ('{"point_2d": [[10, 20], [30, 40]], "label": "ear"}', [(10, 20), (30, 40)]),
        ('{"ear": [[10, 20], [30, 40]]}', [(10, 20), (30, 40)]),
        ("not at (1, 2) but at (10, 20)", [(10, 20)]),
        ("(10, 20) is wrong", []),
        ("(10, 20) or (30, 40)", []),
        ('<point x="1" y="2"/> or <point x="3" y="4"/>', []),
        ('[{"point_2d": [10, 20]}, {"point_2d": [3', [(10, 20)]),
        ("[1, 2, 3, 4]", []),
        ("<point>10 20 30</point>", []),
        ('<points x1="10" y1="20" x2="30"/>', []),
        ('<point y="20" x="10"/>', [(10, 20)]),
        ('<points x1="10" x2="30" y1="20" y2="40"/>', [(10, 20), (30, 40)]),
        ("ten, twenty", []),
    ],
)
def test_reads_points(text, expected):
    assert [point.numbers for point in POINTS.read(text)] == expected


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
