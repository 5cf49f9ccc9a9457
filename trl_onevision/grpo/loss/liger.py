"""The GRPO loss on Liger's kernel, without the logits of all tokens in memory.

Same signature and result as `reference.grpo_loss`. The gradients are computed together with the loss, so that the
backward pass only hands them on: three GEMM passes in all (`tiles`), where recomputing the logits in the backward pass
takes four.
"""

from typing import Any

import torch

from trl_onevision.grpo.loss import tiles
from trl_onevision.grpo.loss.reference import LossOptions, LossOutput, TokenBatch


@torch.compiler.disable
def grpo_loss(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    batch: TokenBatch,
    options: LossOptions,
    *,
    tile_tokens: int | None = None,
) -> LossOutput:
    """Head projection and GRPO loss, tile by tile of tokens: of `tile_tokens`, or as many as are fast.

    >>> hidden_NH, weight_VH = torch.zeros(3, 4), torch.zeros(8, 4)
    >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.25]))
    >>> grpo_loss(hidden_NH, weight_VH, None, torch.tensor([1, 2, 3]), batch, LossOptions()).loss
    tensor(-0.7500)
    """
    return LossOutput(
        *_FusedGRPOLoss.apply(
            hidden_NH, weight_VH, bias_V, labels_N, batch, options, tile_tokens, torch.is_grad_enabled()
        )
    )


class _FusedGRPOLoss(torch.autograd.Function):
    """Loss and gradients in the forward pass; the backward pass scales what is there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        batch: TokenBatch,
        options: LossOptions,
        tile_tokens: int | None,
        grad_enabled: bool,
    ) -> tuple[torch.Tensor, ...]:
        device = hidden_NH.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else hidden_NH.dtype
        hidden, weight, bias = (needed and grad_enabled for needed in ctx.needs_input_grad[:3])
        problem = tiles.Problem(hidden_NH, weight_VH, bias_V, labels_N, batch, options, dtype, (hidden, weight, bias))
        with torch.autocast(device.type, enabled=False):
            output, gradients = tiles.loss_and_gradients(problem, tile_tokens)
        ctx.gradients = [
            None if gradient is None or like is None else gradient.to(like.dtype)
            for gradient, like in zip(gradients, (hidden_NH, weight_VH, bias_V), strict=True)
        ]
        ctx.mark_non_differentiable(output.logps_N, output.entropies_N)
        return tuple(output)

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the fused GRPO loss holds its gradients for one backward pass, which has been run")
        gradients, ctx.gradients = ctx.gradients, None
        for gradient in gradients:
            if gradient is not None:
                # In place, since a scaled copy would be as large as the head; by the kernel for lists, since that for
                # one tensor took 2 of the 14 ms of the whole loss path on an H200 (7B, 2400 tokens)
                torch._foreach_mul_([gradient], grad_loss.to(gradient.dtype))
        return (*gradients, None, None, None, None, None)
