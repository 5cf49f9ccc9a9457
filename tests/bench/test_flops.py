"""What torch counts of a policy update is what the arithmetic in docs/performance.md has, for TRL's rows and ours."""

import sys
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("bench", "grpo"))

import bench_flops
import tiny


@pytest.mark.parametrize(("prompt", "completion", "group"), [(40, 8, 4), (17, 17, 3), (64, 1, 2)])
def test_the_count_is_the_formula(prompt, completion, group):
    model, _ = tiny.build("qwen2_5_vl")
    stock, ours = bench_flops.update(model.to("meta"), prompt, completion, group)
    assert stock["language"] == stock["formula"]
    assert ours["language"] == ours["formula"]
    tokens = group * (prompt + completion), prompt - 1 + group * completion
    assert ours["language"] < stock["language"] * (tokens[1] / tokens[0] + 0.1)
