"""The fused loss where Triton is not available: `LigerFusedLinearGRPOLoss`, one call a sequence.

Correct everywhere, fast nowhere: five GEMM passes (Liger's four, and one for the log-probabilities and entropies that
the metrics are made of, which Liger keeps to itself). One call a sequence lets each have the weight that TRL gives it,
which is not always one of Liger's reductions, and lets the head's gradient be accumulated in fp32.
"""

from typing import Any

import torch
from trl.kernels import ChunkedLogProbFunction

from trl_onevision.grpo.loss.problem import Gradients, Problem, by_dimension
from trl_onevision.grpo.loss.reference import CLIPPED_LOSS_TYPES, LossOutput

# Columns of the logits in memory at once: Liger's own choice
_VOCABULARY_CHUNK = 4096
_SAME_IN_LIGER = (
    "importance_sampling_level",
    "temperature",
    "epsilon_low",
    "epsilon_high",
    "delta",
    "beta",
    "use_bias_correction_kl",
    "sapo_temperature_pos",
    "sapo_temperature_neg",
    "vespo_k_pos",
    "vespo_lambda_pos",
    "vespo_k_neg",
    "vespo_lambda_neg",
)


def loss_and_gradients(problem: Problem) -> tuple[LossOutput, Gradients]:
    """The loss with its per-token outputs, and the gradients it gives."""
    gradients = problem.zero_gradients()
    loss = torch.zeros((), device=problem.hidden_NH.device)
    for index, start, stop in problem.sequences(0, problem.hidden_NH.size(0)):
        loss += _add_sequence(problem, gradients, index, start, stop)
    with torch.no_grad():
        logps_N, entropies_N, *_ = ChunkedLogProbFunction.apply(
            problem.hidden_NH,
            problem.weight_VH,
            problem.bias_V,
            problem.labels_N,
            problem.options.temperature,
            _VOCABULARY_CHUNK,
            None,  # no soft cap
            1.0,  # no scale
            ("entropy",),
        )
    return LossOutput(loss, logps_N, entropies_N), gradients


def _add_sequence(problem: Problem, gradients: Gradients, index: int, start: int, stop: int) -> torch.Tensor:
    """The weighted loss of sequence `index`; its gradients are added to `gradients`."""
    hidden_TH = problem.hidden_NH[start:stop].detach().requires_grad_(gradients.hidden_NH is not None)
    weight_VH = problem.weight_VH.detach().requires_grad_(gradients.weight_VH is not None)
    bias_V = problem.bias_V
    if bias_V is not None:
        bias_V = bias_V.detach().requires_grad_(gradients.bias_V is not None)
    with torch.enable_grad():
        loss = problem.batch.weights_B[index] * _token_sum(problem, index, start, stop, hidden_TH, weight_VH, bias_V)
    if gradients.wanted:
        torch.autograd.backward(loss)
    if gradients.hidden_NH is not None:
        gradients.hidden_NH[start:stop] = _gradient(hidden_TH)
    if gradients.weight_VH is not None:
        gradients.weight_VH.add_(_gradient(weight_VH))
    if gradients.bias_V is not None and bias_V is not None:
        gradients.bias_V.add_(_gradient(bias_V))
    return loss.detach()


def _token_sum(
    problem: Problem,
    index: int,
    start: int,
    stop: int,
    hidden_TH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
) -> torch.Tensor:
    """The unweighted sum of one sequence's token losses."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    options, batch = problem.options, problem.batch
    is_ratio_N, is_ratio_B = by_dimension(batch.is_ratio)
    fused = LigerFusedLinearGRPOLoss(
        # Over one sequence and with a maximal length of one, dr_grpo's reduction is a plain sum
        loss_type="dr_grpo" if options.loss_type in CLIPPED_LOSS_TYPES else options.loss_type,
        max_completion_length=1,
        compiled=False,
        use_ref_model=options.beta != 0.0,
        **{name: getattr(options, name) for name in _SAME_IN_LIGER},
    )
    labels_1T = problem.labels_N[None, start:stop]
    loss: torch.Tensor
    loss, _ = fused(
        hidden_TH[None],
        weight_VH,
        labels_1T,
        torch.ones_like(labels_1T, dtype=torch.float32),
        batch.advantages_B[index : index + 1].float(),
        bias=bias_V,
        ref_per_token_logps=_row(batch.ref_logps_N, start, stop),
        old_per_token_logps=_row(batch.old_logps_N, start, stop),
        vllm_is_ratio=_row(is_ratio_N, start, stop) if is_ratio_B is None else is_ratio_B[index : index + 1, None],
        # Liger divides by the number of processes again, which makes a sum of the reduction of cispo and vespo
        num_items_in_batch=_processes(),
    )
    # sapo's reduction is the mean over the sequence
    return loss * (stop - start) if options.loss_type == "sapo" else loss


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _row(values_N: torch.Tensor | None, start: int, stop: int) -> Any:
    return None if values_N is None else values_N[None, start:stop]


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
