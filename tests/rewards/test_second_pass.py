"""Rewards that ask again: captions, shuffled options, and no image."""

import pickle

import numpy as np
import pytest

from trl_onevision.rewards.second_pass import (
    BlindReward,
    CaptionAnswerReward,
    ConsistencyReward,
    _replaced,
    blind_reward,
    caption_answer_reward,
    consistency_reward,
    moved,
)

PROMPT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}]


class Asked:
    """Answers with what is given, and keeps what it was asked."""

    def __init__(self, *replies):
        self.replies, self.conversations, self.starts = replies, None, None

    def __call__(self, conversations, starts=None):
        self.conversations, self.starts = conversations, starts
        replies = iter(self.replies)
        return [None if one is None else next(replies) for one in conversations]


def test_a_miss_never_shifts_a_reward_to_another_completion():
    ask = Asked("<answer>4</answer>", "<answer>5</answer>")
    completions = ["no caption", "<info>four\ncats</info>", "<info></info>", "<info>five</info>", "<info>a"]
    paid = CaptionAnswerReward(ask=ask)(completions, prompts=[PROMPT] * 5, solution=["4", "4", "4", "5", "4"])
    assert paid == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert [one is not None for one in ask.conversations] == [False, True, False, True, False]
    assert "four\ncats" in ask.conversations[1][0]["content"] and "How many?" in ask.conversations[1][0]["content"]


@pytest.mark.parametrize(
    "completion",
    [
        "<info>cats <answer>4</answer></info>",
        r"<info>\boxed{4}</info>",
        "<info>Answer: 4</info>",
        "<info>a</info><info>four</info>",
        "<info><info>four</info></info>",
        "</info>four<info>",
        "<info> \n </info>",
        "<info>\u200b</info>",
        "<info>cats <answer>4</info>",
        r"<info>cats \boxed{4</info>",
        "<info>＜answer＞4＜/answer＞</info>",
        "<info>Ａnswer: 4</info>",
        "<info> **4.** </info>",
        "<info>5</info><answer>5</answer>",
    ],
)
def test_what_is_no_caption_is_not_asked_about(completion):
    ask = Asked()
    assert CaptionAnswerReward(ask=ask)([completion], prompts=["How many?"], solution=["4"]) == [0.0]
    assert ask.conversations == [None]


def test_a_caption_may_say_what_is_right():
    ask = Asked("<answer>4</answer>")
    assert CaptionAnswerReward(ask=ask)(["<info>4 cats</info>"], prompts=["How many?"], solution=["4"]) == [1.0]


def test_braces_in_a_caption_or_a_question_are_text():
    ask = Asked("<answer>4</answer>")
    prompt = r"What is \frac{1}{2} of {caption}?"
    assert CaptionAnswerReward(ask=ask)(["<info>{question} {0}</info>"], prompts=[prompt], solution=["4"]) == [1.0]
    assert r"\frac{1}{2}" in ask.conversations[0][0]["content"] and "{0}" in ask.conversations[0][0]["content"]


def test_a_row_that_is_not_the_rewards_own_is_none():
    ask = Asked("<answer>4</answer>")
    assert CaptionAnswerReward(ask=ask)(["<info>a</info>"], prompts=["?"], solution=["[1,2]"], task=["boxes"]) == [
        None
    ]


CHOICE = "Which colour?\nChoices:\nA. red\nB. blue\nC. green"
GIVEN = ["red", "blue", "green"]
PAYS = {"kept": 1.0, "lost": 0.5, "wrong_kept": -0.25, "wrong_changed": -0.5}


def consistency(completion, second, gold="B"):
    """The pay where the reply picks the option of the given text, wherever it stands now."""

    def ask(conversations, starts):
        ask.seen, ask.starts = conversations, starts
        lines = conversations[0][0]["content"].splitlines() if conversations[0] else []
        return [f"<answer>{next(line[0] for line in lines if line[3:] == second)}</answer>" if lines else None]

    paid = ConsistencyReward(**PAYS, ask=ask)(
        [completion], prompts=[CHOICE], solution=[gold], task=["choice"], choices=[GIVEN]
    )
    return paid[0], ask


@pytest.mark.parametrize(
    ("first", "second", "case"),
    [("B", "blue", "kept"), ("B", "red", "lost"), ("C", "green", "wrong_kept"), ("C", "blue", "wrong_changed")],
)
def test_the_four_cases(first, second, case):
    paid, ask = consistency(f"<think>Hmm.\nSo.</think>\n<answer>{first}</answer>", second)
    assert paid == PAYS[case]
    assert ask.starts == ["<think>Hmm.\nSo.</think>"]
    lines = ask.seen[0][0]["content"].splitlines()[2:]
    assert sorted(line[3:] for line in lines) == sorted(GIVEN)
    assert all(line[3:] != option for line, option in zip(lines, GIVEN, strict=True))


def test_without_closed_thinking_nothing_is_asked():
    paid, ask = consistency("<answer>B</answer>", "blue")
    assert paid == PAYS["lost"] and ask.seen == [None]
    paid, _ = consistency("<think>", "blue")
    assert paid == PAYS["wrong_changed"]


def test_rows_that_cannot_be_shuffled_are_none():
    reward = ConsistencyReward(ask=Asked())
    rows = {"prompts": ["Which?", CHOICE, CHOICE], "solution": ["A", "4", "A"], "task": ["choice", "math", "choice"]}
    assert reward(["<think>a</think>A"] * 3, **rows, choices=[GIVEN, None, ["red"]]) == [None, None, None]


@pytest.mark.parametrize("column", [list, tuple, np.array])
def test_columns_may_be_of_any_kind(column):
    reward = ConsistencyReward(ask=lambda asked, starts: ["<answer>B</answer>"] * len(asked))
    rows = {"prompts": [CHOICE] * 2, "solution": ["B"] * 2, "task": ["choice"] * 2, "choices": [column(GIVEN)] * 2}
    paid = reward(
        ["<think>a</think><answer>B</answer>"] * 2, **{name: column(values) for name, values in rows.items()}
    )
    assert paid == [0.0, 0.0]
    assert reward(["x"], prompts=[CHOICE], solution=["A"], task=["choice"], choices=[["red", None, "blue"]]) == [None]


def test_every_option_moves_and_the_order_follows_from_the_text():
    for count in range(2, 11):
        for seed in "abcdefgh":
            order = moved(count, seed)
            assert sorted(order) == list(range(count))
            assert all(place != old for place, old in enumerate(order))
            assert order == moved(count, seed)


def test_options_are_replaced_where_they_stand():
    assert _replaced("A) 1 B) 12 C) 2", ["1", "12", "2"], ["12", "2", "1"]) == "A) 12 B) 2 C) 1"
    assert _replaced("A) 1 B) 12", ["1", "2"], ["2", "1"]) is None
    assert _replaced("Is A red? A: red\nB: blue", ["red", "blue"], ["blue", "red"]) == "Is A red? A: blue\nB: red"


def test_a_group_asks_once_without_its_image():
    ask = Asked("<answer>4</answer>", "<answer>4</answer>")
    rows = {"prompts": [PROMPT] * 4, "solution": ["4", "4", "5", "5"], "id": [1, 1, 2, 2]}
    assert BlindReward(ask=ask)(["x"] * 4, **rows) == [1.0, 1.0, 0.0, 0.0]
    assert ask.conversations == [[{"role": "user", "content": "How many?"}], None] * 2


@pytest.mark.parametrize("reward", [caption_answer_reward, consistency_reward, blind_reward])
def test_without_a_policy_to_ask_it_says_what_to_do(reward):
    columns = {"prompts": ["?"], "solution": ["A"]}
    with pytest.raises(ValueError, match="OneVisionGRPOTrainer alone hands to rewards"):
        reward(["<info>a</info>"], **columns)
    assert reward([], prompts=[], solution=[]) == []
    assert pickle.loads(pickle.dumps(reward)).__name__ == reward.__name__
