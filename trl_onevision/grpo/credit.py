"""Credit for the tokens that state a key step: StepGRPO's key steps, told to the loss token by token.

R1-VL (arXiv 2503.12937) pays a completion for the share of key steps in it, the same for each of its tokens. That the
tokens which state them are credited is this package's own: TRL's loss takes advantages (B, T).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import partial
from typing import Any

import torch

from trl_onevision.rewards.steps import key_step_spans

STRENGTH = 0.5


def key_step_credit(completion_ids_BT: torch.Tensor, rows: list[dict[str, Any]], tokenizer: Any) -> torch.Tensor:
    """What a token's advantage gains, in shares of its absolute value: a half where it states a key step, else 0.

    So a right completion is credited half as much again for its key steps, and a wrong one blamed half as much.
    """
    credit_BT = torch.zeros(completion_ids_BT.shape, device=completion_ids_BT.device)
    for row, (ids, columns) in enumerate(zip(completion_ids_BT.tolist(), rows, strict=True)):
        for start, end in token_spans(ids, columns.get("key_steps"), tokenizer):
            credit_BT[row, start:end] = STRENGTH
    return credit_BT


def token_spans(ids: list[int], key_steps: Any, tokenizer: Any) -> list[tuple[int, int]]:
    """The tokens, from and to, of each wording of a key step in a completion."""

    def length(count: int) -> int:
        """Whole characters of the first tokens: a search by halves needs few of these."""
        return len(decode(ids[:count]).rstrip("\ufffd"))

    if not key_steps:
        return []
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    text = decode(ids)
    counts = range(len(ids) + 1)
    spans = []
    for start, end in key_step_spans(text, key_steps):
        before = length(bisect_right(counts, start, key=length) - 1)  # where the token of the first character begins
        spans.append((bisect_left(counts, before, key=length), bisect_left(counts, end, key=length)))
    return spans
