"""Two processes: gradients are reduced, groups may be split across ranks, and no rank waits for another's pass."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ranks import launch


def run(which: str, group: int, folder: Path, stage: int = 0) -> list[dict[str, Any]]:
    (log,) = launch("two_ranks.py", which, str(group), str(folder), str(stage))
    return log


@pytest.mark.slow
@pytest.mark.parametrize("group", [4, 8], ids=["groups of one micro-batch", "groups of two micro-batches"])
def test_two_processes_train_as_trl_does(tmp_path: Path, group: int) -> None:
    compare(group, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install trl-onevision[deepspeed]")
@pytest.mark.parametrize("stage", [2, 3], ids=["ZeRO-2", "ZeRO-3"])
def test_zero_generates_and_trains_as_trl_does(tmp_path: Path, stage: int) -> None:
    compare(4, tmp_path, stage)


def compare(group: int, folder: Path, stage: int = 0) -> None:
    stock = run("stock", group, folder, stage)
    for which in ("trl", "liger"):
        for log, expected in zip(run(which, group, folder, stage), stock, strict=True):
            for name in ("loss", "grad_norm", "reward", "completions/mean_length"):
                assert log[name] == pytest.approx(expected[name], abs=2e-5), (which, name, log["step"])
