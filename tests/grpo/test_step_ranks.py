"""Shaping and resampling on two processes: what is trained on is what one process trains on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAYS = ["mixed", "none", "mixed", "all"] * 6
SAME = ("loss", "grad_norm", "reward", "frac_reward_zero_std", "completions/", "rewards/", "resample/")


def run(
    ranks: int, folder: Path, options: dict[str, Any], pays: list[str] = PAYS, fails: bool = False, **settings: Any
) -> Any:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    script = str(Path(__file__).with_name("step_ranks.py"))
    environment = {key: value for key, value in os.environ.items() if key != "TRL_ONEVISION"}
    done = subprocess.run(
        [sys.executable, *launcher, script, str(folder), *map(json.dumps, (pays, options, settings))],
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert (done.returncode != 0) == fails, done.stderr[-4000:]
    if fails:
        return done
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("LOG"))[3:])


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


def test_two_ranks_that_share_their_groups_shape_as_one(tmp_path: Path) -> None:
    options = {"advantage": ["ema", "odsw-medium", "stcr"], "correct": "accuracy"}
    settings = {"num_generations": 8, "scale_rewards": "none"}
    one = run(1, tmp_path / "one", options, **settings)
    assert any(row[1] for micro_batch in one["trained"] for row in micro_batch), "a comparison of nothing"
    assert "rewards/accuracy/task=math/mean" in one["log"][0] and "rewards/accuracy/clevr/mean" in one["log"][0]
    assert_same(run(2, tmp_path / "two", options, **settings), one)
