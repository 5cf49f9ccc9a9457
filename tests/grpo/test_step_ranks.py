"""Shaping and resampling on two processes: what is trained on is what one process trains on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import step_ranks
from ranks import launch

PAYS = ["mixed", "none", "mixed", "all"] * 6
# Not `kl`, a mean of the means of micro-batches, in which ranks mix rows otherwise
SAME = ("loss", "grad_norm", "reward", "frac_reward_zero_std", "completions/", "rewards/", "resample/", "dads/")


def run(
    ranks: int, folder: Path, options: dict[str, Any], pays: list[str] = PAYS, killed_at: str = "", **settings: Any
) -> Any:
    if ranks == 1 and not killed_at:
        return json.loads(json.dumps(step_ranks.main(str(folder), pays, options, settings)))
    given = [str(folder), *map(json.dumps, (pays, options, settings))]
    ends = -signal.SIGKILL if killed_at else 0
    said = launch("step_ranks.py", *given, ranks=ranks, ends=ends, KILLED_AT=killed_at)
    return None if killed_at else said[0]


def assert_same(ours: Any, expected: Any) -> None:
    """The same completions with the same advantages in each step, and the same log."""
    for one, other in zip(ours["log"], expected["log"], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if name.startswith(SAME):
                assert one[name] == pytest.approx(other[name], abs=2e-5), (name, one["step"])
    for start in range(
        0, len(expected["trained"]), 2
    ):  # a step's two micro-batches, in which ranks mix rows otherwise
        rows = [sorted(map(tuple, run["trained"][start] + run["trained"][start + 1])) for run in (ours, expected)]
        assert rows[0] == [pytest.approx(row, abs=1e-5) for row in rows[1]]


def test_two_ranks_that_share_their_groups_shape_and_weigh_as_one(tmp_path: Path) -> None:
    options = {"advantage": ["ema", "odsw-medium", "stcr"], "terms": "dads", "correct": "accuracy"}
    settings = {"num_generations": 8, "scale_rewards": "none", "beta": 1.0, "learning_rate": 1e-2}
    one = run(1, tmp_path / "one", options, **settings)
    assert all(step["dads/kl_weight"] < 1 for step in one["log"]) and one["log"][-1]["kl"] > 1e-3
    assert any(row[1] for micro_batch in one["trained"] for row in micro_batch), "a comparison of nothing"
    assert "rewards/accuracy/task=math/mean" in one["log"][0] and "rewards/accuracy/clevr/mean" in one["log"][0]
    assert_same(run(2, tmp_path / "two", options, **settings), one)


def test_two_ranks_resample_as_one_though_one_of_them_has_only_dead_groups(tmp_path: Path) -> None:
    pays = [*["none", "none", "mixed", "mixed"] * 2, *["mixed"] * 16]
    settings = {"max_steps": 2}
    one = run(1, tmp_path / "one", {"resample": 2}, pays, **settings)
    assert one["log"][0]["resample/live_before"] == 0.5 and one["log"][0]["resample/live_after"] == 1.0
    assert_same(run(2, tmp_path / "two", {"resample": 2}, pays, **settings), one)


@pytest.mark.slow
def test_two_ranks_resample_groups_that_they_share(tmp_path: Path) -> None:
    settings = {"num_generations": 8, "max_steps": 2}
    pays = ["none", "mixed", "all", *["mixed"] * 21]
    one = run(1, tmp_path / "one", {"resample": 2}, pays, **settings)
    assert one["log"][0]["resample/live_before"] < one["log"][0]["resample/live_after"]
    assert_same(run(2, tmp_path / "two", {"resample": 2}, pays, **settings), one)


def test_a_run_that_is_killed_between_two_rounds_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    options = {"resample": 3, "advantage": ["ema"]}
    settings = {"save_strategy": "steps", "save_steps": 1, "scale_rewards": "none"}
    whole = run(1, tmp_path / "whole", options, **settings)
    assert whole["log"][2]["resample/rounds"] >= 1
    run(1, tmp_path / "out", options, killed_at="2 2", **settings)
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    resumed = run(1, tmp_path / "out", options, resume=checkpoint, **settings)
    assert resumed["log"][-1] == whole["log"][-1]
    assert resumed["trained"] == whole["trained"][-2:]


@pytest.mark.slow
@pytest.mark.parametrize("detach", [True, False])
def test_two_ranks_add_the_terms_of_one(tmp_path: Path, detach: bool) -> None:
    options = {"terms": {"papo": {"mask": 1.0, "gamma": 0.5, "detach": detach}}}
    one = run(1, tmp_path / "one", options, num_generations=8)
    assert one["log"][0]["papo/kl"] > 0
    assert_same(run(2, tmp_path / "two", options, num_generations=8), one)
