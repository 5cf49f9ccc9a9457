import logging

import pytest

from trl_onevision.answers.task import task_of
from trl_onevision.rewards.accuracy import AccuracyReward, accuracy_reward


def score(gold, answer, task=None, reward=accuracy_reward, **columns):
    columns = {name: [column] for name, column in columns.items()}
    (value,) = reward([f"<think>?</think><answer>{answer}</answer>"], solution=[gold], task=[task], **columns)
    return value


MATH = [
    ("42", "42", 1),
    ("42", "$42$", 1),
    ("42", "42.", 1),
    ("42", "The value is 42", 1),
    ("42", "42 or 43", 0),
    ("42", "", 0),
    (r"\frac{1}{2}", "0.5", 1),
    (r"\frac{1}{2}", r"$\frac12$", 1),
    (r"\frac{1}{2}", r"\dfrac{1}{2}", 1),
    (r"\frac{1}{2}", "50%", 1),
    ("1/3", "0.333333", 1),
    ("1/3", "0.33", 0),
    ("1 2/3", "5/3", 1),
    ("1000", "1,000", 1),
    (r"2\sqrt{3}", "2√3", 1),
    (r"2\sqrt{3}", "sqrt(12)", 1),
    (r"2\sqrt{3}", "2.0", 0),
    ("90°", "90", 1),
    ("90", r"90^\circ", 1),
    ("145°", "145 degrees", 1),
    ("5 cm", "50 mm", 1),
    ("5 cm", "5", 1),
    ("5", "5 cm", 1),
    ("5 cm", "5 m", 0),
    ("3m", "3m", 1),
    *[
        ("50", f"50 {unit}", 1)
        for unit in ["km/h", "m/s", "mL", "N", "J", "W", "V", "°C", "m²", "m^2", "cm^3", "kW", "Ω", "kg"]
    ],
    ("50", "**50 cm**", 1),
    ("50", r"50~\text{cm}", 1),
    ("50", r"50^\circ C", 1),
    ("50", "50€", 1),
    ("50", "v = 50 km/h", 1),
    ("50", "51 km/h", 0),
    ("50", "50 m 20 cm", 0),
    ("50%", "50 cm", 0),
    ("3", "3x", 0),
    ("3", "3 m n", 0),
    ("3", "3 V/R", 0),
    ("3", "3 N + 2", 0),
    ("42", "It is 42", 1),
    ("42", "x is 42", 1),
    ("42", "It's 42.", 1),
    ("42", "It is 41", 0),
    ("5", "x is 2 + 3 or 5", 0),
    (r"3\times10^8", "3e8", 1),
    (r"3\cdot10^{8}", r"3 \times 10^8", 1),
    (r"3\times10^8", "3", 0),
    ("x^2+2x+1", "(x+1)^2", 1),
    ("x=5", "5", 1),
    ("5", "x = 5", 1),
    ("y = 2x + 1", "y = 1 + 2x", 1),
    ("x=5", "x=6", 0),
    ("(1, 2)", "(1,2)", 1),
    ("(1, 2)", "(2, 1)", 0),
    ("[0, 1)", "[0, 1]", 0),
    (r"(-\infty, 3)", "x < 3", 1),
    (r"\{1, 2\}", r"\{2, 1\}", 1),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", 1),
    (r"\frac{\pi}{2}", "π/2", 1),
    ("-1", "−1", 1),
    ("1/12", "0.083333", 1),
    ("1/12", "0.0834", 0),
    (r"1.6 \times 10^{-19}", "1.6e-19", 1),
    (r"1.6 \times 10^{-19}", "0", 0),
    (r"1.6 \times 10^{-19}", "x = 0", 0),
    (r"1.6 \times 10^{-19}", r"0.16 \times 10^{-18}", 1),
    ("1.6e-19", "The result is 0", 0),
    ("6.63e-34", "5e-12", 0),
    ("2.5e-7", "2.5e-8", 0),
    (r"(1.6 \times 10^{-9}, 2)", "(0, 2)", 0),
    (r"\pi \times 10^{-19}", r"e \times 10^{-19}", 0),
    (r"\frac{\pi}{500}", "0.006283", 1),
    (r"10^{400} x", r"x \cdot 10^{400}", 1),
    ("0", "0.0", 1),
    (r"\sin x", "sin(x)", 1),
    (r"\sin x", "cos(x)", 0),
    (r"2\cos x", "2cos(x)", 1),
    (r"\ln 2", "ln 2", 1),
    (r"\ln 2", "ln 3", 0),
    (r"\frac{\sin x}{2}", "sin(x)/2", 1),
    (r"\sin x", r"\operatorname{sin}(x)", 1),
    (r"\frac{\pi}{2}", r"\frac{pi}{2}", 1),
    (r"\arctan x", "arctan(x)", 1),
    ("tan 30", "nat 30", 0),
    ("tan 30", r"\tan 30", 1),
    ("cos(2x)", "soc(2x)", 0),
    ("cos(2x)", "cos(2 x)", 1),
    ("ln 2", "nl 2", 0),
    ("hello", "olleh", 0),  # the letters as factors of a product would commute
]


UNITS = [
    ("5 MW", "5 mW", 0),
    ("5 MW", "5000 kW", 1),
    ("1 MV", "0.001 V", 0),
    ("2 MV", "2000 kV", 1),
    ("5 KM", "5000 m", 1),
    ("0.5 A", "500 mA", 1),
    ("50 m/s", "180 km/h", 1),
    ("50 m/s", "180 m/s", 0),
    ("9.8 m/s^2", "980 cm/s²", 1),
    ("20°C", "20 degrees Celsius", 1),
    ("20 C", "20 °C", 1),
    ("20°C", r"20^\circ\text{C}", 1),
    ("20°C", "20 °F", 0),
    ("20 °C", "20 K", 0),
    ("5 cm", r"\sqrt{25} cm", 1),
    ("5 cm", r"\sqrt{25} m", 0),
    ("5 cm", r"\sqrt{25}m", 0),
    ("5 cm", r"\sqrt{25}", 1),
    ("5 cm", r"\frac{\sqrt{25}}{100}\text{ m}", 1),
    ("5 cm^2", r"\sqrt{25}\text{ cm}^2", 1),
    ("5 cm^2", r"\sqrt{25}\text{ cm}", 0),
    ("18 km/h", r"\sqrt{25}\text{ m/s}", 1),
    (r"5\sqrt{3} cm", r"5\sqrt{3} m", 0),
    (r"5\sqrt{3}\text{ cm}", r"50\sqrt{3} mm", 1),
    (r"5\sqrt{3}\text{ cm}", r"\sqrt{75}", 1),
    (r"10\pi \text{ cm}^2", r"10\pi \text{ cm}", 0),
]


@pytest.mark.parametrize(("gold", "answer", "expected"), UNITS)
def test_units(gold, answer, expected):
    assert score(gold, answer) == expected
    assert score(gold, answer, "math") == expected
    assert score(gold, answer, "number") == expected


@pytest.mark.parametrize(("gold", "answer", "expected"), MATH)
def test_math(gold, answer, expected):
    assert score(gold, answer, "math") == expected


CHOICE = [
    ("B", "B", 1),
    ("B", "b", 1),
    ("B", "(B)", 1),
    ("B", "B.", 1),
    ("B", "B) red", 1),
    ("B", "B. red", 1),
    ("B", "**B**", 1),
    ("B", r"\text{B}", 1),
    ("B", "Option B", 1),
    ("B", "The answer is B", 1),
    ("B", "The correct option is (B).", 1),
    ("B", "it is option (B)", 1),
    ("B", "B because it is red", 1),
    ("B", "选项B", 1),
    ("B", "（B）", 1),
    ("B", "A, because B is wrong", 0),
    ("A", "A, because B is wrong", 1),
    ("B", "A or B", 0),
    ("B", "A, B, C, D", 0),
    ("B", "ABCD", 0),
    ("A", "A man walks his dog", 0),
    ("A", "A, I think", 1),
    ("B", "B) A dog", 1),
    ("(B)", "B", 1),
    ("A,C", "A and C", 1),
    ("A,C", "C, A", 1),
    ("A,C", "AC", 1),
    ("A,C", "A", 0),
    ("A,C", "A, B, C", 0),
    ('["A", "C"]', "A, C", 1),
    ("J", "J", 1),
    ("B", "42", 0),
    ("A,C", "A. red, C. green", 1),
    ("A,C", "A. red\nC. green", 1),
    ("A,C", "(A) red and (C) green", 1),
    ("A,C", "**A)** red; **C)** green", 1),
    ("A", "A) red\nB) blue\nC) green", 0),
    ("A", "A. red, B. blue", 0),
    ("A", "A) red B) blue C) green", 0),
    ("A", "A: red / B: blue", 0),
    ("A", "A\nB\nC", 0),
    ("A", "A\nB is wrong.", 1),
    ("B", "B) 14 cm or C) 16 cm", 0),
    ("B", "B) 14 cm or C)", 0),
    ("B", "B: 14 cm", 1),
    ("A", "A) red, not B) blue", 1),
    ("A", "A) red. B) blue is wrong.", 1),
    ("A,C", "A. yes, C. is wrong", 0),
    ("B", "B) 14 cm, because A) and C) are too far", 1),
    ("B", "B) Vitamins A, C.", 1),
]


@pytest.mark.parametrize(("gold", "answer", "expected"), CHOICE)
def test_choice(gold, answer, expected):
    assert score(gold, answer, "choice") == expected


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("B", "B", 1),
        ("B", "dark red", 1),
        ("dark red", "B", 1),
        ("dark red", "The car is dark red.", 1),
        ("red", "The car is dark red.", 0),
        ("B", "A) red", 0),
        ("B", "red", 0),
        ("B", "red or blue", 0),
        ("C", "蓝色", 1),
        ("E", "E", None),  # there are four options: this gold is broken
        ("B", "E", 0),
    ],
)
def test_choice_by_the_words_of_an_option(gold, answer, expected):
    assert score(gold, answer, "choice", choices=["red", "dark red", "蓝色", "A) or B)"]) == expected


@pytest.mark.parametrize(
    ("choices", "gold", "answer", "expected"),
    [([1, 2], "B", "2", 1), ([1, 2], "B", "1", 0), (["red", None], "A", "red", 1), (["red", None], "B", ".", 0)],
)
def test_options_that_are_no_text(choices, gold, answer, expected):
    assert score(gold, answer, "choice", choices=choices) == expected


NUMBER = [
    ("1234", "1,234", 1),
    ("1,234", "1234", 1),
    ("1234.5", "1.234,5", 1),
    ("5", "5.0", 1),
    ("1.5", "1,5", 1),
    ("12%", "12 percent", 1),
    ("50%", "0.5", 1),
    ("50%", "50", 1),
    ("2500", "2.5e3", 1),
    ("2500", r"2.5 \times 10^{3}", 1),
    ("2500", r"2.5\times10^3", 1),
    (r"2.5\times10^3", "2.5", 0),
    ("1.25 km", "1,250 m", 1),
    ("5 kg", "5 cm", 0),
    ("3.14", "3.14159", 1),
    ("3.14", "3.2", 0),
    ("3.1416", "3.14", 0),
    ("2000", "1998", 0),
    ("0.5", r"\frac{1}{2}", 1),
    ("4", r"\sqrt{16}", 1),
    ("5", "five", 1),
    ("5", "There are 5 apples.", 1),
    ("5", "5 of 7", 0),
    ("7", "3 + 4 = 7", 1),
    ("$10", "10 dollars", 1),
    ("5000000", "5 million", 1),
    ("42", "４２", 1),
    ("42", "٤٢", 1),
    ("16", r"\sqrt{16}", 0),
    ("16", "sqrt(16)", 0),
    ("4", "sqrt(16)", 1),
    ("12 cm", "sqrt(12)", 0),
    ("2", "2 sqrt(12)", 0),
    ("30", "sin(30)", 0),
    ("2", "2√{3}", 0),
    ("5", "5²", 0),
    ("10", "10^10", 0),
    ("1", "1e999999999", 0),
    ("-5", "−5", 1),
    ("1e-9", "1e-9", 1),
    ("1e-9", "7e-9", 0),
    ("1/3", "0.333333", 1),
    ("1/3000", "0.0003", 0),
]


WORDS = [
    ("25", "twenty-five", 1),
    ("30", "thirty", 1),
    ("100", "a hundred", 1),
    ("105", "one hundred and five", 1),
    ("1205", "one thousand two hundred and five", 1),
    ("5000000", "five million", 1),
    ("24", "two dozen", 1),
    ("-5", "minus five", 1),
    ("-5", "negative 5", 1),
    ("2/3", "two thirds", 1),
    ("1/2", "a half", 1),
    ("0", "zero", 1),
    ("5", "FIVE: I count five.", 1),
    ("5", "the point is: five", 1),
    ("50%", "fifty percent", 1),
    ("5 cm", "five centimetres", 1),
    ("5 cm", "five metres", 0),
    ("1", "one hundred", 0),
    ("5", "forty-five", 0),
    ("5", "five million", 0),
    ("5", "5 hundred", 0),
    ("5", "minus five", 0),
    ("5", "minus 5", 0),
    ("1", "one third", 0),
    ("2", "two thirds", 0),
    ("2", "2 thirds", 0),
    ("4", "the twenty-fifth", 0),
    ("5", "five and a half", 0),
    ("5", "5 and a half", 0),
    ("3", "three point five", 0),
    ("5", "five or six", 0),
    ("5", "five six", 0),
    ("84", "nineteen eighty-four", 0),
    ("8", "8个", 1),
    ("8", "共有8个", 1),
    ("8", "8つ", 1),
    ("8", "8万", 0),
    ("80000", "8万", 1),
    ("3 kg", "3千克", 1),
    ("3", "3x", 0),
    ("3", "3θ", 0),
    ("42", "x42", 0),
]


@pytest.mark.parametrize("task", ["number", "count", "math"])
@pytest.mark.parametrize(("gold", "answer", "expected"), WORDS)
def test_numbers_in_words(gold, answer, expected, task):
    assert score(gold, answer, task) == expected


@pytest.mark.parametrize(("gold", "answer", "expected"), NUMBER)
def test_number(gold, answer, expected):
    assert score(gold, answer, "number") == expected


def test_tolerance_is_relative_and_holds_for_integers_too():
    reward = AccuracyReward(tolerance=0.05)
    assert score("200", "209", "number", reward) == 1
    assert score("200", "211", "number", reward) == 0


def test_mean_relative_accuracy():
    reward = AccuracyReward(number="mra")
    assert score("100", "100", "number", reward) == 1
    assert score("100", "88", "number", reward) == pytest.approx(0.8)  # error 0.12 is below 0.50, 0.45, …, 0.15
    assert score("100", "151", "number", reward) == 0
    assert score("0", "0", "number", reward) == 1


def test_tolerance_decay():
    reward = AccuracyReward(number="decay")
    scores = [score("100", answer, "number", reward) for answer in ("104", "112.5", "120", "1e300", "1/0")]
    assert scores == pytest.approx([1, 0.5, 0, 0, 0])


TEXT = [
    ("Paris", "paris", 1),
    ("Paris", "Paris.", 1),
    ("Paris", "  PARIS\n", 1),
    ("Eiffel Tower", "the Eiffel  Tower", 1),
    ("Paris", "Paris, France", 0),
    ('["NYC", "New York"]', "new york", 1),
    (["NYC", "New York"], "nyc", 1),
    ("yes", "Yes, it is.", 1),
    ("yes", "I know: yes", 1),
    ("no", "I know: yes", 0),
    ("yes", "yes or no", 0),
    ("no", "false", 1),
    ("yes", "perhaps", 0),
    ("是", "是的", 1),
    ("3:05", "five past three", 1),
    ("3:30", "half past three", 1),
    ("3:45", "quarter to 4", 1),
    ("15:05", "3:05 pm", 1),
    ("3:05 am", "3:05 pm", 0),
    ("7:00", "7 o'clock", 1),
    ("March 5, 2024", "2024-03-05", 1),
    ("2024-03-05", "5th of March 2024", 1),
    ("2024-03-05", "2024-03-06", 0),
    ("?", "?", 1),
    ("?", "!", 0),
]


@pytest.mark.parametrize(("gold", "answer", "expected"), TEXT)
def test_text(gold, answer, expected):
    assert score(gold, answer, "text") == expected


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("It is not true", False),
        ("not true", False),
        ("It isn't correct.", False),
        ("That isn’t true", False),
        ("It can't be true", False),
        ("never true", False),
        ("It's false, not true", False),
        ("No, that is not correct.", False),
        ("not false", True),
        ("It's true, not false", True),
        ("It is not only true", True),
        ("I am not sure; yes", True),
        ("It is not the case that this is true", None),
        ("不对", False),
        ("不正确", False),
        ("不是的", False),
        ("没", False),
        ("没错", True),
        ("没有错", True),
        ("对不对", None),
    ],
)
def test_a_negation_turns_a_yes_or_no(answer, truth):
    assert score("yes", answer, "yes_no") == float(truth is True)
    assert score("no", answer, "yes_no") == float(truth is False)


def test_similarities_of_text():
    assert score("invoice 1024", "invoice 1O24", "text", AccuracyReward(text="anls")) == pytest.approx(11 / 12)
    assert score("invoice", "receipt", "text", AccuracyReward(text="anls")) == 0
    assert score('["cat", "feline"]', "felime", "text", AccuracyReward(text="anls")) == pytest.approx(5 / 6)
    assert score("the cat sat down", "the cat sits down", "text", AccuracyReward(text="wer")) == 0.75
    assert score("cat", "dog " * 1000, "text", AccuracyReward(text="wer")) == 0


@pytest.mark.parametrize(
    ("task", "gold", "answer", "expected"),
    [
        ("yes_no", "yes", "true", 1),
        ("yes_no", "perhaps", "yes", None),
        ("count", "5", "five", 1),
        ("list", "1, 2, 3", "1, 2, 3", 1),
        ("list", "1, 2, 3", "3, 2, 1", 0),
        ("list", "red, green and blue", '["Red", "green", "BLUE"]', 1),
        ("set", "1, 2, 3", "3; 2.0; 1", 1),
        ("set", "1, 2", "1, 2, 2", 0),
        ("set", "a, b", "a, b, c", 0),
        ("list", '["red", "green"]', "red, green", 1),
        ("list", '["red", "green"]', "red", 0),
        ("list", ["red", "green"], "red and green", 1),
        ("set", '<answer>["red", "green"]</answer>', "green and red", 1),
        ("list", "[1, 2]", "1, 2", 1),
        ("list", [["red", "green"], ["rouge", "vert"]], "rouge, vert", 1),
        ("list", [["red", "green"], ["rouge", "vert"]], "red, vert", 0),
        ("date", "2024-03-05", "3/5/2024", 1),
        ("date", "soon", "2024-03-05", None),
        ("time", "3:05", "15:05", 1),
        ("time", "noon-ish", "12:00", None),
    ],
)
def test_tasks_asked_for_by_name(task, gold, answer, expected):
    assert score(gold, answer, task) == expected
    assert score(gold, answer, reward=AccuracyReward(task=task)) == expected


@pytest.mark.parametrize("task", ["boxes", "points", "span", "unheard_of"])
def test_the_task_of_another_reward_is_none(task, caplog):
    assert score("42", "42", task) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("gold", "choices", "task"),
    [
        ("B", None, "choice"),
        ("(B)", None, "choice"),
        ("A,C", None, "choice"),
        ("red", ["red", "blue"], "choice"),
        ("42", None, "number"),
        ("3.5", None, "number"),
        (r"\frac{1}{2}", None, "math"),
        ("x", None, "math"),
        ("x+1", None, "math"),
        ("50%", None, "number"),
        ("5 cm", None, "number"),
        ("145°", None, "number"),
        ("yes", None, "text"),
        ("2024-03-05", None, "text"),
        ("3:05", None, "text"),
        ("Paris", None, "text"),
        ("Route 66", None, "text"),
        ("a/b", None, "math"),
        ("a-b", None, "math"),
        ("a * b", None, "math"),
        ("ab - cd", None, "text"),
        ("n/a", None, "text"),
        ("N/A", None, "text"),
        ("A-B-C", None, "text"),
        ("well-known", None, "text"),
        ("and/or", None, "text"),
        ("red/blue", None, "text"),
        ("x-ray", None, "text"),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]', None, "boxes"),
    ],
)
def test_the_task_is_inferred_from_the_gold(gold, choices, task):
    assert task_of(gold, choices=choices) == task


@pytest.mark.parametrize("gold", ["<answer> 42 </answer>", r"So $x = \boxed{42}$.", 42, 42.0])
def test_a_gold_is_unwrapped(gold):
    assert score(gold, "42") == 1


@pytest.mark.parametrize("gold", [None, "", "  ", [], True, {"a": 1}, float("nan"), [float("nan")]])
def test_a_gold_that_cannot_be_scored_is_none_and_named_once(gold, caplog):
    reward = AccuracyReward()
    with caplog.at_level(logging.WARNING):
        first = reward(["<answer>1</answer>"] * 2, solution=[gold, "1"], id=["gold-7", "gold-8"])
        reward(["<answer>1</answer>"] * 2, solution=[gold, "1"], id=["gold-7", "gold-8"])
    assert first == [None, 1.0]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("accuracy_reward cannot score row 'gold-7': ")


def test_only_the_answer_is_paid():
    completions = [
        "<think>so 42</think>",
        "<think><answer>42</answer></think><answer>41</answer>",
        "<think>the answer is 42",
        [{"role": "assistant", "reasoning_content": r"\boxed{42}", "content": "I am done"}],
        [{"role": "assistant", "reasoning_content": "41", "content": "<answer>42</answer>"}],
    ]
    assert accuracy_reward(completions, solution=["42"] * 5, task=["math"] * 5) == [0, 0, 0, 0, 1]
    assert AccuracyReward(opened=True)(["the answer is 42"], solution=["42"]) == [0]


def test_what_is_logged():
    logged, metrics = {}, {}
    accuracy_reward(
        ["<answer>9^{9^{9^9}}</answer>", "no answer"],
        solution=["42", "42"],
        log_extra=logged.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert logged == {"accuracy_reward/answer": ["9^{9^{9^9}}", ""]}
    assert metrics == {"accuracy_reward/timeouts": 1.0}


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="expected one of exact, anls, wer"):
        AccuracyReward(text="fuzzy")
    with pytest.raises(ValueError, match="expected one of tolerance, mra, decay"):
        AccuracyReward(number="close")
    with pytest.raises(ValueError, match="at least 0"):
        AccuracyReward(tolerance=-1)
