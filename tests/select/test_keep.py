"""The rules on rows made by hand, and the figures against TRL's own."""

import pytest
import torch
from trl.trainer.utils import nanstd

from trl_onevision.chat import Reply
from trl_onevision.select.keep import PRESETS, band, control, kept
from trl_onevision.select.measure import Measured, Rewards, Scored
from trl_onevision.select.rows import SelectError


def measured(index, rights, blind=(), rewards=None, reason=""):
    answers = [
        Scored(f"answer {n}", True, float(right if rewards is None else rewards[n]), bool(right))
        for n, right in enumerate(rights)
    ]
    hidden = [Scored("", True, float(right), bool(right)) for right in blind]
    return Measured(index, f"row-{index}", answers, hidden, reason)


ROWS = [
    measured(0, [0, 0, 0, 0], [0, 0, 0, 0]),
    measured(1, [1, 0, 0, 0], [0, 0, 0, 0], rewards=[1.0, 0.0, 0.5, 0.0]),
    measured(2, [1, 1, 0, 0], [0, 0, 0, 0]),
    measured(3, [1, 1, 1, 0], [1, 1, 0, 0]),
    measured(4, [1, 1, 1, 1], [1, 0, 1, 0]),
    measured(5, [1, 1, 1, 1]),  # a text row
    measured(6, [0, 0, 0, 0], [0, 0, 0, 0], rewards=[0.0, 0.3, 0.0, 0.0]),  # partly paid, never right
    measured(7, [1, 1, 0, 0], reason="no answer"),
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PRESETS["vl-cogito"].rule, [0, 1, 2, 6]),
        (PRESETS["gthinker"].rule, [1, 2, 3, 4, 5]),
        (PRESETS["temporal-r1"].rule, [1, 2, 3, 6]),
        (PRESETS["rap"].rule, [2, 4, 5]),
        (band("0.25:0.75"), [1, 2, 3]),
        (band("1:"), [4, 5]),
        (lambda row: True, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_each_rule_keeps_what_its_paper_says(rule, expected):
    assert [row.index for row in kept(ROWS, [rule])] == expected


def test_the_order_is_by_pass_rate_and_equal_rows_stay_in_order():
    assert [row.index for row in kept(ROWS, [], "easy")] == [4, 5, 3, 2, 1, 0, 6]
    assert [row.index for row in kept(ROWS, [], "hard")] == [0, 6, 1, 2, 3, 4, 5]


def test_a_control_is_as_large_seeded_and_of_measured_rows():
    drawn = [[row.index for row in control(ROWS, 4, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and all(d == sorted(set(d)) and len(d) == 4 and 7 not in d for d in drawn)


def test_a_pair_is_the_best_and_the_worst_or_none():
    assert ROWS[1].pair == ("answer 0", "answer 1")
    assert ROWS[0].pair is None and ROWS[5].pair is None


def test_figures_outlive_the_answers():
    row = measured(1, [1, 0, 0, 0], [1, 1, 0, 0])
    deviation = row.reward_std
    row.forget()
    assert (row.answers, row.pass_rate, row.pass_rate_blind, row.reward_std) == ([], 0.25, 0.5, deviation)
    assert row.pair == ("answer 0", "answer 1")


@pytest.mark.parametrize("text", ["", "0.5", "a:b", "-1:1", "0:2", "0.9:0.1", "nan:1"])
def test_a_band_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="expected LOW:HIGH"):
        band(text)


# Rewards as TRL adds them


def halves(completions, **columns):
    return [0.5 for _ in completions]


def nothing_for_b(completions, solution, **columns):
    return [
        None if gold == "b" else float(c[0]["content"] == gold) for c, gold in zip(completions, solution, strict=True)
    ]


async def later(completions, **columns):
    return [float("nan") if c[0]["content"] == "a" else 1.0 for c in completions]


def test_rewards_are_added_as_trl_adds_them():
    texts, golds = ["a", "x", "b", "a"], ["a", "a", "b", "b"]
    rewards = Rewards((nothing_for_b, halves, later), (1.0, 0.5, 0.25), (nothing_for_b, later))
    scored = rewards.score([Reply(text) for text in texts], solution=golds, prompt=["?"] * 4)
    nan = float("nan")
    table = torch.tensor([[1.0, 0.5, nan], [0.0, 0.5, 1.0], [nan, 0.5, 1.0], [nan, 0.5, nan]])
    expected = (table * torch.tensor([1.0, 0.5, 0.25])).nansum(dim=1)
    assert [one.reward for one in scored] == pytest.approx(expected.tolist())
    assert [one.right for one in scored] == [True, False, True, None]
    group = Measured(0, "a", scored)
    assert group.reward_std == pytest.approx(nanstd(expected.view(1, -1), dim=1).item())


def test_what_is_right_is_said_by_the_rewards_that_read_a_gold():
    names = ["format", "accuracy", "iou"]
    found = Rewards.named([f"trl_onevision.rewards.{name}_reward" for name in names])
    assert [reward.__name__ for reward in found.correct] == ["accuracy_reward", "iou_reward"]
    composed = Rewards.named([f"trl_onevision.rewards.{name}_reward" for name in ("format", "hard_format_accuracy")])
    assert [reward.__name__ for reward in composed.correct] == ["hard_format_accuracy_reward"]
    alone = Rewards.named(["trl_onevision.rewards.format_reward", "trl.rewards.think_format_reward"])
    assert [reward.__name__ for reward in alone.correct] == ["format_reward"]
    said = Rewards.named(["trl_onevision.rewards.format_reward"], correct=["trl_onevision.rewards.accuracy_reward"])
    (scored,) = said.score([Reply("<think>a</think><answer>5</answer>")], solution=["4"], task=["number"])
    assert (scored.reward, scored.right) == (1.0, False)


def test_what_needs_a_rollout_of_training_is_left_out_and_a_missing_column_named():
    """Before anything is asked: VL-Cogito's own last stage has a reward that counts tokens."""

    def coloured(completions, colour, **columns): ...

    names = ("accuracy", "concise", "format")
    paths = [f"trl_onevision.rewards.{name}_reward" for name in names]
    paths.append("trl_onevision.rewards.second_pass.caption_answer_reward")
    rewards, left_out = Rewards.named(paths, [1.0, 0.5, 0.25, 0.1]).fitted(["prompt", "solution", "task"])
    assert [reward.__name__ for reward in rewards.functions] == ["accuracy_reward", "format_reward"]
    assert rewards.weights == (1.0, 0.25) and [r.__name__ for r in rewards.correct] == ["accuracy_reward"]
    assert left_out == {"concise_reward": "completion_ids", "caption_answer_reward": "ask_policy"}
    with pytest.raises(SelectError, match="coloured: the rows have no column colour"):
        Rewards((coloured,), (1.0,), (coloured,)).fitted(["prompt"])
    with pytest.raises(SelectError, match=r"drawn_reward: .* only training has \(environments"):
        Rewards.named(["trl_onevision.environments.drawn_reward"]).fitted(["prompt"])
    gated = Rewards.named(["trl_onevision.rewards.hard_format_accuracy_reward"])
    assert gated.fitted(["solution"]) == (gated, {})
    with pytest.raises(SelectError, match="no column solution"):
        gated.fitted(["prompt"])


def test_reasoning_that_a_server_split_off_and_cut_answers_are_part_of_what_is_scored():
    rewards = Rewards.named([f"trl_onevision.rewards.{name}_reward" for name in ("accuracy", "format")])
    replies = [Reply("<answer>4</answer>", reasoning="2 + 2"), Reply("<answer>4", cut="at 8 tokens")]
    scored = rewards.score(replies, solution=["4", "4"], task=["number", "number"])
    assert scored[0].text == "<think>2 + 2</think><answer>4</answer>" and scored[0].reward == 2.0
    assert not scored[1].finished


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda completions, ask_policy, **columns: [0.0], "cannot score these rows .*ask_policy"),
        (lambda completions, **columns: [], "found 0 rewards for 1 answers"),
    ],
)
def test_a_reward_that_cannot_be_used_is_named(reward, message):
    with pytest.raises(SelectError, match=message):
        Rewards((reward,), (1.0,), (reward,)).score([Reply("a")], solution=["a"])
