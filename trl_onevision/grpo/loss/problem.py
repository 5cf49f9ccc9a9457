"""What the fused implementations of the loss share: one call's inputs, and where its gradients go."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from trl_onevision.grpo.loss.reference import LossOptions, TokenBatch


class Gradients(NamedTuple):
    """Gradients of the loss; `None` for what needs none."""

    hidden_NH: torch.Tensor | None
    weight_VH: torch.Tensor | None
    bias_V: torch.Tensor | None

    @property
    def wanted(self) -> bool:
        """Whether there is any gradient to compute."""
        return any(gradient is not None for gradient in self)


@dataclass
class Problem:
    """The inputs of one call, cast to the dtype its GEMMs run in, and which of them need a gradient."""

    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None
    labels_N: torch.Tensor
    batch: TokenBatch
    options: LossOptions
    dtype: torch.dtype
    needs_gradient: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        self.hidden_dtype, self.weight_dtype = self.hidden_NH.dtype, self.weight_VH.dtype
        self.hidden_NH = self.hidden_NH.to(self.dtype)
        self.weight_VH = self.weight_VH.to(self.dtype)
        self.bias_V = None if self.bias_V is None else self.bias_V.to(self.dtype)
        self.lengths = self.batch.lengths_B.tolist()
        if sum(self.lengths) != self.hidden_NH.size(0):
            raise ValueError(f"{self.hidden_NH.size(0)} scored tokens, but the sequences have {sum(self.lengths)}")

    def sequences(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The index and bounds of the part of each sequence that lies in tokens `start` to `stop`."""
        first = 0
        for index, length in enumerate(self.lengths):
            last = first + length
            if max(first, start) < min(last, stop):
                yield index, max(first, start), min(last, stop)
            first = last

    def zero_gradients(self, weight_dtype: torch.dtype = torch.float32) -> Gradients:
        """Zeros to accumulate in, for what needs a gradient: the head's in `weight_dtype`."""
        hidden, weight, bias = self.needs_gradient
        return Gradients(
            torch.zeros_like(self.hidden_NH, dtype=self.hidden_dtype) if hidden else None,
            torch.zeros_like(self.weight_VH, dtype=weight_dtype) if weight else None,
            torch.zeros_like(self.bias_V, dtype=torch.float32) if bias and self.bias_V is not None else None,
        )


def by_dimension(is_ratio: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """vLLM's ratio as (per token, per sequence), of which at least one is `None`.

    >>> by_dimension(torch.ones(2, 1))
    (None, tensor([1., 1.]))
    """
    if is_ratio is None:
        return None, None
    flat = is_ratio.flatten().float().contiguous()
    return (flat, None) if is_ratio.dim() == 1 else (None, flat)
