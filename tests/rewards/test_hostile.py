"""Random and adversarial text: no reward raises, hangs, leaves its range, or changes with the order of its rows."""

import inspect
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trl_onevision import rewards
from trl_onevision.answers import compare, parse
from trl_onevision.answers.choice import read_choices
from trl_onevision.answers.extract import answer_text, boxed, split, tagged
from trl_onevision.answers.markup import normalize
from trl_onevision.answers.task import task_of
from trl_onevision.answers.words import anls, items, word_accuracy, yes_or_no
from trl_onevision.rewards import AccuracyReward, FormatReward, StepAccuracyReward, StepValidityReward, accuracy_reward
from trl_onevision.rewards.accuracy import LONGEST_ANSWER

PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<THINK>", "<observe>", "</observe>", r"\boxed{", "{", "}", "[",
    "]", "Answer: ", "the answer is ", "### Step 1: ", "### The final answer is: ", "###", "\n", " ", "\t", "\\", "$",
    "\\(", "```json\n", "\x00", "\ud800", "\udfff", "\u202e", "\u200b", "４２", "٤٢", "𝟒𝟐", "½", "²", "−", "А",
    "Ｂ", "é", "ﷺ", "答案：", "√", "42", "0", "-1", "1,234", "1e9", "1e999999", "%", "/", "^", "!", ".", ",", ":", "A",
    "B", "C", "yes", "no", "and", "or", '{"bbox_2d": [1, 2, 3, 4]}', "[[0, 0, 1, 1]]", "NaN", "null", "1:30", "x", "=",
    "2024-03-05", r"\frac{1}{2}", "cm", "(5, 5)", "[[0, 0], [8, 0], [8, 8]]", '{"action": "click", "x": 5, "y": 5}',
    "0:00 - 0:10", "not", "minus", "hundred", "八个", "A) red", "St. ", "Solution: ", "sin(x)", "m/s",
    '<svg viewBox="0 0 9 9">', "</svg>", '<g opacity="0">', "</g>",
    '<rect x="1e999" width="9" height="-1"/>', '{"mark": "bar", "data": {"values": [{"a": 1' + "0" * 400 + "}]}}",
    "<box>1 2 3</box>", '<points y="1" x="">', "10 - 20 - 30", "to 1e309 frames", "```svg\n", '"pixels": 0', "\u2060",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=30).map("".join)
blocks = st.fixed_dictionaries({"type": st.sampled_from(["text", "thinking", "image", ""])}, optional={"text": texts})
contents = st.one_of(st.none(), texts, st.integers(), st.lists(st.one_of(blocks, texts, st.none()), max_size=4))
roles = st.sampled_from(["assistant", "tool", "user", ""])
messages = st.fixed_dictionaries(
    {"content": contents},
    optional={
        "role": st.sampled_from(["assistant", "tool", "user", ""]),
        "reasoning_content": st.one_of(st.none(), texts),
    },
)
completions = st.one_of(
    texts, messages, st.lists(st.one_of(messages, st.none(), texts), max_size=3), st.none(), st.integers()
)
slow = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
many = settings(max_examples=300, deadline=None, derandomize=True)

GOLDS = {
    "choice": "B", "number": "1,234.5 cm", "text": "Paris", "yes_no": "no", "count": "3", "list": "1, 2",
    "set": "a, b", "date": "2024-03-05", "time": "1:30",
}  # fmt: skip
BOXES = '[{"bbox_2d": [0, 0, 10, 10]}]'
# What a reward scores: of a row with another's task it would not read a character.
ROWS = {
    "iou_reward": {"task": "boxes", "solution": BOXES},
    "detection_reward": {"task": "boxes", "solution": BOXES},
    "point_reward": {"task": "points", "solution": BOXES},
    "span_reward": {"task": "span", "solution": '{"start": 0, "end": 10}'},
    "mask_reward": {
        "task": "masks",
        "solution": '[{"polygon": [[0, 0], [8, 0], [8, 8]]}]',
        "images": [Image.new("RGB", (20, 20))],
    },
    "order_reward": {"task": "order", "solution": "[2, 3, 1]"},
    "render_reward": {
        "task": "render",
        "solution": '{"language": "svg", "source": "<svg viewBox=\'0 0 9 9\'><circle r=\'4\'/></svg>"}',
    },
    "action_reward": {"task": "action", "solution": '{"action": "click", "bbox_2d": [0, 0, 10, 10]}'},
}
ANYTHING = {"solution": "x", "task": "text", "key_steps": [["x"]], "completion_ids": [0] * 9, "difficulty": 2.0}
EXPORTED = [name for name in rewards.__all__ if not inspect.isclass(getattr(rewards, name))]


@pytest.mark.parametrize("name", EXPORTED)
@slow
@given(st.lists(completions, max_size=4), st.one_of(texts, st.none(), st.integers()))
def test_no_completion_and_no_gold_makes_a_reward_raise(name, said, gold):
    own = ANYTHING | ROWS.get(name, {})
    for row in (own, own | {"solution": gold}):
        columns = {column: [value] * len(said) for column, value in row.items()}
        scores = getattr(rewards, name)(completions=said, prompts=["?"] * len(said), **columns)
        assert len(scores) == len(said)
        assert all(0 <= score <= 1.2 if score is not None else row is not own for score in scores)


@pytest.mark.parametrize("task", GOLDS)
@slow
@given(said=st.lists(texts, min_size=2, max_size=6))
def test_every_kind_of_answer_stays_in_range_and_follows_its_row(task, said):
    said = [*said, *(f"<answer>{text}</answer>" for text in said)]
    for reward in (AccuracyReward(task=task), AccuracyReward(task=task, text="anls", number="mra")):
        scores = reward(said, solution=[GOLDS[task]] * len(said))
        assert all(score is not None and 0 <= score <= 1 for score in scores)
        assert reward(said[::-1], solution=[GOLDS[task]] * len(said)) == scores[::-1]


@slow
@given(said=texts)
def test_mathematics_on_any_text(said):
    (score,) = accuracy_reward([f"<answer>{said}</answer>"], solution=["x^2+1"], task=["math"])
    assert score in (0.0, 1.0)


@many
@given(texts, texts)
def test_the_content_holds_the_answer_and_no_thinking(thinking, content):
    kept = split(thinking + "</think>" + content).content
    assert kept == split(content).content if "think>" in content.lower() else kept == content
    for found in (tagged(content), boxed(content)):
        assert found is None or found in content
    assert answer_text(f"<think>{content}") is None or "</think>" in content.lower()


@many
@given(texts)
def test_every_gold_that_is_text_is_its_own_answer(gold):
    stated = f"<answer>{gold}</answer>"
    if answer_text(stated) == gold.strip() and gold.strip() and tagged(gold) is None and boxed(gold) is None:
        assert AccuracyReward(task="text")([stated], solution=[gold]) in ([1.0], [None])


@many
@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_numbers_are_read_as_they_are_written(value):
    given = parse.read(str(value), number=True)
    assert compare.same(given, parse.read(f"{value.numerator} / {value.denominator}"))
    assert compare.same(parse.read(f"{float(value):.6f}"), given)
    assert compare.same(parse.read(str(round(value))), parse.read(f"{round(value):,}"))


@many
@given(st.text("ab ", max_size=12), st.text("ab ", max_size=12), st.text("ab ", max_size=12))
def test_edit_similarities_stay_in_range(first, second, third):
    assert anls(first, second) == anls(second, first)
    assert (anls(first, second) == 1) == (first.split() == second.split())
    assert 0 <= anls(first, third) <= 1
    assert 0 <= word_accuracy(first, second) <= 1


@many
@given(texts)
def test_readers_of_text_never_raise(text):
    for number in (False, True):
        parse.read(text, number)
    yes_or_no(text), items(text), read_choices(text), read_choices(text, [text, "A", None, "5 cm"]), task_of(text)
    assert normalize(normalize(text)) == normalize(normalize(normalize(text)))


READERS = {
    "accuracy": (AccuracyReward(task="text"), "Paris"),
    "format": (FormatReward(graded=True), None),
    "boxed": (FormatReward("boxed", graded=True), None),
    "sections": (FormatReward("steps", graded=True), None),
    "json": (FormatReward("json", graded=True), None),
    "steps": (StepAccuracyReward(accuracy=AccuracyReward(task="text")), "4"),
    "steps of the code": (StepAccuracyReward(accuracy=AccuracyReward(task="text"), mode="code"), "4"),
    "order": (StepValidityReward(), None),
    "order of the code": (StepValidityReward(mode="code"), None),
}
WORST = ["<answer>", "</think>", r"\boxed{", "{", "\n ", "(", "### Step 1:\n", "<", "--", "ﷺ", "answer: "]


@pytest.mark.parametrize("reader", READERS)
def test_a_megabyte_of_the_worst_text_costs_what_its_length_says(reader, linear):
    reward, gold = READERS[reader]
    for piece in WORST:
        for form in ("{}", "<answer>{}", "<think>x</think><answer>{}</answer>"):

            def score(body, form=form):
                reward([form.replace("{}", body)], solution=[gold], key_steps=[[["a"], ["= 1"]]])

            linear(score, piece * (500_000 // len(piece)))


@pytest.mark.parametrize("task", GOLDS)
def test_the_longest_answers_that_are_read_are_read_in_time_that_grows_with_them(task, linear):
    pieces = [piece for piece in [*PIECES, "1 ", "A, ", "1,", "(A)", "a b ", "- ", "past "] if "answer>" not in piece]
    reward = AccuracyReward(task=task)
    for piece in pieces:
        longest = (piece * LONGEST_ANSWER)[:LONGEST_ANSWER]
        linear(lambda answer: reward([f"<answer>{answer}</answer>"], solution=[GOLDS[task]]), longest)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_thousand_hostile_completions_in_one_call(name):
    said = [f"<answer>{PIECES[index % len(PIECES)] * 40}{index}</answer>" for index in range(1000)]
    start = time.monotonic()
    columns = {column: [value] * len(said) for column, value in (ANYTHING | ROWS.get(name, {})).items()}
    scores = getattr(rewards, name)(completions=said, prompts=["?"] * 1000, **columns)
    assert len(scores) == 1000
    assert None not in scores
    assert time.monotonic() - start < 31
