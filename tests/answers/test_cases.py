"""Answers as models write them under pressure, each with its verdict: a file of small cases, and their siblings."""

import json
from pathlib import Path

import pytest

from trl_onevision.rewards import AccuracyReward, accuracy_reward

COLOURS = ["red", "green", "blue", "yellow"]


def cases():
    """The rows of each kind in `cases.txt`, whose head says how it is written."""
    kinds = {}
    for line in Path(__file__).with_name("cases.txt").read_text().splitlines():
        mark, _, said = line.partition(" ")
        if mark == "##":
            rows = kinds.setdefault(said, [])
        elif mark == "#":
            task, gold, *options = said.split(" | ")
            gold = json.loads(gold.removeprefix("J:")) if gold.startswith("J:") else gold
            columns = None if task == "-" else task, gold, options[0].split(" ; ") if options else None
        elif mark in ("+", "-"):
            text = said.replace("⏎", "\n")
            text = text[1:] if text.startswith("!") else f"<think>some thought, 7, A</think><answer>{text}</answer>"
            rows.append((*columns, text, float(mark == "+")))
    return kinds


CASES = cases()


def score(gold, said, task=None, choices=None, reward=accuracy_reward):
    (value,) = reward([said], solution=[gold], task=[task], choices=[choices])
    return value


@pytest.mark.parametrize("kind", CASES)
def test_cases(kind):
    tasks, golds, choices, texts, _ = zip(*CASES[kind], strict=True)
    paid = accuracy_reward(list(texts), solution=golds, task=tasks, choices=choices)
    wrong = [row for row, value in zip(CASES[kind], paid, strict=True) if value != row[-1]]
    assert wrong == []


NO_PICK_OF_A = """
A / B
A & B
A; C
Neither A nor B
A|B|C
A B C D
ABCD
Either A or B
A, possibly B
A (or B)
A? B?
A?
maybe A
It could be A
A is not the answer
Not A, B
red, green
red or green
red green blue yellow
everything but red
a) red b) green
red is wrong
The answer is not A
A = red
{A, B}
A、B
不选A
不是A
除了A
A或B
A不对
A和B
['a','b']
A -> B -> C -> D
A, b, c
(A),(B),(C),(D)
a-a-a-a
A*B
2A
A1
Between A and B
A to D
A-D
A~D
at least A
A and others
A plus B
A with B
A instead, no, B
I cannot determine; A
All of the above
A, but B is also possible
A, but it could be C
A, however B is correct
A. However, the correct answer is B.
A. B would be right too
A, B being the second best
A (B is also plausible)
A - or perhaps green
A is right and so is B
Both A and B
A as well as B
A while B is also right
A, followed by B
A then B
A unless B
A, though maybe B
A is tempting, but B
A is a distractor
A was my first guess
A? No, B
A和B都对
A,但B也可以
A以外
A, else B
A, failing that B
A - red, B - green
A 还是 B
A 和 B 之一
A~D 均可
A均可
排除A
{"answer": "A", "alternative": "B"}
{"A": 0.5, "B": 0.5}
hardly red
I doubt it is red
is it red?
A and B are both right
My answer: A. Backup: B
A ✗
A ×
~~A~~
¬A
A有误
A存疑
"""
PICKS_OF_A = """
A
(a) red
a.
[A]
{A}
“A”
['A']
A!
I think A
I'd go with A.
Option A is correct
A is the correct answer
It's definitely A!
A - red
A: red
A. red
A．red
选A
答案是A
choice (A)
A (not B)
A rather than B
A instead of B
A) red, because B is wrong
The red option
$\\mathbf{A}$
**A**
A because it is warm
A since it is not B
A, not B
A, so B is wrong
A, B is wrong
A ✓
~~B~~ A
A, but B is wrong
"""


@pytest.mark.parametrize("said", [line for line in NO_PICK_OF_A.splitlines() if line])
def test_what_does_not_pick_an_option(said):
    assert score("A", f"<answer>{said}</answer>", "choice", COLOURS) == 0


@pytest.mark.parametrize("said", [line for line in PICKS_OF_A.splitlines() if line])
def test_what_picks_an_option(said):
    assert score("A", f"<answer>{said}</answer>", "choice", COLOURS) == 1


@pytest.mark.parametrize(
    ("gold", "choices", "said", "expected"),
    [
        ("A", ["5 km", "6 km"], "5000 m", 1),
        ("A", ["3:2", "2:3"], "3/2", 1),
        ("A", [r"$3 \cdot 2^5$", "97"], "96", 1),
        ("A", [r"$80-2 \pi$", "80"], r"80-2\pi", 1),
        ("A", ["(u, v) = (0, 0)", "(u, v) = (1, 0)"], "(A) (u, v) = (0, 0).", 1),
        ("B", ["Yes", "No"], "B (No)", 1),
        ("B", ["Yes", "No"], "No, it is not.", 1),
        ("B", ["Yes", "No"], "No answer can be extracted", 0),
        ("B", ["Yes", "No"], "There is no answer provided", 0),
        ("I", list("abcdefghi"), "I'm sorry. I can't assist", 0),
        ("18", ["9", "12", "18", "18"], "C", 1),
        ("18", ["9", "12", "18", "18"], "D", 1),
        ("18", ["9", "12", "18", "18"], "18", 1),
        ("B", ["first or second century", "sixth or seventh century"], "(B) sixth or seventh century", 1),
        ("C", ["26°", "74°", "64°"], "D（64°）", 0),
        ("C", ["26°", "74°", "64°"], "C（64°）", 1),
        ("A", ["A) red", "B) blue"], "red", 1),
    ],
)
def test_options_are_values(gold, choices, said, expected):
    assert score(gold, f"<answer>{said}</answer>", "choice", choices) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Answer: 5\n\nThe answer is 6", 1),
        ("The answer is 6. The answer is given in metres.", 1),
        (r"\boxed{5} Then \boxed{6}", 1),
        ("### Final Answer\n\n6", 1),
        ("so 2 + 4 = 6\n#### 6", 1),
        (r"\[ \text{Answer: 6} \]", 1),
        ("<answer>The sides are 2 and 4. Therefore, the sum is 6.</answer>", 1),
        ('<answer>{"answer": 6}</answer>', 1),
        ("Answer: 6</s>", 1),
        ("Answer: 6\nThe answer is 5", 0),
        (r"<answer>not \boxed{6}</answer>", 0),
        (r"<answer>\boxed{6} is wrong</answer>", 0),
        ("I don't think the answer is 6", 0),
        ("6", 1),
    ],
)
def test_the_last_statement_that_can_be_read(said, expected):
    assert score("6", said, "number") == expected


@pytest.mark.parametrize("task", ["number", "math", None])
@pytest.mark.parametrize(
    ("gold", "said", "expected"),
    [
        ("3", "x + 3 apples", 0),
        ("3", "3 sometimes, or 4", 0),
        ("3", "at most 3", 0),
        ("3", "over 3", 0),
        ("3", "3 to 5", 0),
        ("3", "3-5", 0),
        ("3", "3?", 0),
        ("3", "2 + 2 = 3", 0),
        ("3", "x + 3 = 3", 0),
        ("3", "3 and a half", 0),
        ("3", "3 of them and 4", 0),
        ("3", "It is definitely 3!", 0),
        ("3", "There are 3 red apples in the picture.", 1),
        ("3", "1 + 2 = 3", 1),
        ("3", "The length is 3 cm, because 1 + 2 = 3", 1),
        ("3.5", "three and a half", 1),
        ("2.5", "two point five", 1),
        ("1500000", "1.5 million", 1),
        ("2h 30min", "14h 30min", 0),
        ("2h 30min", "150 minutes", 1),
        ("5 cm", "5 bananas", 0),
        ("5 apples", "5 cm", 0),
        ("5 apples", "5 oranges", 0),
        ("50%", "0.5", 1),
        ("12", "12.0", 1),
        ("22.6", r"16\sqrt{2}", 1),
        ("22.6", "22.7", 0),
    ],
)
def test_numbers(gold, said, expected, task):
    assert score(gold, f"<answer>{said}</answer>", task) == expected


def test_options_hold_where_the_task_is_inferred():
    assert score("100", "<answer>88</answer>", reward=AccuracyReward(number="mra")) == pytest.approx(0.8)
    assert score("100", "<answer>112.5</answer>", reward=AccuracyReward(number="decay")) == pytest.approx(0.5)
    assert score("200", "<answer>205</answer>", reward=AccuracyReward(tolerance=0.05)) == 1
    assert score("INV-1024", "<answer>INV-1O24</answer>", reward=AccuracyReward(text="anls")) == pytest.approx(0.875)
    assert score("22.6", r"<answer>16\sqrt{2}</answer>", reward=AccuracyReward(number="mra")) == 1


@pytest.mark.parametrize(
    ("task", "gold", "said", "expected"),
    [
        ("number", "3", "the square root of 3", 0), ("number", "3", "half of 3", 0),
        ("number", "3", "an area of 3", 1),
        ("number", "3", "a total of 3 apples", 1), ("number", "3", "3ish", 0), ("number", "3", "3!", 0),
        ("number", "6", "3!", 1), ("number", "3", "There are 3 apples!", 1), ("number", "3", "三分之一", 0),
        ("number", "1/3", "三分之一", 1), ("number", "5%", "百分之五", 1), ("number", "3", "3成", 0),
        ("number", "3", "3个左右", 0), ("number", "3", "3 below zero", 0), (None, "n!", "n", 0),
        ("yes_no", "yes", "是，又不是", 0), ("number", "4", r"\cancel{3} 4", 1),
        ("number", "3", "3的平方", 0), ("number", "3", "3 else 4", 0), ("number", "0.333", "1/3", 1),
        (None, "0.333", "1/3", 1), (None, "0.333", r"\frac{1}{3}", 1), (None, "0.333", "1/4", 0),
        (None, "P2", "P_2", 1), (None, "P_2", "P2", 1), ("math", "x_{12}", "x12", 1), ("math", "P2", "P_3", 0),
        ("math", "2P", "P2", 0), ("math", "4 + j3", "4 + 3j", 1), ("math", "2^3^2", "512", 1),
        ("text", "Paris", "Paris?", 0), ("text", "Who?", "who?", 1), ("yes_no", "yes", "yes?", 0),
        ("yes_no", "yes", "yes if it rains", 0), ("yes_no", "yes", "sometimes yes", 0),
        ("yes_no", "yes", "hardly true", 0),
        ("yes_no", "yes", "Yes, depending on the light", 1), ("yes_no", "yes", '{"yes": 1, "no": 1}', 0),
        ("date", "2024-03-05", "before 2024-03-05", 0), ("date", "2024-03-05", "by 2024-03-05", 0),
        ("date", "2024-03-05", "It was on 2024-03-05", 1), ("date", "2024-03-05", "2024年3月5日之后", 0),
        ("time", "3:05", "after 3:05", 0), ("time", "3:05", "3:05 fast", 0),
        ("time", "3:05", "The clock shows 3:05", 1),
        ("time", "3:05", "from 3:05 on", 0), ("set", "red, green", "red, green or blue", 0),
    ],
)  # fmt: skip
def test_what_a_policy_writes_to_be_paid_without_knowing(task, gold, said, expected):
    assert score(gold, f"<answer>{said}</answer>", task) == expected


def test_the_label_goes_before_the_words_of_a_gold_too():
    assert score("B", "<answer>B</answer>", "choice", ["B", "A", "B"]) == 1
    assert score("B", "<answer>A</answer>", "choice", ["B", "A", "B"]) == 0
    assert score("B", "<answer>B</answer>", "choice", [["A", "B", "Not enough information"]]) == 1


@pytest.mark.parametrize("number", ["tolerance", "mra", "decay"])
def test_a_huge_number_earns_nothing_by_any_measure(number):
    reward = AccuracyReward(number=number, tolerance=0.1 if number == "tolerance" else None)
    for said in ("10^{2000000}", "10^{-2000000}", "-2^{25000000}"):
        assert score("42", f"<answer>{said}</answer>", "number", reward=reward) == 0
