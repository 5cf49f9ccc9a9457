"""What other packages get wrong about answers and formats, as they were observed to, and what happens here."""

import time

import pytest

from trl_onevision.rewards import AccuracyReward, FormatReward, accuracy_reward, format_reward

THINK = "<think>thinking</think>"


def accuracy(completion, gold, task=None, **columns):
    (score,) = accuracy_reward(
        [completion], solution=[gold], task=[task], **{name: [value] for name, value in columns.items()}
    )
    return score


@pytest.mark.parametrize(
    ("peer", "completion", "gold", "task", "expected"),
    [
        ("TRL: a plain number in the tag is 0", "<answer>42</answer>", "42", None, 1),
        ("TRL: a letter as the gold is None", "<answer>B</answer>", "B", None, 1),
        ("TRL: LaTeX without a box is 0", r"<answer>$\frac12$</answer>", "0.5", None, 1),
        ("TRL: a box is right", r"\boxed{0.5}", r"\frac{1}{2}", None, 1),
        ("MM-EUREKA, lmm-r1: a plain number in the tag is 0", "<answer>42</answer>", "42", "math", 1),
        ("lmm-r1: an unreadable gold is 1 for everything", "<answer>no</answer>", "{{{", "math", 0),
        ("R1-V: the gold in the thinking alone is paid", "<think>42</think><answer>41</answer>", "42", None, 0),
        ("R1-V: the tag with line breaks is not found", "<answer>\n42\n</answer>", "42", None, 1),
        ("EasyR1: an answer of several lines is 0", f"{THINK}<answer>\nx = 5\n</answer>", "5", None, 1),
        ("VLM-R1: a wrong number is paid its string similarity", "<answer>145</answer>", "146", None, 0),
        ("VLM-R1: a wrong word is paid its string similarity", "<answer>Berlin</answer>", "Bern", None, 0),
        ("VLM-R1: (B) is not read", "<answer>(B)</answer>", "B", "choice", 1),
        ("VLM-R1: B) red is not read", "<answer>B) red</answer>", "B", "choice", 1),
        ("VLM-R1: the no of know is a no", "<answer>I know: yes</answer>", "yes", "text", 1),
        ("VLM-R1: neither yes nor no on either side is right", "<answer>perhaps</answer>", "maybe", "yes_no", None),
        ("VLM-R1: an unreadable answer to yes/no", "<answer>perhaps</answer>", "yes", "yes_no", 0),
        ("VLM-R1: the first of several tags counts", "<answer>1</answer><answer>2</answer>", "2", None, 1),
        ("swift: a letter as the gold never pays", f"{THINK}<answer>C</answer>", "C", None, 1),
        ("swift, VLM-R1: 2.0 is 2√{3}", "<answer>2√{3}</answer>", "2.0", None, 0),
        ("swift, VLM-R1: 2√{3} is 2.0", "<answer>2.0</answer>", "2√{3}", None, 0),
        (
            "MM-EUREKA: a letter that is mentioned is the answer",
            "<answer>A, because B is wrong</answer>",
            "B",
            "choice",
            0,
        ),
        ("MM-EUREKA: and the one that is given", "<answer>A, because B is wrong</answer>", "A", "choice", 1),
        ("Video-R1: 5 is not 5.0", "<answer>5.0</answer>", "5", "number", 1),
        ("Video-R1: 1000 is not 1,000", "<answer>1000</answer>", "1,000", "number", 1),
        ("Video-R1: A. is not A", "<answer>A.</answer>", "A", "choice", 1),
        ("Unsloth: only the exact string counts", "<answer> Forty two. </answer>", "forty two", "text", 1),
        ("GeoQA logs: an angle with its sign", f"{THINK}<answer>145°</answer>", "145", None, 1),
        ("GeoQA logs: an angle as the gold", f"{THINK}<answer>145</answer>", "145°", None, 1),
        ("GeoQA logs: an angle in LaTeX", rf"{THINK}<answer>$145^\circ$</answer>", "145°", None, 1),
        ("GeoQA logs: a gold in its tags", f"{THINK}<answer>145°</answer>", "<answer> 145° </answer>", None, 1),
    ],
)
def test_accuracy(peer, completion, gold, task, expected):
    assert accuracy(completion, gold, task) == expected, peer


def test_video_r1_takes_the_type_of_the_first_row_for_all():
    completions = ["<answer>B</answer>", "<answer>5.0</answer>", "<answer>paris</answer>"]
    tasks = ["choice", "number", "text"]
    assert accuracy_reward(completions, solution=["B", "5", "Paris"], task=tasks) == [1, 1, 1]


def test_vlm_r1_cosine_pays_right_and_wrong_alike():
    from trl_onevision.rewards import DynamicLengthReward

    rows = {"solution": ["4", "4"], "completion_ids": [[0] * 10] * 2}
    reward = DynamicLengthReward(low=-0.5, high=0.0, wrong_only=True, max_length=100)
    right, wrong = reward(["Answer: 4", "Answer: 5"], prompts=["a", "b"], **rows)
    assert wrong < right


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", "2^{2^{2^{2^{2^{2}}}}}"])
def test_math_verify_hangs_on_a_power_tower(answer):
    """Math-Verify#65 was still running after a minute, also on the main thread."""
    start = time.monotonic()
    assert AccuracyReward(budget=10)([f"<answer>{answer}</answer>"], solution=["42"]) == [0]
    assert time.monotonic() - start < 12


@pytest.mark.parametrize(
    ("peer", "completion", "expected"),
    [
        (
            "VLM-R1, R1-V, Video-R1, EasyR1: nested thinking is accepted",
            "<think>a<think>b</think><answer>c</answer>",
            0,
        ),
        ("the same: two answers are accepted", f"{THINK}<answer>1</answer><answer>2</answer>", 0),
        ("the same: a line break at the end is refused", f"{THINK}<answer>1</answer>\n", 1),
        ("ORM: thinking of several lines is refused", "<think>a\nb</think>\n<answer>\n1\n</answer>", 1),
        ("lmm-r1: white space between the blocks is refused", f"{THINK}\n\n<answer>1</answer>", 1),
        ("MM-EUREKA: text around the tags is accepted", f"well, {THINK} so <answer>1</answer> it is", 0),
        ("TRL: the answer is not asked for", f"{THINK} 42", 0),
        ("OpenVLThinker: no text after the thinking is punished", THINK, 0),
        ("R1-VL: an empty answer passes", f"{THINK}<answer></answer>", 0),
    ],
)
def test_format(peer, completion, expected):
    assert format_reward([completion]) == [expected], peer


def test_every_peer_refuses_what_a_template_opened():
    completion = "thinking</think><answer>1</answer>"
    assert FormatReward(opened=True)([completion]) == [1]
    assert format_reward([completion]) == [0]


def test_easyr1_takes_a_box_anywhere_after_any_thinking():
    assert FormatReward("boxed")([r"<think>\boxed{1}</think> 1", r"<think>a</think> \boxed{1} \boxed{2}"]) == [0, 0]
