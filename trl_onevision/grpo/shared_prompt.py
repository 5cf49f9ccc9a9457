"""A group as one sequence: the prompt once, then every completion as a branch of it.

    [prompt[:-1]] [last prompt token, completion 1] ... [last prompt token, completion G]

A branch sees the prompt and itself, and its rotary positions continue the prompt's, so each hidden state is the one
that TRL's G separate sequences give. Repeating the last prompt token lets one token predict each branch's first token.

Shape suffixes: B rows, P prompt columns, T completion columns, U distinct prompts, L tokens of the packed row,
A rotary axes, H query heads, K key heads, D head size, G branches of one group, N tokens of all its branches,
C tokens of its longest branch, S tokens such a branch sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import CausalBias, CausalVariant
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_shared_prompt"

# Above this share of TRL's tokens, laying out the row costs what it saves.
MAX_PACKED_SHARE = 0.8


@dataclass(frozen=True)
class Group:
    """How many tokens a group has in the packed row, and how its branches become a padded batch and back."""

    prompt: int  # the prompt without its last token
    branches: int  # N
    token_GC: torch.Tensor  # the token of the branches that each place of the batch takes
    padding_GC: torch.Tensor  # the places that take any one, because they are padding
    branch_N: torch.Tensor  # for each token of the branches, its row
    step_N: torch.Tensor  # and its column
    mask_CS: torch.Tensor  # which of the tokens that a branch sees each of its own does

    def to(self, device: torch.device, **kwargs: Any) -> Group:
        """The same with its indices on `device`; accelerate calls it where a model's layers lie on several."""
        indices = {name: getattr(self, name).to(device) for name in ("token_GC", "padding_GC", "branch_N", "step_N")}
        return replace(self, **indices, mask_CS=_mask(self.prompt, self.token_GC.size(1), device))


@dataclass(frozen=True)
class PackedRow:
    """Groups laid out as one row, where each of its tokens came from, and where the branches' tokens are scored to."""

    groups: list[Group]
    token_L: torch.Tensor  # index into the flattened (B, P + T) input
    position_L: torch.Tensor  # index into the flattened (U, P) positions of the distinct prompts
    offset_L: torch.Tensor  # how far behind that position a branch token stands
    target_N: torch.Tensor  # of all groups' branches: index into the flattened (B, T) scores, -1 where none

    def position_ids(self, positions_AUP: torch.Tensor) -> torch.Tensor:
        """Rotary positions of the row: (1, L), or (A, 1, L) where there are several axes."""
        positions_AL = positions_AUP.flatten(1)[:, self.position_L] + self.offset_L
        return positions_AL if len(positions_AL) == 1 else positions_AL[:, None]

    def labels(self, completion_ids_BT: torch.Tensor) -> torch.Tensor:
        """The token (1, N) that each token of the branches predicts, -100 where none."""
        labels_N = completion_ids_BT.flatten()[self.target_N.clamp(min=0)]
        return labels_N.masked_fill(self.target_N < 0, -100)[None]

    def unpack(self, scores_1N: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Put scores of the branches where TRL expects them; zero where nothing is scored."""
        count = shape.numel()
        target_N = self.target_N.where(self.target_N >= 0, count)  # one place more, for what is not scored
        return scores_1N.new_zeros(count + 1).scatter(0, target_N, scores_1N[0])[:count].view(shape)


def pack(prompt_lengths: list[int], completion_lengths: list[int], first: list[int], P: int, T: int) -> PackedRow:
    """Lay out rows, left-padded to P and right-padded to T, with copies of a prompt side by side.

    Example: a prompt of 3 tokens (one column of padding before it) with completions of 2 and 1.

    ```python
    >>> row = pack([3, 3], [2, 1], first=[0, 0], P=4, T=2)
    >>> row.token_L.tolist()  # prompt columns 1 and 2; column 3 and a completion token; column 3 of the second row
    [1, 2, 3, 4, 9]
    >>> row.target_N.tolist()
    [0, 1, 2]

    ```
    """
    groups, token, position, offset, target = [], [], [], [], []
    for number, leader in enumerate(sorted(set(first))):
        rows = [row for row in range(len(first)) if first[row] == leader]
        prompt_length = prompt_lengths[leader]
        columns = torch.arange(P - prompt_length, P - 1)
        token.append(leader * (P + T) + columns)
        position.append(number * P + columns)
        offset.append(torch.zeros_like(columns))
        # A row whose completion is masked out keeps one unscored token: its group may be all that a rank has.
        lengths = [max(completion_lengths[row], 1) for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            steps = torch.arange(length)
            token.append(row * (P + T) + P - 1 + steps)
            position.append(torch.full_like(steps, number * P + P - 1))
            offset.append(steps)
            target.append(row * T + steps if completion_lengths[row] else torch.full_like(steps, -1))
        groups.append(_group(prompt_length - 1, lengths))
    return PackedRow(groups, torch.cat(token), torch.cat(position), torch.cat(offset), torch.cat(target))


def _group(prompt: int, lengths: list[int]) -> Group:
    width = max(lengths)
    ends = torch.tensor(lengths).cumsum(0)
    begins = ends - torch.tensor(lengths)
    step_GC = torch.arange(width).expand(len(lengths), width)
    padding_GC = step_GC >= torch.tensor(lengths)[:, None]
    # Padding is behind every real token, so that none sees it, whatever it is.
    token_GC = (begins[:, None] + step_GC).masked_fill(padding_GC, 0)
    branch_N, step_N = (~padding_GC).nonzero(as_tuple=True)
    mask_CS = _mask(prompt, width, torch.device("cpu"))
    return Group(prompt, sum(lengths), token_GC, padding_GC, branch_N, step_N, mask_CS)


def _mask(prompt: int, width: int, device: torch.device) -> torch.Tensor:
    """A branch's tokens see the prompt and, of their branch, themselves and what is before."""
    if not _kernels_are_causal(device):
        return torch.ones(width, prompt + width, dtype=torch.bool, device=device).tril(prompt)
    # `causal_lower_right`, by a way that FLOP counters and selective checkpointing let pass.
    mask = torch.empty(0).as_subclass(CausalBias)
    CausalBias.__init__(mask, CausalVariant.LOWER_RIGHT, width, prompt + width)
    return mask


def _kernels_are_causal(device: torch.device) -> bool:
    """Whether the fused kernels know a causal mask that is aligned to the last key, and need not read one."""
    return device.type == "cuda"


def saves(prompt_lengths: list[int], completion_lengths: list[int], first: list[int], P: int, T: int) -> bool:
    """Whether one packed row is cheaper than TRL's padded copies, by token counts (measured: docs/performance.md)."""
    copies = len(first) * (P + T)
    packed = sum(prompt_lengths[row] - 1 for row in set(first)) + sum(completion_lengths)
    return packed <= copies * MAX_PACKED_SHARE


def to_device(row: PackedRow, device: torch.device) -> PackedRow:
    """The same layout with its indices on `device`."""
    groups = [group.to(device) for group in row.groups]
    indices = (row.token_L, row.position_L, row.offset_L, row.target_N)
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


class _Pad(torch.autograd.Function):
    """A group's branches (N, H, D) as a padded batch (G, C, H, D).

    Every token has one place, so the backward pass gathers too, where that of torch's own index would add up one by
    one. Padding has no gradient to give: no real token sees it.
    """

    @staticmethod
    def forward(ctx: Any, states_NHD: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return states_NHD[group.token_GC]

    @staticmethod
    def backward(ctx: Any, gradient_GCHD: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient_GCHD[ctx.group.branch_N, ctx.group.step_N], None


class _Unpad(torch.autograd.Function):
    """The inverse of `_Pad`, again with gathers alone."""

    @staticmethod
    def forward(ctx: Any, states_GCHD: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return states_GCHD[group.branch_N, group.step_N]

    @staticmethod
    def backward(ctx: Any, gradient_NHD: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient_GCHD = gradient_NHD[ctx.group.token_GC]
        return gradient_GCHD.masked_fill_(ctx.group.padding_GC[..., None, None], 0), None


def attend(
    query_1HLD: torch.Tensor,
    key_1KLD: torch.Tensor,
    value_1KLD: torch.Tensor,
    groups: list[Group],
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention (1, L, H, D) of the packed row in two calls a group: the prompt over itself, its branches over both.

    No (L, L) mask is built. On CUDA both calls are causal and reach the flash kernel, grouped heads included;
    elsewhere the second takes one (C, S) mask that all branches and layers share.
    """
    # Under autocast rotary states are fp32, the values' projection is not, and autocast does not see CausalBias
    query_1HLD, key_1KLD = query_1HLD.to(value_1KLD.dtype), key_1KLD.to(value_1KLD.dtype)
    kwargs: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    kwargs["enable_gqa"] = query_1HLD.size(1) != key_1KLD.size(1)
    parts = zip(*(_split(x, groups, dim=2) for x in (query_1HLD, key_1KLD, value_1KLD)), strict=True)
    outputs_LHD = []
    for group in groups:
        query, key, value = next(parts)
        if group.prompt > 0:
            output = F.scaled_dot_product_attention(query, key, value, is_causal=True, **kwargs)
            outputs_LHD.append(output.transpose(1, 2).squeeze(0))
        query_GHCD, own_key_GKCD, own_value_GKCD = (_pad(branches, group) for branches in next(parts))
        count = query_GHCD.size(0)
        key_GKSD = torch.cat([key.expand(count, -1, -1, -1), own_key_GKCD], dim=2)
        value_GKSD = torch.cat([value.expand(count, -1, -1, -1), own_value_GKCD], dim=2)
        output = F.scaled_dot_product_attention(query_GHCD, key_GKSD, value_GKSD, attn_mask=group.mask_CS, **kwargs)
        outputs_LHD.append(_Unpad.apply(output.transpose(1, 2), group))
    return torch.cat(outputs_LHD)[None]


def _split(states: torch.Tensor, groups: list[Group], dim: int) -> tuple[torch.Tensor, ...]:
    """Each group's prompt and branches. Not slices: their backward passes would each fill a whole row with zeros."""
    return states.split([size for group in groups for size in (group.prompt, group.branches)], dim=dim)


def _pad(states_1HND: torch.Tensor, group: Group) -> torch.Tensor:
    padded_GCHD: torch.Tensor = _Pad.apply(states_1HND.transpose(1, 2).squeeze(0), group)
    return padded_GCHD.transpose(1, 2)


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
    return attend(query, key, value, shared_prompt, dropout, scaling), None


def only_branches(decoder: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    """Forward hook: of a packed row the head gets the states of the branches; it scores no prompt."""
    if (groups := kwargs.get("shared_prompt")) is not None:
        output.last_hidden_state = torch.cat(_split(output.last_hidden_state, groups, dim=1)[1::2], dim=1)


def enable(model: Any) -> None:
    """Give the language model an attention that also understands packed rows; the vision tower keeps its own."""
    AttentionInterface.register(ATTENTION, shared_prompt_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    decoder = model.get_decoder()
    if decoder.config._attn_implementation != ATTENTION:
        decoder.config._attn_implementation = ATTENTION
        decoder.register_forward_hook(only_branches, with_kwargs=True)
