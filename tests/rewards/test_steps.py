import pytest

from trl_onevision.rewards.steps import (
    StepAccuracyReward,
    StepValidityReward,
    step_accuracy_reward,
    step_share,
    structure,
)

STEPS = [["radius is 3", "r = 3"], ["area is 9 pi", "9 * pi"]]
FULL = (
    "### Image Description: a disc\n### Rationales: the area of a disc\n### Let's think step by step.\n"
    "### Step 1: The radius is 3.\n### Step 2: so it is 9*pi\n### The final answer is: 28.27"
)


def accuracy(text, reward=step_accuracy_reward, solution="28.27", key_steps=STEPS):
    (value,) = reward([text], solution=[solution], key_steps=[key_steps])
    return value


def test_the_three_cases_of_equation_2():
    assert accuracy(FULL) == pytest.approx(1.1)
    assert accuracy(FULL.replace("28.27", "30")) == pytest.approx(0.1)
    assert accuracy(FULL.replace("9*pi", "18")) == pytest.approx(1.05)
    assert accuracy(FULL.partition("### The final")[0]) == 0


@pytest.mark.parametrize(
    "key_steps", ["r = 3", 5, [5], ["r = 3", 5], [None], [["r = 3", 5]], [[""]], [[]], [["r = 3"], []], [" "]]
)
@pytest.mark.parametrize("mode", ["paper", "code"])
def test_steps_that_say_nothing_are_reported_with_their_row(mode, key_steps, caplog):
    reward = StepAccuracyReward(mode=mode, name=f"steps_{mode}_{key_steps}")
    columns = {"solution": ["28.27"], "key_steps": [key_steps], "id": ["row-7"]}
    assert [reward([text], **columns) for text in (FULL, "")] == [[None], [None]]
    assert [record.getMessage().count("row-7") for record in caplog.records] == [1]


def test_a_section_of_what_nobody_sees_is_empty():
    assert not structure(FULL.replace("The radius is 3.", "\u200b"))["steps"]


def test_the_released_code_pays_key_steps_without_an_answer():
    code = StepAccuracyReward(mode="code")
    without_answer = FULL.partition("### The final")[0]
    assert accuracy(without_answer, code) == pytest.approx(0.05)  # "9 * pi" is not the substring "9*pi"
    assert accuracy(FULL, StepAccuracyReward(alpha=0.5)) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("text", "wording", "found"),
    [
        ("The radius is 3.", "Radius  is 3", True),
        ("x=2", "x = 2", True),
        ("x = 2", "x=2", True),
        ("x = 2.5", "x = 2", False),
        ("x = 12", "2", False),
        ("r = 3/2", "r = 3", False),
        ("r = 3 ^ 2", "r = 3", False),
        ("r = 3 / r", "r = 3 / r", True),
        ("1.2", "2", False),
        ("the diameters", "diameter", False),
        ("6/3 = 2", "6/3 = 2", True),
        ("a\nb", "a b", True),
        ("anything", "", False),
    ],
)
def test_wordings_match_on_word_boundaries(text, wording, found):
    assert step_share(text, [[wording]]) == found


def test_a_wording_in_a_word_and_outside_of_the_steps():
    text = "### Rationales: diameter\n### Step 1: meters\n### The final answer is: 7"
    assert step_share(text, [["meter"]], mode="code") == 1
    assert step_share(text, [["diameter"]], mode="code") == 0
    assert step_share(text, [["diameter"]], mode="paper") == 1
    assert step_share(text, [["meter"]], mode="paper") == 0


def test_rows_without_key_steps_or_without_a_gold_are_none():
    assert accuracy(FULL, key_steps=None) is None
    assert accuracy(FULL, key_steps=[]) is None
    assert accuracy(FULL, solution=None) is None
    assert accuracy(FULL, key_steps=["radius is 3", "no"]) == pytest.approx(1.05)


def change(old, new):
    return FULL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "paper", "code"),
    [
        (FULL, 1, 1),
        (FULL.replace("\n", "\n\n"), 1, 1),
        (f"<think>{FULL.partition('### The')[0]}</think>\n### The final answer is: 5", 1, 1),
        (change("### Image Description: a disc\n", ""), 0, 0),
        (change("### Rationales", "### Rationale of it"), 0, 0),
        (change("Step 2", "Step 3"), 0, 0),
        (change("Step 2", "Step 1"), 0, 0),
        (change("### The final answer is: 28.27", ""), 0, 0),
        (change("28.27", ""), 0, 1),
        (change("a disc\n", "\n"), 0, 1),
        ("### The final answer is: 5\n" + change("### The final answer is: 28.27", ""), 0, 0),
        ("### Rationales: r\n### Step 1: s\n### Image Description: d\n### The final answer is: 5", 0, 1),
        (FULL + "\n### The final answer is: 30", 0, 1),
        ("", 0, 0),
    ],
)
def test_validity(text, paper, code):
    assert StepValidityReward()([text]) == [paper]
    assert StepValidityReward(mode="code")([text]) == [code]


def test_structure_names_what_is_there():
    assert structure("### Step 2: x") == dict.fromkeys(
        ["description", "rationales", "steps", "answer", "order"], False
    )


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="expected one of paper, code"):
        StepValidityReward(mode="strict")
