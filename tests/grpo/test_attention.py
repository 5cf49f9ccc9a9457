"""The packed attention against the definition: one dense mask over the whole row."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from compare import ONE_BATCH, OURS
from tiny import completions
from torch.nn.attention.bias import causal_lower_right
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from trl_onevision.grpo import shared_prompt
from trl_onevision.grpo.shared_prompt import Group, attend, pack, saves, to_device


@pytest.fixture(params=["as on CUDA", "elsewhere"])
def branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of `attend`, on any device: the mask that CUDA's kernels know without reading it, and a read one."""
    monkeypatch.setattr(shared_prompt, "_kernels_are_causal", lambda device: request.param == "as on CUDA")
    return request.param


def states(row: shared_prompt.PackedRow, heads: int, key_heads: int, size: int = 8) -> list[torch.Tensor]:
    """Query, key and value of a packed row."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, count, row.token_L.numel(), size) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


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
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_two_calls_a_group_are_the_dense_mask(
    prompts: list[int], branches: list[list[int]], key_heads: int, branch: str
) -> None:
    lengths = [length for group in branches for length in group]
    first = [sum(map(len, branches[:g])) for g, group in enumerate(branches) for _ in group]
    row = pack(
        [prompts[branches.index(b)] for b in branches for _ in b], lengths, first, P=max(prompts), T=max(lengths)
    )
    query, key, value = states(row, heads=4, key_heads=key_heads)
    weights = torch.randn_like(query)
    packed = attend(query, key, value, row.groups, 0.0, 0.3).transpose(1, 2)
    gradients = torch.autograd.grad((packed * weights).sum(), (query, key, value))
    wide = [x.repeat_interleave(4 // key_heads, dim=1) for x in (key, value)]
    scores = (query @ wide[0].transpose(2, 3) * 0.3).masked_fill(~dense_mask(prompts, branches), -torch.inf)
    dense = scores.softmax(-1) @ wide[1]
    assert torch.allclose(packed, dense, atol=1e-6)
    for found, expected in zip(
        gradients, torch.autograd.grad((dense * weights).sum(), (query, key, value)), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-5)


def test_both_branches_are_one() -> None:
    row = pack([40] * 3, [31, 7, 20], [0] * 3, P=40, T=31)
    query, key, value = states(row, heads=4, key_heads=2)
    found = []
    for causal in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_prompt, "_kernels_are_causal", lambda device, causal=causal: causal)
            groups = to_device(row, query.device).groups
        assert all(isinstance(group.mask_CS, shared_prompt.CausalBias) == causal for group in groups)
        packed = attend(query, key, value, groups, 0.0, None)
        found.append((packed, *torch.autograd.grad(packed.square().sum(), (query, key, value))))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


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
    packed = attend(query, key, value, row.groups, 0.0, None).transpose(1, 2)
    wide = [x.repeat_interleave(4, dim=1) for x in (key, value)]
    dense = F.scaled_dot_product_attention(query, *wide, attn_mask=dense_mask(prompts, branches).cuda())
    weights = torch.randn_like(dense)
    found = torch.autograd.grad((packed * weights).sum(), (query, key, value))
    expected = torch.autograd.grad((dense * weights).sum(), (query, key, value))
    for ours, theirs in zip((packed, *found), (dense, *expected), strict=True):
        assert (ours - theirs).norm() < tolerance * theirs.norm()


def test_the_masks_of_all_devices_are_causal_to_the_last_key(branch: str) -> None:
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 9, 8)
    mask_CS = pack([6, 6], [4, 2], [0, 0], P=6, T=4).groups[0].mask_CS
    ours = F.scaled_dot_product_attention(query, key, key, attn_mask=mask_CS)
    assert torch.allclose(F.scaled_dot_product_attention(query, key, key, attn_mask=causal_lower_right(4, 9)), ours)


def test_packing_is_chosen_by_token_counts() -> None:
    group = [0] * 8
    assert saves([1067] * 8, [128] * 8, group, P=1067, T=128)
    assert saves([59] * 8, [32] * 8, group, P=59, T=32)
    assert not saves([59] * 8, [512] * 8, group, P=59, T=512)
    assert not saves([1067], [128], [0], P=1067, T=128)
    # Padding counts: it is TRL's rows that are padded.
    assert saves([59] * 8, [512] + [64] * 7, group, P=59, T=512)


# Counts: what can be said of a device that is not here.


class Operations(TorchDispatchMode):
    """Counts what a device would launch: every operation of torch's but views, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.added_up = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view:
            self.counts[name] += 1
        if "index_put" in name:
            self.added_up += bool(args[3] if len(args) > 3 else (kwargs or {}).get("accumulate"))
        return func(*args, **(kwargs or {}))


FLASH = "_scaled_dot_product_flash_attention_for_cpu"


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [5, 1, 3]], ids=["even", "uneven"])
def test_operations_of_an_attention_are_those_of_the_formula(groups: int, lengths: list[int]) -> None:
    first = [3 * group for group in range(groups) for _ in range(3)]
    row = pack([6] * 3 * groups, lengths * groups, first, P=6, T=5)
    query, key, value = states(row, heads=4, key_heads=2)
    with Operations() as forward:
        packed = attend(query, key, value, row.groups, 0.0, None)
    gradient = torch.ones_like(packed)
    with Operations() as backward:
        packed.backward(gradient)
    g = groups
    reading_masks = {"scalar_tensor": 2 * g, "where": g}  # not on CUDA
    assert forward.counts == {FLASH: 2 * g, "index": 4 * g, "cat": 2 * g + 1, **reading_masks}
    shared_keys = {"sum": 2 * g, "add": 2 * g}  # of a prompt's keys and values, over its branches
    joined = {"cat": 3, "masked_fill_": g}
    assert backward.counts == {FLASH + "_backward": 2 * g, "index": 4 * g, **joined, **shared_keys}
    assert backward.added_up == 0


def test_attention_keeps_the_bytes_of_the_formula() -> None:
    lengths, prompt, heads, key_heads, size = [50, 20, 30], 101, 4, 2, 8
    row = pack([prompt] * 3, lengths, [0] * 3, P=prompt, T=50)
    query, key, value = states(row, heads, key_heads, size)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        packed = attend(query, key, value, row.groups, 0.0, None)
    packed.sum().backward()
    G, C, P, L = 3, 50, prompt - 1, row.token_L.numel()
    S = P + C
    states_of_row = L * (heads + 2 * key_heads) * size
    states_of_batch = G * (C * heads + 2 * S * key_heads) * size
    outputs = (P + G * C) * heads * (size + 1)  # and the logarithm of each softmax's sum
    read_mask = C * S  # as numbers; not on CUDA
    assert sum(kept.values()) == 4 * (states_of_row + states_of_batch + outputs + read_mask)


def packed_pass() -> tuple[Any, Callable[..., Any], list[Group]]:
    """A decoder of one layer and a call of it on a packed row."""
    model, _ = tiny.build("qwen2_5_vl", layers=1)
    shared_prompt.enable(model)
    row = pack([6] * 3 + [4] * 2, [3, 1, 5, 2, 2], [0] * 3 + [3] * 2, P=6, T=5)
    length = row.token_L.numel()
    given = {
        "input_ids": torch.arange(length)[None] + 20,
        "position_ids": torch.arange(length).expand(3, 1, -1),
        "attention_mask": torch.zeros(1, 1, 1, 1),
        "shared_prompt": row.groups,
        "use_cache": False,
    }
    return model.get_decoder(), lambda decoder: decoder(**given).last_hidden_state, row.groups


def test_the_head_sees_branches_alone() -> None:
    decoder, call, groups = packed_pass()
    assert call(decoder).size(1) == sum(group.branches for group in groups) == 13


def test_a_packed_pass_compiles_as_one_graph(branch: str) -> None:
    decoder, call, _ = packed_pass()
    expected = call(decoder)
    compiled = torch.compile(decoder, fullgraph=True, backend="eager")
    found = call(compiled)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert all(p.grad is not None for p in decoder.layers.parameters())


def test_a_packed_pass_is_checkpointed_selectively(branch: str) -> None:
    decoder, call, _ = packed_pass()
    context = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    gradients = []
    for run in (call, functools.partial(checkpoint, call, use_reentrant=False, context_fn=context)):
        decoder.zero_grad()
        run(decoder).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in decoder.layers.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-5)


def test_a_packed_pass_and_its_packing_are_counted(branch: str) -> None:
    with FlopCounterMode(display=False) as flops:
        decoder, call, groups = packed_pass()
        call(decoder)
    length = sum(group.prompt + group.branches for group in groups)
    with FlopCounterMode(display=False) as angles:  # older versions of transformers make them by a matrix product
        decoder.rotary_emb(torch.zeros(1), torch.arange(length).expand(3, 1, -1))
    in_layers = sum(p.numel() for p in decoder.layers.parameters() if p.ndim == 2)
    linear = 2 * length * in_layers  # over each token once
    # Two products of queries and keys: of each prompt with itself, and of its branches, as wide as the longest, with
    # both
    pairs = 5 * 5 + 3 * 5 * (5 + 5) + 3 * 3 + 2 * 2 * (3 + 2)
    attention = 4 * decoder.config.hidden_size * pairs
    # Before 2.15, torch does not count its attention on a CPU
    assert flops.get_total_flops() - angles.get_total_flops() - linear in (0, attention)


def test_nothing_is_added_up_one_by_one_in_a_policy_update(make: Callable[..., Any]) -> None:
    # Not Qwen2.5-VL, whose tower permutes its windows by an index of its own
    trainer = make(**OURS, family="qwen2_vl", given=completions([5, 9, 3, 16, 7, 7, 12, 1]), **ONE_BATCH)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, inputs)
    with Operations() as backward:
        loss.backward()
    assert backward.counts["index"] > 0
    assert backward.added_up == 0
