"""The GRPO loss on Liger's kernels, without the logits of all tokens in memory.

Same signature and result as `reference.grpo_loss`. The gradients are computed together with the loss, so that the
backward pass only hands them on: three GEMM passes in all with Triton (`triton_tiles`), where recomputing the logits
in the backward pass takes four. Without Triton the loss runs on `LigerFusedLinearGRPOLoss` (`fused_linear`).
"""

from typing import Any

import torch
from transformers.utils.import_utils import is_triton_available

from trl_onevision.grpo.loss import fused_linear, triton_tiles
from trl_onevision.grpo.loss.problem import Problem
from trl_onevision.grpo.loss.reference import CLIPPED_LOSS_TYPES, LossOptions, LossOutput, TokenBatch


def unsupported(options: LossOptions) -> list[str]:
    """What in `options` Liger does not compute as TRL does: empty where its kernels may be used.

    >>> unsupported(LossOptions())
    []
    >>> unsupported(LossOptions(loss_type="cispo", importance_sampling_level="sequence"))
    ["importance_sampling_level='sequence' with loss_type='cispo'"]
    """
    found = []
    clipped = options.loss_type in CLIPPED_LOSS_TYPES
    if options.importance_sampling_level == "sequence" and not clipped:
        found.append(f"importance_sampling_level='sequence' with loss_type={options.loss_type!r}")
    if options.delta is not None and clipped and options.delta <= 1 + options.epsilon_high:
        # There the kernel gives no gradient to a token of negative advantage between delta and the clip; TRL gives one
        found.append(f"delta={options.delta} not above 1 + epsilon_high={1 + options.epsilon_high}")
    return found


def runs_on_triton(device: torch.device) -> bool:
    """Whether Liger's Triton kernels can run on `device` (on the CPU: in Triton's interpreter)."""
    if not is_triton_available():
        return False
    import triton

    return device.type in ("cuda", "xpu") or triton.knobs.runtime.interpret


@torch.compiler.disable
def grpo_loss(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    batch: TokenBatch,
    options: LossOptions,
    *,
    tile_tokens: int = triton_tiles.TILE_TOKENS,
) -> LossOutput:
    """Head projection and GRPO loss, tile by tile of tokens.

    >>> hidden_NH, weight_VH = torch.zeros(3, 4), torch.zeros(8, 4)
    >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.25]))
    >>> grpo_loss(hidden_NH, weight_VH, None, torch.tensor([1, 2, 3]), batch, LossOptions()).loss
    tensor(-0.7500)
    """
    if refused := unsupported(options):
        raise ValueError(f"loss: liger cannot honour {'; '.join(refused)}")
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
        tile_tokens: int,
        grad_enabled: bool,
    ) -> tuple[torch.Tensor, ...]:
        device = hidden_NH.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else hidden_NH.dtype
        hidden, weight, bias = (needed and grad_enabled for needed in ctx.needs_input_grad[:3])
        problem = Problem(hidden_NH, weight_VH, bias_V, labels_N, batch, options, dtype, (hidden, weight, bias))
        with torch.autocast(device.type, enabled=False):
            if runs_on_triton(device):
                output, gradients = triton_tiles.loss_and_gradients(problem, tile_tokens)
            else:
                output, gradients = fused_linear.loss_and_gradients(problem)
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
        # In place: a scaled copy of the head's gradient would be as large as the head
        gradients = [None if gradient is None else gradient.mul_(grad_loss) for gradient in ctx.gradients]
        ctx.gradients = None
        return (*gradients, None, None, None, None, None)
