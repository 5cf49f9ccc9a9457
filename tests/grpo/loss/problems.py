"""Random problems for the GRPO loss, and what an implementation makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from trl_onevision.grpo.loss.reference import LOSS_TYPES, LossOptions, LossOutput, TokenBatch

# Every loss type plain, and every knob with each loss type whose formula it enters in a way of its own
CASES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name, "epsilon_high": 1.2 if name == "cispo" else 0.28} for name in LOSS_TYPES},
    "delta": {"loss_type": "dapo", "delta": 1.4},
    "delta within the clip": {"loss_type": "dapo", "delta": 1.1, "epsilon_high": 0.5},
    "temperature": {"loss_type": "grpo", "temperature": 0.7},
    "kl": {"loss_type": "grpo", "beta": 0.1},
    "kl, corrected": {"loss_type": "bnpo", "beta": 0.1, "use_bias_correction_kl": True},
    "kl of cispo": {"loss_type": "cispo", "beta": 0.1, "epsilon_high": 1.2},
    "kl of vespo": {"loss_type": "vespo", "beta": 0.1, "vespo_k_neg": 2.5},
    "kl of sapo": {"loss_type": "sapo", "beta": 0.1, "sapo_temperature_neg": 1.3},
    "sequence": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "sequence of luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence", "beta": 0.1},
    "sequence of cispo": {"loss_type": "cispo", "importance_sampling_level": "sequence", "epsilon_high": 1.2},
    "sequence of sapo": {"loss_type": "sapo", "importance_sampling_level": "sequence"},
    "sequence of vespo": {"loss_type": "vespo", "importance_sampling_level": "sequence"},
    "sequence, delta": {"loss_type": "dapo", "importance_sampling_level": "sequence", "delta": 1.4},
    "sequence, kl corrected": {
        "loss_type": "dr_grpo",
        "importance_sampling_level": "sequence",
        "beta": 0.1,
        "use_bias_correction_kl": True,
    },
}


def problem(
    options: LossOptions,
    lengths: tuple[int, ...] = (7, 0, 13, 1, 4),
    *,
    hidden_size: int = 24,
    vocabulary: int = 61,
    on_policy: bool = False,
    is_ratio: str | None = None,
    bias: bool = False,
    frozen: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor | None], torch.Tensor, TokenBatch]:
    """Hidden states, head, labels and batch; the old policy is near enough that some ratios are clipped, not all."""
    generator = torch.Generator().manual_seed(seed)
    tokens, sequences = sum(lengths), len(lengths)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors: dict[str, torch.Tensor | None] = {
        "hidden": normal(tokens, hidden_size),
        "weight": normal(vocabulary, hidden_size) / hidden_size**0.5,
        "bias": normal(vocabulary) / 4 if bias else None,
    }
    labels_N = torch.randint(vocabulary, (tokens,), generator=generator)
    logits_NV = F.linear(tensors["hidden"], tensors["weight"], tensors["bias"]) / options.temperature
    logps_N = logits_NV.log_softmax(-1).gather(-1, labels_N[:, None]).squeeze(-1)
    batch = TokenBatch(
        lengths_B=torch.tensor(lengths),
        advantages_B=normal(sequences),
        weights_B=torch.rand(sequences, generator=generator) / max(tokens, 1),
        old_logps_N=None if on_policy else logps_N + 0.3 * normal(tokens),
        ref_logps_N=logps_N + 0.3 * normal(tokens) if options.beta else None,
        is_ratio=None
        if is_ratio is None
        else torch.rand((tokens,) if is_ratio == "token" else (sequences, 1), generator=generator) + 0.5,
    )
    tensors = {
        name: None if value is None else value.to(dtype).requires_grad_(name not in frozen)
        for name, value in tensors.items()
    }
    return tensors, labels_N, batch


def run(
    loss: Callable[..., LossOutput],
    tensors: dict[str, torch.Tensor | None],
    labels_N: torch.Tensor,
    batch: TokenBatch,
    options: LossOptions,
    **extra: Any,
) -> tuple[LossOutput, dict[str, torch.Tensor]]:
    """The output of `loss` and the gradients of twice its loss (a power of two, which rounds nothing)."""
    output = loss(tensors["hidden"], tensors["weight"], tensors["bias"], labels_N, batch, options, **extra)
    wanted = {name: value for name, value in tensors.items() if value is not None and value.requires_grad}
    gradients = torch.autograd.grad(2 * output.loss, list(wanted.values()))
    return output, dict(zip(wanted, gradients, strict=True))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative error of a tensor, in its norm."""
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-9))
