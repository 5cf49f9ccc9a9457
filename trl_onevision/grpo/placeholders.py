"""The token that stands for an image: the processor writes it into prompts, the policy never into a completion.

One in a completion is an image token without an image, on which the model's forward stops the whole step. So it is
forbidden in sampling on every engine; a completion that holds one all the same (a rollout function's, or of an engine
that ignores the ban) is left out of the loss, as TRL leaves out truncated ones, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

BAN = -100.0  # as a bias on a logit: what vLLM, and OpenAI's protocol, take for "never"
METRIC = "completions/with_image_token"


class Placeholders:
    """The ban on one token in the sampling of one trainer, and what happens where it is sampled all the same."""

    def __init__(self, trainer: Any, token_id: int) -> None:
        self.trainer, self.token_id = trainer, token_id
        self._masked = False
        suppress(trainer, token_id)

    def leave_out(self, generated: tuple[Any, ...]) -> tuple[Any, ...]:
        """What TRL's `_generate` returned, with the completions that hold the token masked as a whole."""
        prompt_ids, completion_ids, tool_mask, *others = generated
        trainer = self.trainer
        kept_ids, mask, count = blank_out(completion_ids, tool_mask, self.token_id, trainer._tokenizer.pad_token_id)
        self._masked = tool_mask is None and mask is not None
        total = trainer.accelerator.gather(torch.tensor(count, device=trainer.accelerator.device)).sum().item()
        if total > 0:
            trainer._metrics["train" if trainer.model.training else "eval"][METRIC].append(total)
        return prompt_ids, kept_ids, mask, *others

    def fold(self, scored: dict[str, Any]) -> dict[str, Any]:
        """The scored batch, with what `leave_out` masked said as TRL says it of a truncated completion.

        That is by `completion_mask`, which a packed row and the fused loss understand; not by the `tool_mask` of a
        batch without tools, through which TRL was told.
        """
        if not self._masked:
            return scored
        kept_BT = scored["completion_mask"] * scored["tool_mask"]
        return {key: value for key, value in scored.items() if key != "tool_mask"} | {"completion_mask": kept_BT}


def suppress(trainer: Any, token_id: int) -> None:
    """Forbid the token beside whatever `generation_kwargs` ask for.

    TRL does so in transformers' `generate` alone, and not where the user's `generation_kwargs` hold the same key.
    """
    if trainer.use_vllm:
        kwargs = trainer.vllm_generation.generation_kwargs
        bias = {**(kwargs.get("logit_bias") or {}), token_id: BAN}
        trainer.vllm_generation.generation_kwargs = {**kwargs, "logit_bias": bias}
        return
    suppressed = sorted({*(trainer.generation_config.suppress_tokens or []), token_id})
    trainer.generation_config.suppress_tokens = trainer.generation_kwargs["suppress_tokens"] = suppressed


def blank_out(
    completion_ids: Sequence[list[int]], tool_mask: Sequence[list[int]] | None, token_id: int, filler_id: int
) -> tuple[Sequence[list[int]], Sequence[list[int]] | None, int]:
    """Completions without `token_id` among what the policy wrote, a mask without those that had one, and their number.

    `tool_mask` is TRL's: 1 where the policy wrote a token (None: everywhere), 0 where a tool did, whose image tokens
    have their images. Where no completion has one, all is returned as it was.

    Example:

    ```python
    >>> blank_out([[5, 9, 6], [5, 6]], None, token_id=9, filler_id=0)
    ([[5, 0, 6], [5, 6]], [[0, 0, 0], [1, 1]], 1)
    >>> blank_out([[5, 9, 6]], [[1, 0, 1]], token_id=9, filler_id=0)
    ([[5, 9, 6]], [[1, 0, 1]], 0)

    ```
    """
    mask = [[1] * len(ids) for ids in completion_ids] if tool_mask is None else tool_mask
    wrote = [
        token_id in ids and any(token == token_id and own for token, own in zip(ids, row, strict=True))
        for ids, row in zip(completion_ids, mask, strict=True)
    ]
    if not any(wrote):
        return completion_ids, tool_mask, 0
    blanked = [
        [filler_id if token == token_id and own else token for token, own in zip(ids, row, strict=True)]
        for ids, row in zip(completion_ids, mask, strict=True)
    ]
    kept = [[0] * len(row) if bad else row for row, bad in zip(mask, wrote, strict=True)]
    return blanked, kept, sum(wrote)
