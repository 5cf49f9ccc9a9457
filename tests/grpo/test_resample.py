"""Dynamic sampling: which rows take the place of which, and what it costs."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import OURS
from datasets import Dataset
from step_ranks import Scripted, dataset
from trl.trainer.utils import RepeatSampler

from trl_onevision.grpo.scoring import Scorer

THREE_GROUPS = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "shuffle_dataset": False}


def accuracy(completion_ids: list[list[int]], pays: list[str], **kwargs: Any) -> list[float]:
    """1 to every second completion of a mixed row, or the same to all."""
    return [{"none": 0.0, "all": 1.0}.get(pay, float(i % 2)) for i, pay in enumerate(pays)]


def own(size: int, shuffled: bool = False) -> list[int]:
    """The rows of the first step, by TRL's own sampler."""
    return list(RepeatSampler(range(size), 1, batch_size=3, shuffle=shuffled, seed=42))[:3]


def order(size: int, rounds: int = 3, shuffled: bool = False) -> list[int]:
    """The rows of the dataset that the first step takes one after the other: none of its own three."""
    indices = random.Random("42 0 0").sample(range(size), min(size, 3 * rounds + 3)) if shuffled else range(size)
    return [index for index in indices if index not in own(size, shuffled)]


def step(make: Callable[..., Any], pays: list[str], resample: int, **settings: Any) -> tuple[Any, Any]:
    """A trainer on the rows of `dataset(pays)`, and what its first generation is."""
    options = {"share_prompt": True, "resample": resample}
    settings = {**THREE_GROUPS, "data": dataset(pays), "rewards": accuracy, **settings}
    trainer = make(**{**OURS, "kind": Scripted, "options": options}, **settings)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer, trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


def rows_of(trainer: Any) -> list[int]:
    """The rows whose prompts TRL logged, one a group."""
    texts = [prompt[-1]["content"][-1]["text"] for prompt in list(trainer._logs["prompt"])[:: trainer.num_generations]]
    return [int(text.removeprefix("What is in picture ").split("?")[0]) for text in texts]


def pays_for(fresh: list[str], size: int = 12, rounds: int = 3, shuffled: bool = False) -> list[str]:
    """A dataset that begins dead, live, dead, and whose fresh rows pay as given, in the order they are taken in."""
    pays = ["mixed"] * size
    for index, pay in zip(own(size, shuffled), ["none", "mixed", "all"], strict=True):
        pays[index] = pay
    for index, pay in zip(order(size, rounds, shuffled), fresh, strict=False):
        pays[index] = pay
    return pays


def places(pays: list[str], resample: int, shuffled: bool = False) -> list[int]:
    """By hand: the dead groups 0 and 2 try one row after the other until it is live."""
    here, fresh, dead = own(len(pays), shuffled), order(len(pays), resample, shuffled), [0, 2]
    for _ in range(resample):
        tried, fresh = fresh[: len(dead)], fresh[len(dead) :]
        found = {group: index for group, index in zip(dead, tried, strict=False) if pays[index] == "mixed"}
        here = [found.get(group, index) for group, index in enumerate(here)]
        dead = [group for group in dead if group not in found]
    return here


@pytest.mark.parametrize("shuffled", [False, True], ids=["ordered", "shuffled"])
@pytest.mark.parametrize("fresh", [[], ["none"], ["none", "all"], ["mixed", "none", "none"], ["all"] * 9])
def test_dead_live_dead_gives_the_rows_worked_by_hand(
    make: Callable[..., Any], fresh: list[str], shuffled: bool
) -> None:
    pays = pays_for(fresh, shuffled=shuffled)
    trainer, scored = step(make, pays, resample=3, shuffle_dataset=shuffled)
    assert rows_of(trainer) == places(pays, resample=3, shuffled=shuffled)
    live = [pays[row] == "mixed" for row in rows_of(trainer)]
    assert live[1]
    metrics = trainer._metrics["train"]
    assert metrics["resample/live_before"] == [pytest.approx(1 / 3)]
    assert metrics["resample/live_after"] == [pytest.approx(sum(live) / 3)]
    assert scored["advantages"].view(3, 4).any(1).tolist() == live
    assert metrics["frac_reward_zero_std"] == [pytest.approx(1 - sum(live) / 3)]


# Three groups a generation; an epoch of ten rows has three generations, and the tenth row comes in none.
@pytest.mark.parametrize(
    ("settings", "began"),
    [
        ({}, [0, 3, 6, 0, 3, 6]),
        ({"num_iterations": 2, "max_steps": 8}, [0, 3, 6, 0]),
        # Two generations a step, of which the last of an epoch has one
        (
            {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 2, "steps_per_generation": 1},
            [0, 3, 6] * 3,
        ),
        ({"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}, [0, 3, 6, 0, 3, 6]),
    ],
    ids=["plain", "two iterations", "two generations a step", "two micro-batches"],
)
def test_a_curriculum_is_kept_wherever_it_stands(
    make: Callable[..., Any], settings: dict[str, Any], began: list[int]
) -> None:
    tried: list[list[int]] = []

    def dead(completion_ids: list[list[int]], row: list[int], **columns: Any) -> list[float]:
        tried.append(row[::4])
        return [1.0] * len(row)

    options = {**OURS, "kind": Scripted, "options": {"resample": 1}}
    settings = {**THREE_GROUPS, "max_steps": 6, **settings}
    trainer = make(**options, data=dataset(["all"] * 10), rewards=dead, **settings)
    trainer.train()
    # By hand: the three rows around each batch, of two at the same distance the later
    fresh = {0: [3, 4, 5], 3: [6, 2, 7], 6: [9, 5, 4]}
    expected = [rows for first in began for rows in ([first, first + 1, first + 2], fresh[first])]
    assert tried == expected


def test_what_is_trained_on_is_what_those_rows_give_by_themselves(make: Callable[..., Any]) -> None:
    pays = pays_for(["none"])
    trainer, scored = step(make, pays, resample=3, beta=0.1)
    chosen = dataset(pays).select(rows_of(trainer))
    plain, expected = step(make, [], resample=0, data=chosen, beta=0.1)
    assert scored.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(scored[key], value) if isinstance(value, torch.Tensor) else scored[key] == value, key
    assert list(trainer._logs["completion"]) == list(plain._logs["completion"])


def test_nothing_to_replace_is_the_plain_step(make: Callable[..., Any]) -> None:
    settings = {"given": tiny.completions([5, 9, 3, 16, 7, 7, 12, 1, 2, 3, 4, 5])}
    trainer, scored = step(make, ["mixed"] * 6, resample=2, **settings)
    _, expected = step(make, ["mixed"] * 6, resample=0, **settings)
    assert all(torch.equal(scored[key], expected[key]) for key in ("advantages", "prompt_ids", "pixel_values"))
    metrics = trainer._metrics["train"]
    assert (metrics["resample/rounds"], metrics["resample/rows"]) == ([0.0], [3.0])


def test_a_round_costs_its_rollouts_and_no_pass(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    generated, scored, rewarded = [], [], []
    turn, score = Scripted._generate_single_turn, Scorer.score
    monkeypatch.setattr(
        Scripted,
        "_generate_single_turn",
        lambda self, ids, *rest: generated.append(len(ids)) or turn(self, ids, *rest),
    )
    monkeypatch.setattr(
        Scorer,
        "score",
        lambda self, model, batch, *rest, **more: (
            scored.append(len(batch["input_ids"])) or score(self, model, batch, *rest, **more)
        ),
    )

    def counted(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        rewarded.append(len(completion_ids))
        return accuracy(completion_ids, **columns)

    trainer, _ = step(make, pays_for(["none"]), resample=3, beta=0.1, rewards=counted)
    assert generated == rewarded == [12, 8, 4]
    assert scored == [12]  # TRL's reference pass, over the rows that are trained on
    assert trainer._metrics["train"]["resample/rows"] == [6.0]
    assert len(trainer._metrics["train"]["completions/mean_length"]) == 1


def test_a_group_that_normalised_rewards_tell_apart_is_live(make: Callable[..., Any]) -> None:
    """Each completion is paid 1 in all; divided by their deviations, the two rewards do not cancel out."""

    def first(pays: list[str], **columns: Any) -> list[float]:
        return [float(i % 2) for i in range(len(pays))]

    def second(pays: list[str], **columns: Any) -> list[float]:
        return [2.0 - 2 * (i % 2) for i in range(len(pays))]

    rewards = {"rewards": [first, second], "reward_weights": [1.0, 0.5]}
    for aggregation, live in (("sum_then_normalize", 0.0), ("normalize_then_sum", 1.0)):
        trainer, scored = step(make, ["mixed"] * 6, resample=1, multi_objective_aggregation=aggregation, **rewards)
        assert trainer._metrics["train"]["resample/live_before"] == [live]
        assert scored["advantages"].any() == bool(live)


def test_what_rewards_log_goes_with_its_completion(make: Callable[..., Any]) -> None:
    def noted(completion_ids: list[list[int]], pays: list[str], log_extra: Any, log_metric: Any, **_: Any) -> Any:
        log_extra("length", [len(ids) for ids in completion_ids])
        log_metric("asked" if len(pays) == 12 else "asked again", len(pays))
        return accuracy(completion_ids, pays)

    trainer, scored = step(make, pays_for(["none"]), resample=3, rewards=noted)
    assert list(trainer._logs["extra"]["length"]) == scored["completion_mask"].sum(1).tolist()
    # A mean of no rows in particular is of the first round, as is the length of completions
    assert trainer._metrics["train"]["asked"] == [12.0] and "asked again" not in trainer._metrics["train"]


def test_a_dataset_smaller_than_the_demand_ends_the_rounds_and_says_so_once(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer, _ = step(make, pays_for(["none", "none"], size=6, rounds=9), resample=9)
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    metrics = trainer._metrics["train"]
    assert (metrics["resample/rounds"], metrics["resample/rows"]) == ([2.0, 2.0], [6.0, 6.0])
    assert sum("the 6 rows of the dataset were all tried" in line for line in caplog.messages) == 1
    assert rows_of(trainer) == [order(6, rounds=9)[2], 1, 2]


def test_a_reward_that_is_constant_by_design_ends_after_its_rounds_and_says_so_once(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer, scored = step(make, ["all"] * 24, resample=2)
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    assert trainer._metrics["train"]["resample/rounds"] == [2.0, 2.0]
    assert not scored["advantages"].any()
    assert sum("the rewards of no group differ" in line for line in caplog.messages) == 1


def test_evaluation_is_not_resampled(make: Callable[..., Any]) -> None:
    trainer, _ = step(make, pays_for([]), resample=2)
    trainer.model.eval()
    trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    assert rows_of(trainer)[-3:] == [0, 1, 2]


@pytest.mark.parametrize("wrong", [-1, True, "3", 1.5])
def test_a_number_of_rounds_is_a_number(wrong: Any) -> None:
    with pytest.raises(ValueError, match="resample must be a number of rounds"):
        OURS["config"](output_dir="runs", bf16=False, report_to="none", resample=wrong)


def test_what_it_cannot_hold_with_is_refused_by_name(make: Callable[..., Any]) -> None:
    options = {**OURS, "options": {"resample": 1}}
    with pytest.raises(ValueError, match="map-style dataset, not IterableDataset"):
        make(**options, data=dataset(["mixed"] * 4).to_iterable_dataset(), rewards=accuracy, max_steps=1)
    assert isinstance(dataset(["all"]), Dataset)
