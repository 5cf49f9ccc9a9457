"""Gradients of the fused loss are reduced across processes, since it runs in the wrapped model's forward."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from problems import distance

SCRIPT = Path(__file__).with_name("two_ranks.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("wrapper", ["DDP", "FSDP2"])
def test_two_processes_share_their_gradients(wrapper, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    environment = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
    result = subprocess.run(
        [*launcher, str(SCRIPT), wrapper, str(tmp_path)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=SCRIPT.parents[3],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    largest = max(gradient.norm() for gradient in first["trl"].values())
    compared = 0
    for name, expected in first["trl"].items():
        # The processes have different completions: what is equal on both has been reduced
        assert torch.equal(first["liger"][name], second["liger"][name]), name
        if expected.norm() > 1e-5 * largest:
            assert distance(first["liger"][name], expected) < 1e-3, name
            compared += 1
    assert compared > 20
