"""The fused loss against its definition. `test_triton.py` runs this module again on Triton's interpreter."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
import torch
from problems import CASES, distance, problem, run
from torch.utils._python_dispatch import TorchDispatchMode

from trl_onevision.grpo.loss import liger, reference, tiles
from trl_onevision.grpo.loss.reference import LossOptions, TokenBatch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Triton's interpreter truncates to bf16 where a GPU, and torch, round to the nearest
BF16_SLACK = 2.5e-3 if INTERPRETED else 1e-3


def assert_same(options, *inputs, tolerance=2e-5, **extra):
    expected, expected_gradients = run(reference.grpo_loss, *inputs, options)
    found, gradients = run(liger.grpo_loss, *inputs, options, **extra)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=tolerance, abs=1e-6)
    assert distance(found.logps_N, expected.logps_N) < tolerance
    assert distance(found.entropies_N, expected.entropies_N) < tolerance
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert distance(gradients[name], gradient) < tolerance, name


def test_the_path_is_the_one_this_process_is_for():
    assert tiles.runs_on_triton(torch.device("cpu")) == INTERPRETED


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("on_policy", [False, True], ids=["off policy", "on policy"])
def test_every_loss_type_and_knob(case, on_policy):
    options = LossOptions(**CASES[case])
    # Tiles of 8 tokens: they begin and end within sequences, and hold several
    assert_same(options, *problem(options, on_policy=on_policy), tile_tokens=8)


@pytest.mark.parametrize("is_ratio", ["token", "sequence"])
@pytest.mark.parametrize("case", ["grpo", "cispo", "sapo", "vespo", "kl", "sequence", "sequence, kl corrected"])
def test_the_ratio_of_vllm(case, is_ratio):
    options = LossOptions(**CASES[case])
    assert_same(options, *problem(options, is_ratio=is_ratio), tile_tokens=8)


def test_a_compiled_model_calls_it_as_it_is():
    inputs = problem(LossOptions())
    compiled = torch.compile(lambda *args: liger.grpo_loss(*args), backend="eager")
    expected, found = (run(compute, *inputs, LossOptions())[1] for compute in (liger.grpo_loss, compiled))
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("frozen", [(), ("weight", "bias"), ("hidden",), ("bias",)], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_frozen_and_trainable_parts(frozen, bias):
    options = LossOptions(temperature=0.9)
    assert_same(options, *problem(options, bias=bias, frozen=frozen), tile_tokens=8)


@pytest.mark.parametrize("tile_tokens", [1, 100, 1024])
def test_odd_shapes(tile_tokens):
    options = LossOptions(beta=0.05)
    inputs = problem(options, (100, 3, 149), hidden_size=123, vocabulary=507, bias=True)
    assert_same(options, *inputs, tile_tokens=tile_tokens)


def test_no_tokens_at_all_gives_zero_and_reaches_every_input():
    options = LossOptions()
    inputs = problem(options, (0, 0), bias=True)
    output, gradients = run(liger.grpo_loss, *inputs, options)
    assert output.loss == 0 and output.logps_N.shape == (0,)
    assert [gradient.abs().sum() for gradient in gradients.values()] == [0, 0, 0]


@pytest.mark.parametrize("head", ["trainable", "frozen"])
@pytest.mark.parametrize("case", ["dapo", "kl", "cispo", "sequence"])
def test_bf16_is_no_further_from_the_truth_than_the_reference(case, head):
    options = LossOptions(**CASES[case])
    frozen = ("weight",) if head == "frozen" else ()
    lengths, shape = (60, 0, 64), {"hidden_size": 64, "vocabulary": 501}
    tensors, labels_N, batch = problem(options, lengths, frozen=frozen, dtype=torch.bfloat16, **shape)
    exact = {
        name: None if value is None else value.detach().float().requires_grad_(value.requires_grad)
        for name, value in tensors.items()
    }
    truth, true_gradients = run(reference.grpo_loss, exact, labels_N, batch, options)
    same_dtype, reference_gradients = run(reference.grpo_loss, tensors, labels_N, batch, options)
    for tile_tokens in (32, 1024):
        found, gradients = run(liger.grpo_loss, tensors, labels_N, batch, options, tile_tokens=tile_tokens)
        assert distance(found.logps_N, truth.logps_N) <= distance(same_dtype.logps_N, truth.logps_N) + 1e-4
        assert abs(found.loss - truth.loss) <= abs(same_dtype.loss - truth.loss) + 1e-3 * abs(truth.loss)
        for name, true_gradient in true_gradients.items():
            assert gradients[name].dtype == torch.bfloat16
            error = distance(reference_gradients[name], true_gradient)
            assert distance(gradients[name], true_gradient) <= error + BF16_SLACK, name


class GemmPasses(TorchDispatchMode):
    """Counts the multiplications of matrices, in passes over tokens x hidden size x vocabulary."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.one_pass, self.total = math.prod(shape), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = args[-2:]
            self.total += left.size(0) * left.size(1) * right.size(1)
        return func(*args, **(kwargs or {}))

    @property
    def passes(self) -> float:
        return self.total / self.one_pass


@pytest.mark.parametrize(
    ("case", "on_policy", "frozen", "tile_tokens", "passes"),
    [
        ("dapo", False, (), 8, 3),
        ("kl", False, (), 8, 3),
        ("dapo", False, ("weight",), 8, 2),
        ("sequence", False, (), 1024, 3),
        ("sequence", False, (), 8, 4),
        ("sequence", True, (), 8, 3),
        ("vespo", False, (), 8, 4),
        ("vespo", True, (), 8, 3),
    ],
)
def test_gemm_passes(case, on_policy, frozen, tile_tokens, passes):
    options = LossOptions(**CASES[case])
    tensors, labels_N, batch = problem(options, (16, 0, 8), on_policy=on_policy, frozen=frozen)
    with GemmPasses(24, *tensors["weight"].shape) as gemms:
        run(liger.grpo_loss, tensors, labels_N, batch, options, tile_tokens=tile_tokens)
    assert gemms.passes == passes


def test_autocast_runs_the_gemms_in_bf16_and_gives_gradients_in_fp32():
    options = LossOptions()
    tensors, labels_N, batch = problem(options, (20, 12), hidden_size=64)
    exact, true_gradients = run(reference.grpo_loss, tensors, labels_N, batch, options)
    with torch.autocast("cpu", torch.bfloat16):
        found, gradients = run(liger.grpo_loss, tensors, labels_N, batch, options, tile_tokens=8)
    assert 0 < distance(found.logps_N, exact.logps_N) < 0.01
    for name, true_gradient in true_gradients.items():
        assert gradients[name].dtype == torch.float32
        assert distance(gradients[name], true_gradient) < 0.05, name


def test_what_later_tiles_will_hold_does_not_reach_the_gradients_of_earlier_ones():
    options = LossOptions(loss_type="grpo")
    tensors, labels_N, batch = problem(options, (8, 8))
    tensors["hidden"] = (tensors["hidden"].detach() * 40).requires_grad_()
    logps_N = reference.grpo_loss(*tensors.values(), labels_N, batch, options).logps_N
    # A ratio of e^20, and of infinity for as long as log-probabilities are not known
    unlikely = logps_N < -80
    assert unlikely[8:].any()
    batch = replace(batch, old_logps_N=torch.where(unlikely, logps_N - 20, logps_N))
    assert_same(options, tensors, labels_N, batch, tile_tokens=8)


def test_without_gradients_the_loss_is_the_same():
    options = LossOptions(beta=0.1)
    tensors, labels_N, batch = problem(options)
    with_gradient, _ = run(liger.grpo_loss, tensors, labels_N, batch, options)
    with torch.no_grad():
        without = liger.grpo_loss(tensors["hidden"], tensors["weight"], None, labels_N, batch, options)
    assert not without.loss.requires_grad
    assert without.loss.item() == pytest.approx(with_gradient.loss.item(), rel=1e-6)


def test_gradients_are_handed_out_once():
    options = LossOptions()
    tensors, labels_N, batch = problem(options)
    output = liger.grpo_loss(tensors["hidden"], tensors["weight"], None, labels_N, batch, options)
    output.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        output.loss.backward()


def test_the_order_of_sequences_does_not_matter():
    options = LossOptions(beta=0.1)
    lengths = (7, 0, 13, 1, 4)
    tensors, labels_N, batch = problem(options, lengths, is_ratio="token")
    order = [3, 2, 4, 1, 0]
    tokens = torch.cat([torch.arange(sum(lengths)).split(lengths)[row] for row in order])
    expected, _ = run(liger.grpo_loss, tensors, labels_N, batch, options)
    shuffled = {**tensors, "hidden": tensors["hidden"][tokens]}
    found, _ = run(liger.grpo_loss, shuffled, labels_N[tokens], batch.take(order), options)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


def test_a_count_of_tokens_that_does_not_fit_is_an_error():
    options = LossOptions()
    tensors, labels_N, batch = problem(options)
    with pytest.raises(ValueError, match="24 scored tokens, but the sequences have 25"):
        liger.grpo_loss(tensors["hidden"][1:], tensors["weight"], None, labels_N[1:], batch, options)


def test_one_advantage_a_sequence():
    with pytest.raises(ValueError, match="one advantage a sequence"):
        TokenBatch(torch.tensor([2]), torch.zeros(1, 2), torch.ones(1))


def test_an_unknown_loss_type_names_the_known_ones():
    with pytest.raises(ValueError, match="'ppo': known are grpo, bnpo"):
        LossOptions(loss_type="ppo")
