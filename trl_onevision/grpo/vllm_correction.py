"""The correction for what vLLM sampled with other log-probabilities, without a pass of its own.

TRL runs the model over every generation once more, to compare its log-probabilities with vLLM's. Where no step comes
between, the policy pass gives the same ones, and the ratio is read there.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanmax, nanmin


def importance_ratio(
    logps_BT: torch.Tensor,
    sampling_logps_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    mode: str,
    clip_min: float | None,
    clip_max: float | None,
) -> torch.Tensor:
    """How much likelier the model finds what vLLM sampled, (B, T) by token or (B, 1) by sequence.

    A ratio outside the bounds is cut off at them, or zero in the modes that mask, as in `GRPOTrainer`. A token without
    a log-probability from vLLM (NaN) counts as sampled by the model itself.

    >>> ratio = importance_ratio(
    ...     torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.0, -4.0]]), torch.ones(1, 2), "token_truncate", None, 3.0
    ... )
    >>> ratio.tolist()
    [[1.0, 3.0]]
    """
    difference = torch.nan_to_num((logps_BT - sampling_logps_BT) * mask_BT, nan=0.0)
    if mode.startswith("sequence"):
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=clip_min, max=clip_max)
    outside = torch.zeros_like(ratio, dtype=torch.bool)
    if clip_min is not None:
        outside |= ratio < clip_min
    if clip_max is not None:
        outside |= ratio > clip_max
    return ratio.masked_fill(outside, 0.0)


class VLLMCorrection:
    """The correction of one trainer: ratios micro-batch by micro-batch, TRL's metrics once a generation."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer: Any = trainer
        self._gaps: list[torch.Tensor] = []
        self._ratios: list[torch.Tensor] = []

    def ratio(self, logps_BT: torch.Tensor, inputs: dict[str, Any], scored: list[bool] | None) -> torch.Tensor:
        """The ratio of a micro-batch; its rows count in the metrics where they are `scored` (None: all are)."""
        trainer, sampling_BT, mask_BT = self.trainer, inputs["sampling_per_token_logps"], inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask_BT = mask_BT * inputs["tool_mask"]
        mode = trainer.vllm_importance_sampling_mode
        bounds = trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max
        ratio = importance_ratio(logps_BT, sampling_BT, mask_BT, mode, *bounds)

        rows = torch.tensor([True] * len(ratio) if scored is None else scored, device=ratio.device)
        counted_BT = mask_BT.bool() & rows[:, None]
        gap_BT = (logps_BT - sampling_BT).abs()
        self._gaps.append(gap_BT[counted_BT & ~gap_BT.isnan()])
        self._ratios.append(ratio[rows].flatten() if ratio.size(1) == 1 else ratio[counted_BT])
        if len(self._gaps) == trainer.args.steps_per_generation:
            self._log()
        return ratio

    def _log(self) -> None:
        gaps, ratios = torch.cat(self._gaps), torch.cat(self._ratios)
        self._gaps, self._ratios = [], []
        gaps = gaps if gaps.numel() else gaps.new_zeros(1)
        ratios = ratios if ratios.numel() else ratios.new_full((1,), torch.nan)  # of a rank that has scored none
        gather = self.trainer.accelerator.gather
        metrics = self.trainer._metrics["train"]
        metrics["sampling/sampling_logp_difference/mean"].append(gather(gaps.mean()).mean().item())
        metrics["sampling/sampling_logp_difference/max"].append(gather(gaps.max()).max().item())
        metrics["sampling/importance_sampling_ratio/min"].append(nanmin(gather(ratios.min())).item())
        metrics["sampling/importance_sampling_ratio/mean"].append(gather(ratios.mean()).nanmean().item())
        metrics["sampling/importance_sampling_ratio/max"].append(nanmax(gather(ratios.max())).item())
