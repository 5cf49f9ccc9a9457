"""A vision tower's attention in one call a layer, over all of its images and windows.

transformers calls SDPA once an image, and in Qwen2.5-VL once a window: 100 of them for a picture of 1064 x 1064, in 28
layers, forward, again under gradient checkpointing, and backward. On a GPU these calls, and not their arithmetic, are
most of a tower's time. torch's `varlen_attn` takes sequences of any length side by side in one call.

Shape suffixes: H heads, L patches of all images, D head size.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# "flash" in its name makes a tower hand over where its sequences begin
ATTENTION = "varlen_flash_tower"


def tower_attention(
    module: torch.nn.Module,
    query_1HLD: torch.Tensor,
    key_1HLD: torch.Tensor,
    value_1HLD: torch.Tensor,
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    is_causal: bool,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (1, L, H, D) of each sequence to itself; `cu_seq_lens_q` is where each begins, and the last one ends.

    The kernel is CUDA's, for half precision and without dropout; elsewhere every sequence is a call of SDPA.
    """
    states = (query_1HLD, key_1HLD, value_1HLD)
    if _has_kernel(*states) and not dropout and not is_causal:
        query, key, value = (state.squeeze(0).transpose(0, 1) for state in states)
        begins, longest = cu_seq_lens_q, int(max_length_q)
        output_LHD: Any = varlen_attn(query, key, value, begins, begins, longest, longest, scale=scaling)
        return output_LHD[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    outputs = [
        sdpa_attention_forward(module, query, key, value, None, dropout, scaling, is_causal)[0]
        for query, key, value in zip(*(state.split(lengths, dim=2) for state in states), strict=True)
    ]
    return torch.cat(outputs, dim=1), None


def _has_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    fits = query.dtype == key.dtype == value.dtype and query.size(1) == key.size(1)
    return query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and fits


def enable(model: Any) -> None:
    """Give it to every tower of `model` that lays its images out side by side and attends by SDPA."""
    AttentionInterface.register(ATTENTION, tower_attention)
    language = {id(module) for module in model.get_decoder().modules()}
    for module in model.modules():
        lays_out = "cu_seqlens" in inspect.signature(type(module).forward).parameters
        config: Any = getattr(module, "config", None)
        if lays_out and id(module) not in language and getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = ATTENTION
