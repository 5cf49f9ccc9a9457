"""A group as one sequence: the prompt once, then every completion as a branch of it.

    [prompt[:-1]] [last prompt token, completion 1] ... [last prompt token, completion G]

A branch sees the prompt and itself, and its rotary positions continue the prompt's, so each hidden state is the one
that TRL's G separate sequences give. Repeating the last prompt token lets one token predict each branch's first token.

Shape suffixes: B rows, P prompt columns, T completion columns, U distinct prompts, L tokens of the packed row,
A rotary axes, H query heads, K key heads, D head size, G branches of one group, C tokens of its longest branch,
S tokens such a branch sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_shared_prompt"

# Above this share of TRL's tokens, laying out the row costs what it saves.
MAX_PACKED_SHARE = 0.8


@dataclass(frozen=True)
class Group:
    """Where one group lies in the packed row, and how its branches become a padded batch and back."""

    prompt: slice
    branches: slice
    pad_GC: torch.Tensor
    unpad: torch.Tensor
    seen: int  # S: the prompt without its last token, and the longest branch

    def to(self, device: torch.device, **kwargs: Any) -> Group:
        """The same with its indices on `device`; accelerate calls it where a model's layers lie on several."""
        return replace(self, pad_GC=self.pad_GC.to(device), unpad=self.unpad.to(device))


@dataclass(frozen=True)
class PackedRow:
    """Groups laid out as one row, and where each of its tokens came from and is scored to."""

    groups: list[Group]
    token_L: torch.Tensor  # index into the flattened (B, P + T) input
    position_L: torch.Tensor  # index into the flattened (U, P) positions of the distinct prompts
    offset_L: torch.Tensor  # how far behind that position a branch token stands
    target_L: torch.Tensor  # index into the flattened (B, T) scores, -1 where nothing is scored

    def position_ids(self, positions_AUP: torch.Tensor) -> torch.Tensor:
        """Rotary positions of the row: (1, L), or (A, 1, L) where there are several axes."""
        positions_AL = positions_AUP.flatten(1)[:, self.position_L] + self.offset_L
        return positions_AL if len(positions_AL) == 1 else positions_AL[:, None]

    def labels(self, completion_ids_BT: torch.Tensor) -> torch.Tensor:
        """The token that each position predicts, -100 where none."""
        labels_L = completion_ids_BT.flatten()[self.target_L.clamp(min=0)]
        return labels_L.masked_fill(self.target_L < 0, -100)[None]

    def unpack(self, scores_1L: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Put scores of the packed row where TRL expects them; zero where nothing is scored."""
        scored = self.target_L >= 0
        flat = scores_1L.new_zeros(shape.numel()).index_put((self.target_L[scored],), scores_1L[0, scored])
        return flat.view(shape)


def pack(prompt_lengths: list[int], completion_lengths: list[int], first: list[int], P: int, T: int) -> PackedRow:
    """Lay out rows, left-padded to P and right-padded to T, with copies of a prompt side by side.

    Example: a prompt of 3 tokens (one column of padding before it) with completions of 2 and 1.

    ```python
    >>> row = pack([3, 3], [2, 1], first=[0, 0], P=4, T=2)
    >>> row.token_L.tolist()  # prompt columns 1 and 2; column 3 and a completion token; column 3 of the second row
    [1, 2, 3, 4, 9]
    >>> row.target_L.tolist()
    [-1, -1, 0, 1, 2]

    ```
    """
    groups, token, position, offset, target = [], [], [], [], []
    start = 0
    for number, leader in enumerate(sorted(set(first))):
        rows = [row for row in range(len(first)) if first[row] == leader]
        prompt_length = prompt_lengths[leader]
        columns = torch.arange(P - prompt_length, P - 1)
        token.append(leader * (P + T) + columns)
        position.append(number * P + columns)
        offset.append(torch.zeros_like(columns))
        target.append(torch.full_like(columns, -1))
        # A row whose completion is masked out keeps one unscored token: its group may be all that a rank has.
        lengths = [max(completion_lengths[row], 1) for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            steps = torch.arange(length)
            token.append(row * (P + T) + P - 1 + steps)
            position.append(torch.full_like(steps, number * P + P - 1))
            offset.append(steps)
            target.append(row * T + steps if completion_lengths[row] else torch.full_like(steps, -1))
        groups.append(_group(start, prompt_length - 1, lengths))
        start = groups[-1].branches.stop
    return PackedRow(groups, torch.cat(token), torch.cat(position), torch.cat(offset), torch.cat(target))


def _group(start: int, prompt_length: int, lengths: list[int]) -> Group:
    width = max(lengths)
    ends = torch.tensor(lengths).cumsum(0)
    begins = ends - torch.tensor(lengths)
    steps_GC = torch.arange(width).expand(len(lengths), width)
    real_GC = steps_GC < torch.tensor(lengths)[:, None]
    branches = slice(start + prompt_length, start + prompt_length + int(ends[-1]))
    # Padding is whatever comes next: behind every real token, so that none sees it, and no index many times, which
    # the backward pass would add up one by one.
    pad_GC = (begins[:, None] + steps_GC) % ends[-1]
    prompt = slice(start, start + prompt_length)
    return Group(prompt, branches, pad_GC, real_GC.flatten().nonzero()[:, 0], prompt_length + width)


def saves(prompt_lengths: list[int], completion_lengths: list[int], first: list[int], P: int, T: int) -> bool:
    """Whether one packed row is cheaper than TRL's padded copies, by token counts (measured: docs/performance.md)."""
    copies = len(first) * (P + T)
    packed = sum(prompt_lengths[row] - 1 for row in set(first)) + sum(completion_lengths)
    return packed <= copies * MAX_PACKED_SHARE


def to_device(row: PackedRow, device: torch.device) -> PackedRow:
    """The same layout with its indices on `device`."""
    groups = [group.to(device) for group in row.groups]
    indices = (row.token_L, row.position_L, row.offset_L, row.target_L)
    return PackedRow(groups, *(index.to(device) for index in indices))


def prompt_positions(
    model: Any,
    prompt_ids_UP: torch.Tensor,
    prompt_mask_UP: torch.Tensor,
    token_types_UP: torch.Tensor | None,
    image_grid_thw: torch.Tensor | None,
) -> torch.Tensor:
    """Rotary positions (A, U, P) of the prompts, by the model's own rule where images have positions of their own."""
    has_axes = hasattr(model.base_model, "get_rope_index")
    if not has_axes or image_grid_thw is None:
        return (prompt_mask_UP.cumsum(-1) - 1).clamp(min=0).expand(3 if has_axes else 1, -1, -1)
    positions_AUP: torch.Tensor = model.base_model.get_rope_index(
        prompt_ids_UP,
        mm_token_type_ids=token_types_UP,
        image_grid_thw=image_grid_thw,
        attention_mask=prompt_mask_UP,
    )[0]
    return positions_AUP


def attend(
    query_1HLD: torch.Tensor,
    key_1KLD: torch.Tensor,
    value_1KLD: torch.Tensor,
    groups: list[Group],
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of the packed row in two calls a group: the prompt over itself, its branches over prompt and self.

    No (L, L) mask is built. On CUDA both calls are causal and reach the flash kernel, grouped heads included;
    elsewhere the second takes one (C, S) mask that all branches share.
    """
    device = query_1HLD.device.type
    if torch.is_autocast_enabled(device):  # rotary states are fp32, and autocast does not see a call with CausalBias
        dtype = torch.get_autocast_dtype(device)
        query_1HLD, key_1KLD, value_1KLD = (x.to(dtype) for x in (query_1HLD, key_1KLD, value_1KLD))
    kwargs: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    if query_1HLD.size(1) != key_1KLD.size(1):
        if query_1HLD.is_cuda:
            kwargs["enable_gqa"] = True
        else:  # only CUDA's fused kernel takes fewer key heads than query heads
            copies = query_1HLD.size(1) // key_1KLD.size(1)
            key_1KLD, value_1KLD = repeat_kv(key_1KLD, copies), repeat_kv(value_1KLD, copies)
    outputs_1HLD = []
    for group in groups:
        query, key, value = (x[:, :, group.prompt] for x in (query_1HLD, key_1KLD, value_1KLD))
        if key.size(2) > 0:
            outputs_1HLD.append(F.scaled_dot_product_attention(query, key, value, is_causal=True, **kwargs))
        query_GHCD = _branches(query_1HLD, group)
        count, _, width, _ = query_GHCD.shape
        key_GKSD = torch.cat([key.expand(count, -1, -1, -1), _branches(key_1KLD, group)], dim=2)
        value_GKSD = torch.cat([value.expand(count, -1, -1, -1), _branches(value_1KLD, group)], dim=2)
        mask: Any = causal_lower_right(width, group.seen)
        if not query_1HLD.is_cuda:
            mask = torch.ones(width, group.seen, dtype=torch.bool).tril(group.seen - width).to(query_1HLD.device)
        output_GHCD = F.scaled_dot_product_attention(query_GHCD, key_GKSD, value_GKSD, attn_mask=mask, **kwargs)
        outputs_1HLD.append(output_GHCD.transpose(0, 1).flatten(1, 2)[:, group.unpad][None])
    return torch.cat(outputs_1HLD, dim=2)


def _branches(states_1HLD: torch.Tensor, group: Group) -> torch.Tensor:
    """The group's branches as a padded batch (G, H, C, D)."""
    return states_1HLD[0, :, group.branches][:, group.pad_GC].transpose(0, 1)


def shared_prompt_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prompt: list[Group] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA, and the packed form when the forward was called with `shared_prompt`."""
    if shared_prompt is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    output = attend(query, key, value, shared_prompt, dropout, scaling)
    return output.transpose(1, 2).contiguous(), None


def enable(model: Any) -> None:
    """Give the language model an attention that also understands packed rows; the vision tower keeps its own."""
    AttentionInterface.register(ATTENTION, shared_prompt_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.get_decoder().config._attn_implementation = ATTENTION
