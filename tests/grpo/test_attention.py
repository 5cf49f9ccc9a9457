"""The packed attention against the definition: one dense mask over the whole row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.overrides import TorchFunctionMode

from trl_onevision.grpo.shared_prompt import attend, pack, saves, to_device


def dense_mask(prompts: list[int], branches: list[list[int]]) -> torch.Tensor:
    """Who sees whom: a prompt itself, a branch its prompt and itself, nobody another group."""
    kinds = [
        (group, branch)
        for group, (prompt, lengths) in enumerate(zip(prompts, branches, strict=True))
        for branch, length in [(-1, prompt - 1), *enumerate(lengths)]
        for _ in range(length)
    ]
    mask = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for i, (group, branch) in enumerate(kinds):
        for j, (other, seen) in enumerate(kinds[: i + 1]):
            mask[i, j] = group == other and seen in (-1, branch)
    return mask


@pytest.mark.parametrize(
    "prompts, branches", [([6], [[3, 1, 5]]), ([1, 4], [[2], [2, 2]]), ([3, 9, 2], [[1], [4, 4], [7, 2]])]
)
@pytest.mark.parametrize("key_heads", [4, 2])
def test_two_calls_a_group_are_the_dense_mask(prompts: list[int], branches: list[list[int]], key_heads: int) -> None:
    lengths = [length for group in branches for length in group]
    first = [sum(map(len, branches[:g])) for g, group in enumerate(branches) for _ in group]
    row = pack(
        [prompts[branches.index(b)] for b in branches for _ in b], lengths, first, P=max(prompts), T=max(lengths)
    )
    length = row.token_L.numel()
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, length, 8, generator=generator, requires_grad=True)
    key, value = (torch.randn(1, key_heads, length, 8, generator=generator, requires_grad=True) for _ in range(2))
    weights = torch.randn(1, 4, length, 8, generator=generator)
    packed = attend(query, key, value, row.groups, 0.0, 0.3)
    gradients = torch.autograd.grad((packed * weights).sum(), (query, key, value))
    wide = [x.repeat_interleave(4 // key_heads, dim=1) for x in (key, value)]
    dense = F.scaled_dot_product_attention(query, *wide, attn_mask=dense_mask(prompts, branches), scale=0.3)
    assert torch.allclose(packed, dense, atol=1e-6)
    for found, expected in zip(
        gradients, torch.autograd.grad((dense * weights).sum(), (query, key, value)), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-5)


class AttentionDtypes(TorchFunctionMode):
    """Notes the dtypes of every call of the attention kernels."""

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.seen |= {tensor.dtype for tensor in args}
        return func(*args, **(kwargs or {}))


def test_under_autocast_rotated_fp32_states_meet_bf16_values_in_bf16() -> None:
    row = pack([6, 6], [3, 5], first=[0, 0], P=6, T=5)
    query = torch.randn(1, 4, row.token_L.numel(), 8)
    key = torch.randn(1, 2, row.token_L.numel(), 8)
    with torch.autocast("cpu", torch.bfloat16), AttentionDtypes() as dtypes:
        attend(query, key, key.bfloat16(), row.groups, 0.0, None)
    # The calls themselves, not what autocast makes of them: on CUDA it does not see the one with a causal mask.
    assert dtypes.seen == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the causal kernels of the packed row")
def test_cuda_takes_fp32_states_and_bf16_values_under_autocast() -> None:
    row = to_device(pack([70, 70], [40, 65], first=[0, 0], P=70, T=65), torch.device("cuda"))
    query = torch.randn(1, 8, row.token_L.numel(), 64, device="cuda", requires_grad=True)
    key = torch.randn(1, 2, row.token_L.numel(), 64, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        packed = attend(query, key, key.bfloat16(), row.groups, 0.0, None)
    packed.float().sum().backward()
    assert packed.dtype == torch.bfloat16
    assert query.grad is not None and query.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the causal kernels of the packed row")
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_cuda_kernels_give_the_dense_mask(dtype: torch.dtype, tolerance: float) -> None:
    prompts, branches = [70, 33], [[40, 1, 65], [20, 20]]
    lengths = [length for group in branches for length in group]
    row = pack([70, 70, 70, 33, 33], lengths, first=[0, 0, 0, 3, 3], P=70, T=65)
    row = to_device(row, torch.device("cuda"))
    query = torch.randn(1, 8, row.token_L.numel(), 64, device="cuda", dtype=dtype, requires_grad=True)
    shape = (1, 2, row.token_L.numel(), 64)
    key, value = (torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for _ in range(2))
    packed = attend(query, key, value, row.groups, 0.0, None)
    wide = [x.repeat_interleave(4, dim=1) for x in (key, value)]
    dense = F.scaled_dot_product_attention(query, *wide, attn_mask=dense_mask(prompts, branches).cuda())
    weights = torch.randn_like(dense)
    found = torch.autograd.grad((packed * weights).sum(), (query, key, value))
    expected = torch.autograd.grad((dense * weights).sum(), (query, key, value))
    for ours, theirs in zip((packed, *found), (dense, *expected), strict=True):
        assert (ours - theirs).norm() < tolerance * theirs.norm()


def test_the_mask_of_other_devices_is_that_of_cuda() -> None:
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 9, 8)
    ours = F.scaled_dot_product_attention(query, key, key, attn_mask=torch.ones(4, 9, dtype=torch.bool).tril(5))
    assert torch.allclose(F.scaled_dot_product_attention(query, key, key, attn_mask=causal_lower_right(4, 9)), ours)


def test_packing_is_chosen_by_token_counts() -> None:
    group = [0] * 8
    assert saves([1067] * 8, [128] * 8, group, P=1067, T=128)
    assert saves([59] * 8, [32] * 8, group, P=59, T=32)
    assert not saves([59] * 8, [512] * 8, group, P=59, T=512)
    assert not saves([1067], [128], [0], P=1067, T=128)
    # Padding counts: it is TRL's rows that are padded.
    assert saves([59] * 8, [512] + [64] * 7, group, P=59, T=512)
