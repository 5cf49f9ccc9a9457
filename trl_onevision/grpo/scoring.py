"""Scoring: the log-probabilities of completions, from one pass over a prompt and all of its completions."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from trl_onevision.grpo import shared_prompt
from trl_onevision.grpo.rows import IMAGE_FIELDS, are_by_row, first_copies, take_rows

logger = logging.getLogger(__name__)

Scores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log-probabilities (B, T), entropies (B, T) and the auxiliary loss; None where they were not asked for."""


class Scorer:
    """What a trainer scores completions by, on a packed row where that is cheaper and by TRL's own pass elsewhere.

    Attributes:
        policy_inputs: The micro-batch whose loss is computed now; None outside of it.
        moves: For each of its rows whether its gradient is not zero; None where all count.
    """

    def __init__(self, trainer: Any, by_trl: Callable[..., Scores]) -> None:
        self.trainer, self._by_trl = trainer, by_trl
        self.policy_inputs: dict[str, Any] | None = None
        self.moves: list[bool] | None = None
        forward = type(trainer._base_model(trainer.model)).forward
        self._takes_image_counts = "batch_num_images" in inspect.signature(forward).parameters

    def score(
        self,
        model: Any,
        batch: dict[str, Any],
        T: int,
        batch_size: int | None,
        compute_entropy: bool,
        compute_aux_loss: bool,
    ) -> Scores:
        """Score the rows that matter, window by window; every rank makes the same number of passes."""
        count, P = batch["input_ids"].size(0), batch["input_ids"].size(1) - T
        first = first_copies(batch["input_ids"][:, :P], batch["attention_mask"][:, :P], batch.get("num_images"))
        # Whole groups, but no more than twice the rows of a training pass, which keeps activations besides.
        G = self.trainer.num_generations
        window = count if batch_size is None else min(-(-batch_size // G) * G, 2 * batch_size)
        logps, entropies, aux_losses = [], [], []
        for start in range(0, count, window):
            rows = list(range(start, min(start + window, count)))
            # The auxiliary loss counts every token, scored or not.
            matter = rows if compute_aux_loss else self._rows_that_matter(batch, rows, T)
            if self.trainer._liger_loss is not None:
                self.trainer._liger_loss.score_rows(matter)
            taken = take_rows(batch, matter, first)
            scores = self._score_rows(model, taken, T, compute_entropy, compute_aux_loss)
            window_logps, window_entropies, aux_loss = scores
            index = torch.tensor([row - start for row in matter], device=window_logps.device)
            logps.append(self._unscored_logps(window_logps, rows).index_copy(0, index, window_logps))
            if window_entropies is not None:
                # The metric is a mean over tokens: rows left out take the mean of those scored, and do not move it.
                scored = batch["attention_mask"][matter, P:].bool()
                mean = window_entropies.detach()[scored].sum() / scored.sum().clamp(min=1)
                entropies.append(mean.expand(len(rows), T).index_copy(0, index, window_entropies))
            if aux_loss is not None:
                aux_losses.append(aux_loss)
        aux = torch.stack(aux_losses).mean() if aux_losses else None
        return torch.cat(logps), torch.cat(entropies) if entropies else None, aux

    def _unscored_logps(self, like_BT: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """What stands in for rows that are not scored: the old log-probabilities or vLLM's, for a ratio of one."""
        for source in ("old_per_token_logps", "sampling_per_token_logps"):
            if self.policy_inputs is not None and source in self.policy_inputs:
                return self.policy_inputs[source][rows].nan_to_num(nan=0.0).to(like_BT.dtype)
        return like_BT.new_zeros(len(rows), like_BT.size(1))

    def _rows_that_matter(self, batch: dict[str, Any], rows: list[int], T: int) -> list[int]:
        """Rows with tokens to score and a gradient to give; never none, so that every module runs on every rank."""
        has_tokens = batch["attention_mask"][:, -T:].any(1).tolist()
        live = [row for row in rows if has_tokens[row] and (self.moves is None or self.moves[row])]
        return live or [max(rows, key=lambda row: has_tokens[row])]

    def _score_rows(
        self, model: Any, batch: dict[str, Any], T: int, compute_entropy: bool, compute_aux_loss: bool
    ) -> Scores:
        """Log-probabilities and entropies (B, T) from one pass, over a packed row where that is cheaper."""
        P = batch["input_ids"].size(1) - T
        prompt_mask, completion_mask = batch["attention_mask"].split([P, T], dim=1)
        first = first_copies(batch["input_ids"][:, :P], prompt_mask, batch.get("num_images"))
        lengths = prompt_mask.sum(1).tolist(), completion_mask.sum(1).tolist()
        packs = self.trainer._sharing.scoring is None and self._understands_packed_rows(model)
        if packs and (self.trainer.options.share_prompt == "true" or shared_prompt.saves(*lengths, first, P, T)):
            row = shared_prompt.to_device(shared_prompt.pack(*lengths, first, P, T), prompt_mask.device)
            outputs = self._forward_packed(model, batch, row, sorted(set(first)), P)
            logps = row.unpack(outputs.log_probs, completion_mask.shape)
            return logps, row.unpack(outputs.entropy, logps.shape) if compute_entropy else None, None
        copies = take_rows(batch, list(range(len(first))), first, every_copy=True)
        input_ids, mask = copies.pop("input_ids"), copies.pop("attention_mask")
        # Not in TRL's chunks: another rank may have packed the same window into its one pass.
        return self._by_trl(
            self.calls_of_rows(model, copies.get("num_images")),
            input_ids,
            mask,
            T,
            compute_entropy=compute_entropy,
            compute_aux_loss=compute_aux_loss,
            **copies,
        )

    def _understands_packed_rows(self, model: Any) -> bool:
        """Whether the model still has the attention that it was given at construction."""
        attention = self.trainer._base_model(model).get_decoder().config._attn_implementation
        if attention == shared_prompt.ATTENTION:
            return True
        reason = f"attn_implementation was set to {attention!r} after construction"
        logger.warning("As in TRL, each completion has its own scoring (%s).", reason)
        self.trainer._sharing = replace(self.trainer._sharing, scoring=reason)
        return False

    def call(self, model: Any, num_images: list[int], **inputs: Any) -> Any:
        """Call the wrapped model on rows that hold so many images: every call of a scoring pass, and so in step."""
        if not any(num_images):  # where a micro-batch has images and these rows have none, TRL's slices are empty
            inputs = {key: value for key, value in inputs.items() if key not in IMAGE_FIELDS}
        elif self._takes_image_counts:  # of LLaVA-OneVision, which TRL does not tell how many each prompt has
            inputs["batch_num_images"] = torch.tensor([count for count in num_images if count])
        with self.trainer._tower.joined(self.trainer._base_model(model), any(num_images)):
            return model(**inputs)

    def calls_of_rows(self, model: Any, num_images: list[int] | None) -> Callable[..., Any]:
        """`model` for TRL's pass, which calls it on one chunk of rows after the other."""
        counts = iter(num_images or [])
        return lambda **inputs: self.call(model, list(islice(counts, len(inputs["input_ids"]))), **inputs)

    def _forward_packed(
        self, model: Any, batch: dict[str, Any], row: shared_prompt.PackedRow, leaders: list[int], P: int
    ) -> Any:
        """Call the wrapped model on the packed row; its scoring head answers as it does for TRL's own pass."""
        token_types = batch.get("mm_token_type_ids")
        positions = shared_prompt.prompt_positions(
            self.trainer._base_model(model),
            batch["input_ids"][leaders, :P],
            batch["attention_mask"][leaders, :P],
            None if token_types is None else token_types[leaders, :P],
            batch.get("image_grid_thw"),
        )
        images = {key: batch[key] for key in IMAGE_FIELDS if key in batch}
        if are_by_row(batch):
            images = {key: value[leaders] for key, value in images.items()}
        with self.trainer.accelerator.autocast():
            return self.call(
                model,
                batch.get("num_images") or [],
                input_ids=batch["input_ids"].flatten()[row.token_L][None],
                # Four dimensions say that the mask is ready; what is seen is in `shared_prompt`.
                attention_mask=batch["attention_mask"].new_zeros(1, 1, 1, 1),
                position_ids=row.position_ids(positions),
                shift_labels=row.labels(batch["input_ids"][:, P:]),
                fused_lm_head=True,
                shared_prompt=row.groups,
                **images,
            )
