"""Gradients of the fused loss are reduced across processes, since it runs in the wrapped model's forward."""

from __future__ import annotations

import pytest
import torch
from problems import distance
from ranks import launch


@pytest.mark.parametrize("wrapper", ["DDP", "FSDP2"])
def test_two_processes_share_their_gradients(wrapper, tmp_path):
    launch("loss/two_ranks.py", wrapper, str(tmp_path))
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
