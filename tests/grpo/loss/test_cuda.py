"""The fused loss on a GPU: Liger's kernels compiled, at a vocabulary of real size."""

from __future__ import annotations

import pytest
import torch
from problems import CASES, distance, problem, run

from trl_onevision.grpo.loss import liger, reference
from trl_onevision.grpo.loss.reference import LossOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_cuda(tensors, labels_N, batch, dtype):
    moved = {
        name: None if value is None else value.detach().to("cuda", dtype).requires_grad_(value.requires_grad)
        for name, value in tensors.items()
    }
    return moved, labels_N.cuda(), batch.to(torch.device("cuda"))


@pytest.mark.parametrize("tile_tokens", [64, 1024])
@pytest.mark.parametrize("case", CASES)
def test_bf16_is_no_further_from_the_truth_than_the_reference(case, tile_tokens):
    options = LossOptions(**CASES[case])
    # In bf16 first, so that truth and both others start from the same numbers
    inputs = problem(options, (100, 0, 149, 3), hidden_size=512, vocabulary=151_936, dtype=torch.bfloat16)
    truth, true_gradients = run(reference.grpo_loss, *on_cuda(*inputs, torch.float32), options)
    expected, expected_gradients = run(reference.grpo_loss, *on_cuda(*inputs, torch.bfloat16), options)
    found, gradients = run(liger.grpo_loss, *on_cuda(*inputs, torch.bfloat16), options, tile_tokens=tile_tokens)
    assert distance(found.logps_N, truth.logps_N) <= distance(expected.logps_N, truth.logps_N) + 1e-4
    for name, true_gradient in true_gradients.items():
        error = distance(expected_gradients[name], true_gradient)
        assert distance(gradients[name], true_gradient) <= error + 1e-3, name
