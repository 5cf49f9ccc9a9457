"""Closings, options and kinds of answers as raw solutions write them."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_onevision.data.columns import columns_adapter
from trl_onevision.data.questions import classify, read_choices
from trl_onevision.data.rows import Raw
from trl_onevision.data.schema import RowError
from trl_onevision.data.solutions import closing_answer, tagged_completion


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I count two.\n\nAnswer: 2", "2"),
        ("I count two.\n\n**Answer:** 2.", "2"),
        ("I count two.\n\n**Answer: B**", "B"),
        ("I count two.\n\nFinal Answer: \\boxed{12}", "12"),
        ("I count two.\n\n### Final Answer\n\\[\n\\boxed{12}\n\\]", "12"),
        ("So x = 3.\n\n**Final Answer**\n\n\\[ \\boxed{\\frac{1}{2}} \\]", "\\frac{1}{2}"),
        ("Therefore, the answer is B.", "B"),
        ("The correct answer is (C) 30°.", "(C) 30°"),
        ("Thus the correct option is D.", "D"),
        ("The answer to the question is yes.", "yes"),
        ("The answer is A, because B is wrong.", "A"),
        ("The answer is 42. This follows from the table.", "42"),
        ("Answer: 6\n\nWait, I missed one.\n\nAnswer: 7", "7"),
        ("So \\boxed{7}.\n\nThe answer is consistent with the figure.", "7"),
        ("The answer is 6. No, the answer is 7.", "7"),
        ("The answer is 2*3.", "2*3"),
        ("*Answer: 5*", "5"),
        ("Answer: 5\n\nI have checked every option\nand it holds.", "5"),
        ("<think>The answer is 9? No.</think>\n\nThe answer is 8.", "8"),
        ("<think>It is 9.</think><answer>\n8\n</answer>", "8"),
        ("<think>It is 9.</think>\n\nBlue", "Blue"),
        ("### Step 1:\nTwo rows.\n\n### The final answer is: 2", "2"),
        ("6 * 7 = 42\n#### 42", "42"),
        ("答案是… Answer：12", "12"),
        ("The answer is $\\sqrt{2}$.", "\\sqrt{2}"),
        ("The answer is 3.5.", "3.5"),
        ('The answer is "Paris".', "Paris"),
        ("B", "B"),
        (" 3 ", "3"),
        ("Four and one.\n\n**Final Answer**\n\n- 5", "5"),
        ("It is the gateway.\n\nAnswer: St. Louis", "St. Louis"),
        ("The answer is 9 p.m. Tuesday.", "9 p.m. Tuesday"),
        ("The answer is closed since 1990.", "closed since 1990"),
        ("The answer is B since the angle is right.", "B"),
        ("So the answer is a place where it rains.", "a place where it rains"),
        ("St. Louis", "St. Louis"),
        ("Mr. Bean", "Mr. Bean"),
    ],
)
def test_closings(text, answer):
    assert closing_answer(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The picture shows a long row of squares, and the row goes on to the left of it.",
        "<think>The answer is 9.</think>",
        "Answer: " + "and then a square " * 20,
        "<answer></answer>",
        "The roots are $\\boxed{2}$ and $\\boxed{3}$.",
        "So maybe the answer is 5.\n\nWait, there is a third row of blocks, and it has four of them.",
        "So maybe the answer is 5. Wait, there is a third row. " + "It has four of them, and two are hidden. " * 6,
    ],
)
def test_no_closing(text):
    assert closing_answer(text) is None


@given(st.text(alphabet=st.sampled_from(list("ABab12 \n.:*#$\\{}()<>/")) | st.sampled_from("答°"), max_size=60))
def test_reading_never_raises_anything_but_a_row_error(text):
    closing = closing_answer(text + "\nAnswer: " + text)
    choices = read_choices(text)
    try:
        tagged_completion(text)
        classify(closing.answer if closing else "x", text, choices)
    except RowError:
        pass


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("Which?\nA. red\nB. blue\nC. dark green", ["red", "blue", "dark green"]),
        ("Which?\nChoices:\n(A) 3 cm\n(B) 5 cm", ["3 cm", "5 cm"]),
        ("Which? Choices: (A) 3 (B) 5 (C) 7 (D) 9", ["3", "5", "7", "9"]),
        ("Which?\nOptions: A: yes, B: no", ["yes", "no"]),
        ("Which? A. 3 B. 5", ["3", "5"]),
        ("Hint: give the letter, e.g., A, B, C, D.\nQuestion: Which?\n(A) x\n(B) y", ["x", "y"]),
        ("Which? (A) 3 (B) 5", ["3", "5"]),
        ("Angle A is 30. Find B.", None),
        ("How long is the rope between the posts (A) and (B) in metres?", None),
        ("Which of A. Smith and B. Jones won?", None),
        ("Which?\nA. only one", None),
        ("Which?\nB. red\nC. blue", None),
    ],
)
def test_options(question, choices):
    assert read_choices(question) == choices


@pytest.mark.parametrize(
    ("answer", "choices", "gold"),
    [
        ("B", ["3", "5"], "B"),
        ("(B) 5", ["3", "5"], "B"),
        ("B. 5", ["3", "5"], "B"),
        ("A, because B is wrong", ["3", "5"], "A"),
        ("5", ["3", "5"], "B"),
        ("RED", ["red", "blue"], "A"),
        ("A", ["B", "A"], "A"),  # the label goes before the text of an option
        ("b", ["3", "5"], "B"),
        ("答案：B", ["3", "5"], "B"),
        ("red.", ["blue", "red"], "B"),
        ("A,C", ["3", "5", "7"], '["A", "C"]'),
        ("AC", ["3", "5", "7"], '["A", "C"]'),
        ("A and C", ["3", "5", "7"], '["A", "C"]'),
        ('["A", "C"]', ["3", "5", "7"], '["A", "C"]'),
        ("A cat", ["dog", "cat"], "B"),
        ("B 5", ["3", "5"], "B"),
        ("B because A is wrong", ["3", "5"], "B"),
    ],
)
def test_options_as_gold(answer, choices, gold):
    assert classify(answer, "Which?", choices) == (gold, "choice")


NUMBERS = r"""
0, -3, +5, −4, .5, 3.50, 1,234.5, 100,000, 1e-3, 45°, 12%, 12 %, 25\%, $3.50, €5, 4.5cm, 60°C, 007, 3.2e5 kg, 30 cm²
5 apples, 90 degrees, 30 km/h, 9.8 m/s^2, 1.5 million, 60^\circ
"""
MATHS = r"""
3/4, 5:3, x, 2x, 3xy, x=2, y=2x+1, a+1, 10^5, 2\sqrt{3}, 2 \sqrt { 3 }, \frac { 5 } { 2 }, \pi, 12π, √2, sqrt(2), ½
x>3, x \ge 3, 8tan20°, (2;3), {1;2}, [0;1)
"""
TEXTS = """
Yes, no, red, AB, 1st, 12:30, 9:45 PM, 2024-01-05, July 4, a red cube, 5 cm by 3 cm
"""


def listed(text: str) -> list[str]:
    return [answer.replace(";", ",") for answer in re.split(r", |\n", text) if answer]


KINDS = {"number": listed(NUMBERS), "math": listed(MATHS), "text": listed(TEXTS)}


@pytest.mark.parametrize("task", KINDS)
def test_kinds(task):
    assert {answer: classify(answer, "What?")[1] for answer in KINDS[task]} == dict.fromkeys(KINDS[task], task)


@pytest.mark.parametrize("task", KINDS)
def test_every_kind_of_gold_scores_the_maximum(task):
    from trl_onevision.rewards.accuracy import accuracy_reward

    golds = KINDS[task]
    completions = [[{"role": "assistant", "content": f"<think>So.</think><answer>{gold}</answer>"}] for gold in golds]
    scores = accuracy_reward(completions, solution=golds, task=[task] * len(golds))
    assert dict(zip(golds, scores, strict=True)) == dict.fromkeys(golds, 1.0)


@pytest.mark.parametrize("answer", ["E", "A or C", "not A", "purple", "A bird", "A green or a red one"])
def test_an_answer_beyond_the_options_is_no_gold(answer):
    with pytest.raises(RowError, match="gold is no option"):
        classify(answer, "Which?", ["red", "blue", "green"])


def test_a_letter_without_options_is_a_choice_only_where_a_letter_was_asked_for():
    assert classify("C", "Answer with the option's letter from the given choices directly.") == ("C", "choice")
    assert classify("C", "Which point lies on the line?") == ("C", "text")


@pytest.mark.parametrize(
    ("turn", "thinking", "answer"),
    [
        ("<think>Red it is.</think>\n\nThe squares are red.\n\nAnswer: A", "Red it is.\n\nThe squares are red.", "A"),
        ("Red it is.</think>A", "Red it is.", "A"),
        ("Okay, so red.\n\nThe answer is A.", "Okay, so red.", "A"),
        ("<think>Red it is.</think><answer>A</answer>", "Red it is.", "A"),
        ("It shows a wide street with many trees.\n\nA street in an old town of brick.", "It shows", "A street in"),
        ("Look.\n\nAnswer: B\n\nExplanation: both sides fit.", "Look.\n\nExplanation: both sides fit.", "B"),
        ("<think>I count 3 and 4.</think>\n\nThe final answer is 7.", "I count 3 and 4.", "7"),
        ("Four and four, so\n\n### Final Answer\n\\[\n\\boxed{8}\n\\]", "Four and four,", "8"),
        ("Both fit.\n\nThe answer is A, because B is wrong.", "Both fit.\n\nbecause B is wrong.", "A"),
    ],
)
def test_every_turn_becomes_one_think_and_one_answer_block(turn, thinking, answer):
    completion = tagged_completion(turn)
    head, tail = completion.split("\n</think>\n<answer>\n")
    assert head.replace("\n\n", "\n").startswith("<think>\n" + thinking.replace("\n\n", "\n"))
    assert tail.startswith(answer) and tail.endswith("\n</answer>")
    assert [completion.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")] == [1, 1, 1, 1]


HOSTILE = [" ", "A. ", "(A) ", "\\boxed{", "answer ", "the ", "<think>", "</think>", "<answer>", "**", "$", "\n"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_costs_what_its_length_says(unit, linear):
    def read(body):
        text = "Answer: A. " + body
        read_choices(text)
        closing_answer(text)
        with contextlib.suppress(RowError):
            tagged_completion(text)

    linear(read, unit * 20_000)


def test_a_turn_without_reasoning_is_nothing_to_learn_from():
    with pytest.raises(RowError, match="no reasoning before the answer"):
        tagged_completion("Answer: B")


def grpo(columns, example):
    adapter = columns_adapter(columns)
    return adapter.to_row(Raw(example))


def test_columns_as_published_files_have_them():
    question = {"question": "Which?"}
    row = grpo("prompt=question,solution=a,choices=o", {**question, "a": "['A', 'C']", "o": "['3', '5', '7']"})
    assert (row["solution"], row["choices"], row["task"]) == ('["A", "C"]', ["3", "5", "7"], "choice")
    row = grpo("prompt=question,solution=a,choices=o", {**question, "a": "red.", "o": ["A) blue", "B) red"]})
    assert (row["solution"], row["choices"]) == ("B", ["blue", "red"])
    row = grpo(
        "prompt=messages,solution=r.gold", {"messages": [{"role": "user", "content": "2 + 3?"}], "r": {"gold": 5}}
    )
    assert (row["solution"], row["task"]) == ("5", "number")
    example = {"q": "Is <image 1> like <image 2>?", "a": "yes", "i1": "x.png", "i2": "y.png"}
    row = grpo("prompt=q,solution=a,image=i1+i2", example)
    assert row["images"] == ["x.png", "y.png"]
    assert [block["type"] for block in row["prompt"][0]["content"]].count("image") == 2


@pytest.mark.parametrize("gold", [[211.2, 30, 50, 60], "[211.2, 30, 50, 60]", '{"bbox_2d": [1, 2, 3, 4]}'])
def test_a_box_without_a_task_is_never_four_accepted_numbers(gold):
    assert grpo("prompt=q,solution=a", {"q": "Where?", "a": gold})["task"] == "boxes"


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("求x的值。A．3　B．4", ["3", "4"]),
        ("角等于多少？A、30° B、40°", ["30°", "40°"]),
        ("Which?\n**A.** 3\n**B.** 4", ["3", "4"]),
        ("Which?\n- A) 3\n- B) 4", ["3", "4"]),
    ],
)
def test_options_in_other_spellings(question, choices):
    assert read_choices(question) == choices
