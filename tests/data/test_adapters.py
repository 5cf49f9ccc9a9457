"""Every adapter on its fixture: the rows keep the contract, and each gold scores the maximum."""

import json
from datetime import date
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from trl_onevision import rewards
from trl_onevision.data.adapters import ADAPTERS, adapter_for, find
from trl_onevision.data.columns import columns_adapter
from trl_onevision.data.convert import Conversion, convert_row
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prepare import prepare
from trl_onevision.data.prompts import PROMPTS, user_messages
from trl_onevision.data.rows import Raw
from trl_onevision.data.schema import COLUMNS, OPTIONAL, TASKS, RowError, validate_row
from trl_onevision.data.sources import open_source
from trl_onevision.rewards.accuracy import _TASKS

FIXTURES = Path(__file__).parent / "fixtures"
SERVED = [(name, purpose) for name in ADAPTERS for purpose in find(name).prompts]

# task and gold of every fixture row, written by hand
GOLDS = {
    "r1-onevision": [
        ("number", "3"),
        ("choice", "A"),
        ("math", "\\frac{3}{4}"),
        ("text", "Yes"),
        ("choice", "A"),
        ("number", "4.5 cm"),
    ],
    "clevr": [("number", "2"), ("number", "5"), ("number", "7")],
    "geometry3k": [("math", "2 \\sqrt { 3 }"), ("number", "74"), ("math", "\\frac { 5 } { 2 }")],
    "vlm-r1": [
        ("number", "2"),
        ("choice", "B"),
        ("text", "red"),
        (
            "boxes",
            '[{"bbox_2d": [8, 40, 22, 54], "label": "square"}, {"bbox_2d": [28, 40, 42, 54], "label": "square"}]',
        ),
    ],
    "refcoco": [
        ("boxes", '[{"bbox_2d": [8, 40, 22, 54], "label": "the leftmost square"}]'),
        ("boxes", '[{"bbox_2d": [28, 40, 42, 54], "label": "the right square"}]'),
        (
            "boxes",
            '[{"bbox_2d": [8, 40, 22, 54], "label": "every square"}, '
            '{"bbox_2d": [28, 40, 42, 54], "label": "every square"}]',
        ),
    ],
    "reasoning-gym": [("number", "16"), ("number", "288"), ("number", "292"), ("text", "Yes")],
    "r1-vl": [("number", "8"), ("choice", "A")],
    "mulberry": [("number", "2"), ("number", "4")],
    "video-r1": [
        ("choice", "A"),
        ("number", "1"),
        ("text", "nothing"),
        ("text", "It turns red"),
        ("number", "1.0"),
        ("number", "4"),
    ],
    "temporal-grounding": [
        ("span", '[{"start": 1.0, "end": 3.0}]'),
        ("span", '[{"start": 0.0, "end": 1.0}, {"start": 3.0, "end": 4.2}]'),
    ],
    "text-math": [("number", "42"), ("math", "\\frac{1}{2}"), ("math", "x = 2")],
}


def fixture(name: str) -> Path:
    (path,) = FIXTURES.glob(name.replace("-", "_") + ".*")
    return path


def converted(name: str, purpose: str) -> list[dict]:
    conversion = Conversion(purpose=purpose, image_root=FIXTURES)
    return [convert_row(raw.example, find(name), conversion) for raw in open_source(str(fixture(name))).rows()]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_has_its_name_and_known_prompts(name):
    adapter = find(name)
    assert name == adapter.name
    assert (
        adapter.prompts and set(adapter.prompts) <= {"sft", "grpo"} and set(adapter.prompts.values()) <= set(PROMPTS)
    )
    assert all(value is None or isinstance(value, str) for value in (adapter.source, adapter.license))


@pytest.mark.parametrize(("name", "purpose"), SERVED)
def test_every_fixture_row_keeps_the_contract(name, purpose):
    rows = converted(name, purpose)
    assert len(rows) == len(GOLDS[name])
    for row in rows:
        validate_row(row, purpose)
        assert set(COLUMNS[purpose]) - set(OPTIONAL) <= set(row) <= set(COLUMNS[purpose]) and row["source"] == name


GRPO = [name for name, purpose in SERVED if purpose == "grpo"]


@pytest.mark.parametrize("name", GRPO)
def test_golds_are_read(name):
    assert [(row["task"], row["solution"]) for row in converted(name, "grpo")] == GOLDS[name]


@pytest.mark.parametrize("name", GRPO)
def test_golds_score_the_maximum(name):
    from trl_onevision.rewards.accuracy import accuracy_reward
    from trl_onevision.rewards.boxes import iou_reward
    from trl_onevision.rewards.spans import span_reward

    rows = converted(name, "grpo")
    columns = {column: [row[column] for row in rows] for column in ("solution", "task", "choices", "images", "id")}
    columns["duration"] = [row.get("duration") for row in rows]
    completions = [
        [{"role": "assistant", "content": f"<think>So.</think><answer>{row['solution']}</answer>"}] for row in rows
    ]
    for reward, tasks in ((iou_reward, ["boxes"]), (span_reward, ["span"]), (accuracy_reward, [*_TASKS])):
        for row, score in zip(rows, reward(completions, **columns), strict=True):
            assert score == (1.0 if row["task"] in tasks else None), row["solution"]


@pytest.mark.parametrize(("name", "purpose"), [pair for pair in SERVED if pair[1] == "sft"])
def test_sft_completions(name, purpose):
    for row in converted(name, purpose):
        text = row["completion"][0]["content"][0]["text"]
        if name == "mulberry":
            assert text.startswith("### Image Description:") and "### The final answer is:" in text
        else:
            assert text.startswith("<think>\n") and text.endswith("\n</answer>") and text.count("<think>") == 1


def test_hints_and_template_reach_the_prompt_and_the_missing_mark_is_made_up_for():
    first, second = converted("r1-onevision", "grpo")[:2]
    for row in (first, second):  # one raw question has <image>, the other has none
        assert [block["type"] for block in row["prompt"][0]["content"]] == ["image", "text"]
    text = second["prompt"][0]["content"][1]["text"]
    assert text.startswith("Hint: Please answer") and text.endswith("final answer in <answer> </answer> tags.")
    assert second["choices"] == ["red", "blue", "green"]


def test_key_steps_keep_their_wordings():
    assert converted("r1-vl", "grpo")[0]["key_steps"] == [["four squares"], ["2 * 4 = 8", "2 times 4 equals 8"]]


def test_video_r1_rows_end_with_the_hint_of_their_kind_under_its_own_prompt():
    first, *_, last = converted("video-r1", "grpo")
    text = first["prompt"][0]["content"][-1]["text"]
    assert text.startswith("Which colour does it turn to?\nOptions:\nA. red\nB. green\nPlease think about this")
    assert text.endswith(
        "</answer> tags. Please provide only the single option letter (e.g., A, B, C, D, etc.) within "
        "the <answer> </answer> tags."
    )
    assert [block["type"] for block in first["prompt"][0]["content"]] == ["text", "image"] * 8 + ["text"]
    assert (len(last["images"]), last.get("duration")) == (1, None)
    plain = convert_row(
        next(iter(open_source(str(fixture("video-r1"))).rows())).example,
        find("video-r1"),
        Conversion(prompt="plain", image_root=FIXTURES),
    )
    assert plain["prompt"][0]["content"][-1]["text"].endswith("B. green")


@pytest.mark.parametrize(
    ("frame", "format", "raw"),
    [
        ("pixel", "xyxy", [40, 20, 120, 60]),
        ("pixel", "xywh", [40, 20, 80, 40]),
        ("norm1000", "xyxy", [100, 100, 300, 300]),
        ("norm1", "xyxy", [0.1, 0.1, 0.3, 0.3]),
    ],
)
def test_boxes_follow_their_image_onto_the_grid(frame, format, raw):
    example = {"id": "1", "image": Image.new("RGB", (400, 200)), "problem": "Find the cat.", "solution": raw}
    conversion = Conversion(grid=PixelGrid(28, 3136, 20_000), box_frame=frame, box_format=format)
    row = convert_row(example, find("refcoco"), conversion)
    # 400x200 becomes 196x84: x by 0.49, y by 0.42
    assert row["solution"] == '[{"bbox_2d": [19.6, 8.4, 58.8, 25.2], "label": "object"}]'


@pytest.mark.parametrize("raw", [[0, 0, 900, 10], [5, 5, -4, 9], "left", None, [1, 2], {"x": 1}, [[1, 2, 3, "4"]]])
def test_a_box_that_is_none_is_named(raw):
    example = {"id": "7", "image": Image.new("RGB", (400, 200)), "problem": "Find the cat.", "solution": raw}
    for format in ("xyxy", "xywh"):
        with pytest.raises(RowError, match=r"row '7', column 'solution'"):
            convert_row(example, find("refcoco"), Conversion(box_format=format))


@pytest.mark.parametrize(
    ("task", "gold", "moved"),
    [
        ("points", '[{"point_2d": [40, 20], "label": "ear"}]', '[{"point_2d": [19.6, 8.4], "label": "ear"}]'),
        ("points", [[40, 20], [120, 60]], "[[19.6, 8.4], [58.8, 25.2]]"),
        (
            "masks",
            [{"polygon": [[40, 20], [120, 60], [40, 60]]}],
            '[{"polygon": [[19.6, 8.4], [58.8, 25.2], [19.6, 25.2]]}]',
        ),
        ("action", {"action": "click", "x": 40, "y": 20}, '{"action": "click", "x": 19.6, "y": 8.4}'),
        ("points", {"x1": 40, "y1": 20, "x2": 120, "y2": 60}, '{"x1": 19.6, "y1": 8.4, "x2": 58.8, "y2": 25.2}'),
        ("action", [{"action": "wait", "time": [1, 2]}], '[{"action": "wait", "time": [1, 2]}]'),
        ("span", [1.5, 2.5], "[1.5, 2.5]"),
    ],
)
def test_every_kind_of_place_follows_its_image(task, gold, moved):
    assert place(gold, task) == moved


def place(gold, task, grid=PixelGrid(28, 3136, 20_000), **options):  # noqa: B008 -- it is frozen
    """The gold of a row whose picture, 400x200, is stored as 196x84: x by 0.49, y by 0.42."""
    adapter = columns_adapter("prompt=q,solution=a,task=t,image=i")
    example = {"q": "Where?", "a": gold, "t": task, "i": Image.new("RGB", (400, 200))}
    return convert_row(example, adapter, Conversion(grid=grid, **options))["solution"]


@pytest.mark.parametrize(
    ("task", "gold", "corners"),
    [
        ("points", [{"bbox_2d": [40, 20, 80, 40]}], '[{"bbox_2d": [19.6, 8.4, 58.8, 25.2]}]'),
        ("points", [[40, 20, 80, 40]], "[[19.6, 8.4, 58.8, 25.2]]"),
        ("points", [{"point_2d": [40, 20]}], '[{"point_2d": [19.6, 8.4]}]'),
        (
            "action",
            {"action": "click", "bbox": [40, 20, 80, 40]},
            '{"action": "click", "bbox": [19.6, 8.4, 58.8, 25.2]}',
        ),
    ],
)
def test_boxes_of_width_and_height_get_corners_under_every_task(task, gold, corners):
    assert place(gold, task, box_format="xywh") == corners


def test_coordinates_that_are_no_pairs_are_no_gold():
    for grid in (PixelGrid(28, 3136, 20_000), PixelGrid.of(1)):  # of a resized image, and of one as it is
        with pytest.raises(RowError, match=r"column 'solution': not coordinates; found \[40, 20, 0\.9\]"):
            place([{"point_2d": [40, 20, 0.9]}], "points", grid)
    assert place([{"point_2d": [40, 20.125]}], "points", PixelGrid.of(1)) == '[{"point_2d": [40, 20.125]}]'


@pytest.mark.parametrize(
    "gold",
    [
        {"bbox_2d": [40, 20, 120, 60], "label": "ear"},
        {"bbox": [[40, 20], [120, 60]], "category": "ear"},
        {"x1": 40, "y1": 20, "x2": 120, "y2": 60, "name": "ear"},
        {"bboxes": [[40, 20, 120, 60]], "labels": ["ear"]},
        [{"box": [[40, 20, 120, 60]], "class": "ear"}],
    ],
)
def test_a_box_in_any_form_that_rewards_read_is_a_box_with_its_label(gold):
    """COCO's `category` stood beside a label "object" that went before it; lists of boxes and corners were refused."""
    assert place(gold, "boxes") == '[{"bbox_2d": [19.6, 8.4, 58.8, 25.2], "label": "ear"}]'


@pytest.mark.parametrize("task", ["boxes", "points", "masks", "action", "span"])
@pytest.mark.parametrize("gold", [None, "", "null", {}, float("nan")])
def test_a_place_that_is_missing_is_no_gold(task, gold):
    with pytest.raises(RowError, match=r"column 'a': no gold answer"):
        place(gold, task)


def test_a_run_length_code_stays_readable_where_nothing_moves():
    adapter = columns_adapter("prompt=q,solution=a,task=t,image=i")
    picture = Image.new("RGB", (56, 56))
    for counts, stored in (([0, 56 * 56], [0, 56 * 56]), (b"P1", "P1")):
        gold = {"size": [56, 56], "counts": counts}
        row = convert_row({"q": "Where?", "a": gold, "t": "masks", "i": picture}, adapter)
        assert json.loads(row["solution"]) == {"size": [56, 56], "counts": stored}


def test_the_model_sees_the_options_of_another_column():
    def asked(question, choices, purpose="grpo"):
        adapter = columns_adapter("prompt=q,solution=a,completion=s,choices=c")
        example = {"q": question, "a": "A", "s": "<think>So.</think>", "c": choices}
        row = convert_row(example, adapter, Conversion(purpose, prompt="plain"))
        return row["prompt"][0]["content"][0]["text"], row.get("choices")

    listed = "Which?\nChoices:\nA. red\nB. blue"
    objects = {"A": "red", "B": "blue", "C": None}, '{"A": "red", "B": "blue"}'
    for choices in (["red", "blue"], *objects, "A. red\nB. blue", "(A) red (B) blue"):
        assert asked("Which?", choices) == (listed, ["red", "blue"])
    assert asked(listed, ["red", "blue"])[0] == listed
    assert asked("In 2021, which?", ["0", "1"])[0] == "In 2021, which?\nChoices:\nA. 0\nB. 1"
    assert asked("Which?", ["red", "blue"], "sft") == (listed, None)
    assert asked("Which?", ["red", "blue", None])[1] == ["red", "blue"]
    for choices in ({"A": "red", "C": "blue"}, ["red", None, "blue"], "3", 7):
        with pytest.raises(RowError, match="column 'c': not a list"):
            asked("Which?", choices)


def test_a_field_is_mapped_once():
    with pytest.raises(ValueError, match="a field twice"):
        columns_adapter("prompt=q,image=i1,image=i2")


def test_a_task_that_is_given_needs_no_options():
    adapter = columns_adapter("prompt=q,solution=a,task=t")
    example = {"q": "How far is it?\n(A) by road\n(B) by rail", "a": "12", "t": "number"}
    row = convert_row(example, adapter)
    assert (row["solution"], row["task"], row["choices"]) == ("12", "number", None)


@pytest.mark.parametrize(
    "question", ["<image>How many?", "<image><image>Which is larger?", "Is <image> like <image>?"]
)
def test_an_image_mark_without_an_image_is_said(question):
    n_images = question.count("<image>") - 1
    with pytest.raises(RowError, match="more image marks than images"):
        user_messages(question, PROMPTS["plain"], n_images)


def test_every_task_of_a_reward_is_a_task_of_the_contract():
    modules = [import_module(f"{rewards.__name__}.{module.name}") for module in iter_modules(rewards.__path__)]
    tasks = {getattr(value, "task_name", None) for module in modules for value in vars(module).values()} - {None}
    assert {"boxes", "points", "span"} <= tasks
    tasks |= {task for task in TASKS if hasattr(rewards, f"{task}_reward")}
    assert tasks | _TASKS.keys() == set(TASKS)


@pytest.mark.parametrize(
    ("raw", "solution", "task", "answer"),
    [
        ({"a": ["NYC", "New York"]}, '["NYC", "New York"]', "text", "new york"),
        ({"a": ["3", "three"]}, '["3", "three"]', "number", "3"),
        ({"a": [3]}, "3", "number", "3"),
        ({"a": 2.5}, "2.5", "number", "2.5"),
        ({"a": True}, "True", "text", "yes"),
        ({"a": ["A", "blue"], "c": ["red", "blue", "green"]}, '["A", "B"]', "choice", "A and B"),
        ({"a": ["red", "green"], "t": "set"}, '["red", "green"]', "set", "green, red"),
    ],
)
def test_golds_of_any_column_are_read_and_paid(raw, solution, task, answer):
    fields = {"a": "solution", "c": "choices", "t": "task"}
    adapter = columns_adapter(",".join(["prompt=q", *(f"{fields[name]}={name}" for name in raw)]))
    row = convert_row({"q": "Which?", **raw}, adapter)
    assert (row["solution"], row["task"]) == (solution, task)
    columns = {name: [row[name]] for name in ("solution", "task", "choices")}
    assert rewards.accuracy_reward([f"<answer>{answer}</answer>"], **columns) == [1.0]


@pytest.mark.parametrize("gold", [None, "", " ", [], ["red", None], float("nan"), {"x": 1}, [["red"]]])
def test_what_is_no_gold_is_said(gold):
    adapter = columns_adapter("prompt=q,solution=a")
    with pytest.raises(RowError, match="column 'solution': no gold answer"):
        convert_row({"q": "Which?", "a": gold}, adapter)


def test_a_run_length_code_cannot_follow():
    adapter = columns_adapter("prompt=q,solution=a,task=t,image=i,id=n")
    gold = [{"segmentation": {"size": [56, 84], "counts": [0, 84 * 56]}}]
    example = {"q": "Where?", "a": gold, "t": "masks", "i": Image.new("RGB", (84, 56)), "n": "m-1"}
    assert "counts" in convert_row(example, adapter)["solution"]
    with pytest.raises(RowError, match="row 'm-1', column 'solution': run-length code of a resized image"):
        convert_row(example | {"i": Image.new("RGB", (90, 60))}, adapter)


def test_a_generator_whose_questions_have_many_right_answers_is_refused():
    example = {"question": "Make 24.", "answer": "6*4", "metadata": {"source_dataset": "countdown"}, "id": "a"}
    with pytest.raises(RowError, match=r"no single answer; found 'countdown', expected a generator.*leg_counting"):
        convert_row(example, find("reasoning-gym"))


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["id", "image", "conversations"], "r1-onevision"),
        (["id", "image", "conversations", "accu_reward_method"], "vlm-r1"),
        (["image", "problem", "solution", "original_question"], "clevr"),
        (["images", "problem", "answer"], "geometry3k"),
        (["image_path", "problem", "solution", "key_steps"], "r1-vl"),
        (["problem", "solution", "answer"], "text-math"),
        (["question", "answer", "metadata"], "reasoning-gym"),
        (["qid", "query", "vid", "duration", "relevant_windows"], "temporal-grounding"),
        (
            ["problem_id", "problem", "data_type", "problem_type", "options", "solution", "path", "data_source"],
            "video-r1",
        ),
        (["prompt", "images", "solution", "task"], None),
        (["messages", "images"], None),
        (["problem", "solution", "video"], None),
        (["text"], None),
    ],
)
def test_raw_schemas_are_recognised(columns, name):
    adapter = adapter_for(columns)
    assert (adapter.name if adapter else None) == name


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
RAW = (
    "id",
    "image",
    "images",
    "image_path",
    "conversations",
    "messages",
    "problem",
    "solution",
    "answer",
    "key_steps",
    "vid",
    "query",
    "relevant_windows",
    "path",
    "options",
)
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": ODD, "role": st.just("user")}),
    max_size=2,
)


@pytest.mark.parametrize(("name", "purpose"), SERVED)
@settings(max_examples=60, deadline=None)
@given(example=st.dictionaries(st.sampled_from(RAW), ODD | TURNS))
def test_wrong_types_are_row_errors_and_nothing_else(name, purpose, example):
    try:
        convert_row(example, find(name), Conversion(purpose=purpose))
    except RowError as error:
        assert error.row_id is not None


def test_columns_of_any_dataset(tmp_path):
    table = tmp_path / "any.csv"
    table.write_text(
        "uid,ask,picture,options,gold\n"
        f'a,Which colour?,{FIXTURES}/images/squares_2.png,"[""red"", ""blue""]",red\n'
        "b,What is 6 x 7?,,,42\n"
    )
    columns = "prompt=ask,image=picture,choices=options,solution=gold,id=uid"
    console = Console(quiet=True)
    summary = prepare("mine", tmp_path / "out", source=str(table), columns=columns, console=console)
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert summary.kept == 2
    assert [(r["id"], r["source"], r["task"], r["solution"]) for r in rows] == [
        ("a", "mine", "choice", "A"),
        ("b", "mine", "number", "42"),
    ]
    assert rows[0]["prompt"][0]["content"][1]["text"].startswith("Which colour?\nChoices:\nA. red\nB. blue")
    assert rows[1]["images"] == []


def test_numbers_and_lists_of_a_table_are_its_cells(tmp_path):
    table = tmp_path / "any.csv"
    table.write_text('q,a,d,s,f\nHow long?,3,0.5,12,"[""a clock""]"\nHow far?,4,,,\nHow?,5,hard,,\n')
    columns = "prompt=q,solution=a,difficulty=d,duration=s,visual_facts=f"
    summary = prepare("mine", tmp_path / "out", source=str(table), columns=columns, console=Console(quiet=True))
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    found = [(row["difficulty"], row["duration"], row["visual_facts"]) for row in rows]
    assert found == [(0.5, 12, ["a clock"]), (None, None, None)]
    assert dict(summary.dropped) == {"difficulty: no number": 1}


def test_columns_with_a_task_and_for_sft():
    adapter = columns_adapter("prompt=q,solution=a,task=t,image=i,completion=c")
    picture = Image.new("RGB", (56, 56))
    boxes = convert_row({"q": "Find it.", "a": [1, 2, 30, 40], "t": "boxes", "i": [picture]}, adapter)
    assert boxes["task"] == "boxes" and "bbox_2d" in boxes["solution"]
    assert convert_row({"q": "Read it.", "a": 42, "t": "text", "i": None}, adapter)["task"] == "text"
    sft = convert_row({"q": "Read it.", "c": "It says 42.", "i": None}, adapter, Conversion(purpose="sft"))
    assert sft["completion"][0]["content"][0]["text"] == "It says 42."
    with pytest.raises(RowError, match="column 't': unknown task"):
        convert_row({"q": "Read it.", "a": 42, "t": "ocr", "i": None}, adapter)


# What a command says of all rows


def named(columns, example, **options):
    return columns_adapter(columns, **options).to_row(Raw(example))


@pytest.mark.parametrize(
    ("base", "gold", "letter"), [(0, 0, "A"), (0, "2", "C"), (1, 1, "A"), (1, "3", "C"), (0, 1.0, "B")]
)
def test_a_gold_may_be_the_number_of_an_option(base, gold, letter):
    row = named("prompt=q,solution=a,choices=c", {"q": "Which?", "a": gold, "c": ["2", "1", "0"]}, choice_base=base)
    assert (row["solution"], row["task"]) == (letter, "choice")


@pytest.mark.parametrize(("base", "gold"), [(0, 3), (1, 0), (0, "B"), (0, -1), (0, None), (0, "1.5")])
def test_a_number_of_no_option_is_refused_with_the_range(base, gold):
    with pytest.raises(RowError, match=rf"the number of an option, {base} to {base + 2} \(--choice-base {base}\)"):
        named("prompt=q,solution=a,choices=c", {"q": "Which?", "a": gold, "c": ["x", "y", "z"]}, choice_base=base)


def test_one_task_for_all_rows():
    box = {"q": "Where is the cat?", "a": [1, 2, 3, 4], "i": Image.new("RGB", (9, 9))}
    assert named("prompt=q,solution=a,image=i", box, task="boxes")["task"] == "boxes"
    assert named("prompt=q,solution=a", {"q": "Who?", "a": "42"}, task="text")["task"] == "text"
    with pytest.raises(ValueError, match="--task essay: expected one of math, choice"):
        named("prompt=q,solution=a", {"q": "?", "a": "1"}, task="essay")
    with pytest.raises(ValueError, match=r"--task text: expected no task= in --columns"):
        named("prompt=q,solution=a,task=t", {"q": "?", "a": "1", "t": "text"}, task="text")


def test_golds_are_as_parquet_holds_them_and_paths_lead_into_json():
    assert named("prompt=q,solution=a", {"q": "How much?", "a": Decimal("3.50")})["solution"] == "3.50"
    assert named("prompt=q,solution=a", {"q": "When?", "a": date(2020, 5, 1)})["solution"] == "2020-05-01"
    for inside in ({"truth": "3"}, '{"truth": "3"}'):
        assert named("prompt=q,solution=model.truth", {"q": "How many?", "model": inside})["solution"] == "3"
    for inside, found in (("none", "'none'"), ({"a": 1}, r"columns \['a'\]")):
        with pytest.raises(RowError, match=f"truth': missing column; found {found}"):
            named("prompt=q,solution=model.truth", {"q": "How many?", "model": inside})


def test_what_rewards_read_goes_through():
    example = {"q": "How long?", "a": "3", "d": 2, "u": 0.5, "s": 12.5, "f": ["a clock"]}
    columns = "prompt=q,solution=a,difficulty=d,uncertainty=u,duration=s,visual_facts=f"
    row = named(columns, example)
    assert (row["difficulty"], row["uncertainty"], row["duration"], row["visual_facts"]) == (2, 0.5, 12.5, ["a clock"])
