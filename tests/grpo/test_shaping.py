"""Each shaping against a table worked by hand, and what the trainer makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from compare import ONE_BATCH, OURS, update

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.credit import key_step_credit, token_spans
from trl_onevision.grpo.groups import Groups
from trl_onevision.grpo.options import Options
from trl_onevision.grpo.shaping import STATE_FILE, EMAScale, find

NAN = math.nan
# p of each group:  1/4           3/4           1/2           0             1             1/2, of two       unknown
TABLE = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [NAN, NAN, 1, 0], [NAN] * 4]
ROOT, E = 0.707107, math.e


def groups(rewards: list[list[float]], lengths: list[list[int]] | None = None, tasks: Any = None) -> Groups:
    rewards_MG = torch.tensor(rewards).float()
    lengths_MG = torch.ones_like(rewards_MG) if lengths is None else torch.tensor(lengths)
    return Groups(
        rewards_NF=rewards_MG.reshape(-1, 1),
        weights_F=torch.ones(1),
        lengths_N=lengths_MG.flatten(),
        size=rewards_MG.size(1),
        names=["accuracy_reward"],
        labels={} if tasks is None else {"task": [task for task in tasks for _ in range(rewards_MG.size(1))]},
        advantages_N=(rewards_MG - rewards_MG.nanmean(1, keepdim=True)).nan_to_num(nan=0.0).flatten(),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("odsw-easy", [ROOT, 1, 1, 0, 1, 1, 1]),
        ("odsw-medium", [ROOT, ROOT, 1, 0, 0, 1, 1]),
        ("odsw-hard", [1, ROOT, 1, 1, 0, 1, 1]),
        ("odsw-hard-code", [1, ROOT, 1, 0.25, 0, 1, 1]),
        ("observe", [1.35, 1.35, 1.8, 0, 0, 1.8, 1]),
        ("univg", [E**0.75, E**0.25, E**0.5, E, 1, E**0.5, 1]),
    ],
)
def test_factors_of_a_group_by_hand(name: str, expected: list[float]) -> None:
    factor_N = find(name)(groups(TABLE))
    assert factor_N.view(-1, 4).tolist() == [pytest.approx([value] * 4, abs=1e-6) for value in expected]
    assert (factor_N.view(-1, 4)[[value == 0 for value in expected]] == 0).all()  # and not nearly


def test_a_longer_wrong_completion_is_blamed_more_by_hand() -> None:
    lengths = [[100, 90, 300, 100], [100, 200, 300, 1150], [9] * 4, [5, 500, 9, 9], [1, 2, 3, 4], [7, 900, 50, 850]]
    factor_N = find("stcr")(groups([TABLE[0], TABLE[1], TABLE[2], TABLE[3], TABLE[4], TABLE[5]], lengths))
    expected = [[1.0] * 4 for _ in range(6)]
    expected[0][2] = 2 - 1.00001**-200  # the right one has 100 tokens, this wrong one 300
    expected[1][3] = 2 - 1.00001**-950  # the mean of 100, 200 and 300 is 200
    expected[5][3] = 2 - 1.00001**-800
    assert factor_N.view(-1, 4).tolist() == [pytest.approx(row, abs=1e-7) for row in expected]


def test_what_is_right_is_paid_in_full_and_the_named_reward_says_it() -> None:
    table = replace(
        groups(TABLE[:1]),
        rewards_NF=torch.tensor([[0.0, 1.1], [1.0, 0.9], [1.0, NAN], [1.0, 0.0]]),
        weights_F=torch.ones(2),
        names=["format_reward", "step_accuracy_reward"],
        correct="step_accuracy_reward",
    )
    assert table.accuracy_M.tolist() == [pytest.approx(1 / 3)]


def test_moving_deviations_by_hand() -> None:
    scale = EMAScale()
    first = groups([TABLE[2], TABLE[0], TABLE[5]], tasks=["math", "boxes", "math"])
    # math: 1 1 0 0 and 1 0, so moments 1/2, 1/2 and σ = 1/2; boxes: moments 1/4, 1/4 and σ² = 3/16
    of_math, of_boxes = 1 / (0.5 + 1e-6), 1 / (math.sqrt(3 / 16) + 1e-6)
    assert scale(first).view(-1, 4).tolist() == [pytest.approx([f] * 4) for f in (of_math, of_boxes, of_math)]
    # Then math sees 1 1 1 0: each moment is 0.99 * 0.5 + 0.01 * 0.75; boxes keeps what it had
    moment = 0.99 * 0.5 + 0.01 * 0.75
    second = scale(groups([TABLE[1], TABLE[6]], tasks=["math", "boxes"]))
    assert second.tolist() == pytest.approx([1 / (math.sqrt(moment - moment**2) + 1e-6)] * 4 + [of_boxes] * 4)
    assert scale.moments["math"] == pytest.approx([moment, moment])


def test_an_advantage_beyond_five_is_divided_by_its_groups_own_deviation() -> None:
    scale = EMAScale()
    scale.moments = {"math": [0.0, 1e-8]}  # a task whose rewards never differed: σ is its floor, 0.001
    factor_N = scale(groups([[0.01, 0, 0, 0], [0, 0, 0, 0]], tasks=["math", "math"]))
    own = math.sqrt(0.01**2 * 3 / 16)
    task = max(0.001, math.sqrt(scale.moments["math"][1] - scale.moments["math"][0] ** 2))
    assert 0.0075 / task > 5
    assert factor_N.tolist() == pytest.approx([1 / (own + 1e-6)] * 4 + [1 / (task + 1e-6)] * 4, rel=1e-5)


def test_a_group_that_two_ranks_share_is_one_group() -> None:
    """TRL gathers rank by rank, so the table is the same however its rows are split; here 3 rows a rank."""
    halves = [groups([[1, 0, 0]]), groups([[0, 1, 1]])]
    joined = replace(halves[0], rewards_NF=torch.cat([half.rewards_NF for half in halves]), size=6)
    assert joined.accuracy_M.tolist() == [0.5]


def right_where_even(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def half(groups: Groups) -> torch.Tensor:
    """A function of a user's own."""
    return torch.full_like(groups.total_N, 0.5)


def nothing(groups: Groups) -> torch.Tensor:
    return torch.full_like(groups.total_N, NAN)


def of_groups(groups: Groups) -> torch.Tensor:
    return groups.accuracy_M


def a_list(groups: Groups) -> list[float]:
    return groups.right_N.tolist()


class Falling:
    """One that remembers."""

    def __init__(self) -> None:
        self.factor = 2.0

    def __call__(self, groups: Groups) -> torch.Tensor:
        self.factor /= 2
        return torch.full_like(groups.total_N, self.factor)


GIVEN = tiny.completions([5, 9, 3, 16, 7, 7, 12, 1])
SETTINGS: dict[str, Any] = {"given": GIVEN, "rewards": right_where_even, "scale_rewards": "none", **ONE_BATCH}


def test_shaped_advantages_are_what_is_trained_on_and_what_is_logged(make: Callable[..., Any]) -> None:
    plain, shaped = (
        make(**OURS, **SETTINGS),
        make(**{**OURS, "options": {"advantage": ["observe", "odsw-hard"]}}, **SETTINGS),
    )
    for trainer in (plain, shaped):
        trainer.model.train()
    batches = [trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))) for trainer in (plain, shaped)]
    right = torch.tensor(right_where_even(GIVEN)).view(-1, 4)
    p = right.mean(1)
    factor = 7.2 * p * (1 - p) * torch.where(p > 0.5, torch.sin(math.pi * p), 1)
    expected = ((right - p[:, None]) * factor[:, None]).flatten().tolist()
    assert list(shaped._logs["advantages"]) == pytest.approx(expected, abs=1e-6)
    assert sorted(batches[1]["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-6)
    assert list(plain._logs["advantages"]) == pytest.approx((right - p[:, None]).flatten().tolist(), abs=1e-6)


def test_without_options_advantages_log_and_random_state_are_trls_to_the_bit(make: Callable[..., Any]) -> None:
    ours = make(**OURS, given=GIVEN, **ONE_BATCH)
    states = []
    for trainer in (ours, make(given=GIVEN, **ONE_BATCH)):
        trainer.model.train()
        torch.manual_seed(3)
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        states.append(
            (list(trainer._logs["advantages"]), torch.get_rng_state().tolist(), dict(trainer._metrics["train"]))
        )
    assert states[0] == states[1]


def test_a_function_of_ones_own_and_what_it_must_return(make: Callable[..., Any]) -> None:
    mine = make(**{**OURS, "options": {"advantage": f"{__name__}.half"}}, **SETTINGS)
    plain = make(**OURS, **SETTINGS)
    assert update(mine).loss == pytest.approx(update(plain).loss / 2, abs=1e-7)
    for name, found in (("nothing", r"returned \[nan"), ("of_groups", r"shape \(2,\)"), ("a_list", "a list")):
        broken = make(**{**OURS, "options": {"advantage": f"{__name__}.{name}"}}, **SETTINGS)
        with pytest.raises(ValueError, match=f"{found}.* a finite factor for each of the 8 completions"):
            update(broken)


def test_a_class_of_ones_own_is_made_once_a_trainer(make: Callable[..., Any]) -> None:
    trainer = make(**{**OURS, "options": {"advantage": f"{__name__}.Falling"}}, **SETTINGS)
    table = groups(TABLE[:1])
    assert [trainer._shaping.factor(table)[0].item() for _ in range(3)] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"advantage": "odsw"}, "neither one of odsw-easy"),
        ({"advantage": "no_such_module.shape"}, "cannot be imported"),
        ({"advantage": "ema"}, "set scale_rewards: none"),
        ({"advantage": "steps", "loss": "liger"}, "loss: liger cannot honour advantage: steps"),
    ],
)
def test_what_cannot_hold_is_refused_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneVisionGRPOConfig(output_dir="runs", bf16=False, report_to="none", **options)


def test_the_reward_that_says_what_is_right_must_be_there(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="correct: 'accuracy' is not among the rewards of this run: \\['right_where"):
        make(**{**OURS, "options": {"advantage": "observe", "correct": "accuracy"}}, **SETTINGS)
    two = {**SETTINGS, "rewards": [right_where_even, tiny.reward]}
    for wanting in ({"advantage": "observe"}, {"terms": "dads"}):
        with pytest.raises(ValueError, match="needs correct"):
            make(**{**OURS, "options": wanting}, **two, beta=0.1)
    with pytest.raises(ValueError, match="'accuracy' is not among"):  # though nothing reads it
        make(**{**OURS, "options": {"correct": "accuracy"}}, **SETTINGS)
    twins = {**SETTINGS, "rewards": [right_where_even, right_where_even]}
    with pytest.raises(ValueError, match="'right_where_even' is the name of several"):
        make(**{**OURS, "options": {"correct": "right_where_even"}}, **twins)
    asking = replace(groups(TABLE[:1]), names=["a", "b"], rewards_NF=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="correct: name the reward that says what is right, one of"):
        _ = asking.accuracy_M


def test_key_steps_are_a_column(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="advantage: steps credits key steps, and the dataset has no column"):
        make(**{**OURS, "options": {"advantage": "steps"}}, **SETTINGS)


def test_options_of_a_recipe_are_read() -> None:
    options = Options.parse("{'advantage': ['ema', 'stcr'], 'correct': 'accuracy_reward'}")
    assert options.advantages == ["ema", "stcr"]
    assert Options.parse("{advantage: observe}").advantages == ["observe"]
    assert Options().advantages == []


def test_a_resumed_run_remembers_its_deviations(make: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"kind": OneVisionGRPOTrainer, "config": OneVisionGRPOConfig, "options": {"advantage": "ema"}}
    settings |= {"scale_rewards": "none", "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    settings |= {"data": tiny.dataset(8), "rewards": right_where_even}
    whole, resumed = make(**settings), make(**settings)
    whole.train()
    folder = tmp_path / "out" / "checkpoint-2"
    assert (folder / STATE_FILE).exists()
    resumed.train(resume_from_checkpoint=str(folder))
    assert resumed._shaping._moments() == whole._shaping._moments()
    for ours, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_tokens_that_state_a_key_step_by_hand() -> None:
    tokens = tiny.tokenizer()
    text = "r = 3, so 12. R=3"
    ids = tokens(text)["input_ids"]  # a token a character
    assert token_spans(ids, [["r = 3", "radius 3"], ["2"]], tokens) == [(0, 5), (14, 17)]
    credit = key_step_credit(torch.tensor([ids, ids]), [{"key_steps": [["so"]]}, {"key_steps": None}], tokens)
    assert credit[0].nonzero().flatten().tolist() == [7, 8]
    assert credit.sum() == 1.0
    assert token_spans(tokens("é é")["input_ids"], ["é"], tokens)[0] == (0, 2)  # of two tokens each


def test_steps_are_credited_in_right_completions_and_forgiven_in_wrong_ones(make: Callable[..., Any]) -> None:
    tokens = tiny.tokenizer()
    given = [tokens(text)["input_ids"] for text in ["r=3", "r=4x", "y", "x r=3", "r=3", "w", "v", "z"]]
    data = tiny.dataset(2).add_column("key_steps", [[["r=3"]], [["none"]]])
    rewards = {"rewards": lambda completion_ids, **kwargs: [1.0, 0.0, 0.0, 0.0] * (len(completion_ids) // 4)}
    settings = {**SETTINGS, **rewards, "given": given, "data": data, "shuffle_dataset": False}
    trainer = make(**{**OURS, "options": {"advantage": "steps"}}, **settings)
    trainer.model.train()
    scored = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    assert scored["advantages"][0, :3].tolist() == [0.75 * 1.5] * 3
    assert scored["advantages"][1, :4].tolist() == [-0.25] * 4
    assert scored["advantages"][3, :5].tolist() == [-0.25, -0.25, -0.125, -0.125, -0.125]
    assert list(trainer._logs["advantages"])[3] == pytest.approx((-0.25 * 2 - 0.125 * 3) / 5)

    # A ratio of 1 everywhere, so the loss is minus the mean of the completions' mean advantages
    loss = update(make(**{**OURS, "options": {"advantage": "steps"}}, **settings, loss_type="grpo")).loss
    assert loss == pytest.approx(-sum(trainer._logs["advantages"]) / 8, abs=1e-6)
