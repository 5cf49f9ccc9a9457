"""The GRPO loss of a flat stream of tokens in plain torch: the definition that the fused version is held to.

Shape suffixes: N scored tokens, one sequence after the other; B sequences; H hidden size; V vocabulary. Every sequence
has one advantage and one weight, so that `TokenBatch` is all there is to know of a micro-batch: it does not matter
whether the hidden states come from padded rows, or from a row that holds a prompt and all of its completions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F

CLIPPED_LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
LOSS_TYPES = (*CLIPPED_LOSS_TYPES, "cispo", "sapo", "vespo")


@dataclass(frozen=True)
class LossOptions:
    """The knobs of TRL's `GRPOConfig` that the loss of one token depends on, under TRL's names.

    >>> LossOptions(loss_type="cispo", epsilon_high=5.0).importance_sampling_level
    'token'
    """

    loss_type: str = "dapo"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    temperature: float = 1.0
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    beta: float = 0.0
    use_bias_correction_kl: bool = False
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    vespo_k_pos: float = 2.0
    vespo_lambda_pos: float = 3.0
    vespo_k_neg: float = 3.0
    vespo_lambda_neg: float = 2.0

    def __post_init__(self) -> None:
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f"unknown loss_type {self.loss_type!r}: known are {', '.join(LOSS_TYPES)}")
        if self.importance_sampling_level not in ("token", "sequence"):
            raise ValueError(
                f"unknown importance_sampling_level {self.importance_sampling_level!r}: known are token, sequence"
            )


@dataclass(frozen=True)
class TokenBatch:
    """What is known of the scored tokens before the model runs.

    `weights_B` is what a token of each sequence counts in the loss (see `sequence_weights`); `lengths_B` may hold
    zeros, and sums to N. `old_logps_N` is `None` on policy. `is_ratio` is vLLM's importance-sampling ratio, of shape
    (N,) where there is one a token and (B, 1) where there is one a sequence.
    """

    lengths_B: torch.Tensor
    advantages_B: torch.Tensor
    weights_B: torch.Tensor
    old_logps_N: torch.Tensor | None = None
    ref_logps_N: torch.Tensor | None = None
    is_ratio: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.advantages_B.dim() != 1:
            raise ValueError(
                f"one advantage a sequence is needed, got advantages of shape {tuple(self.advantages_B.shape)}"
            )

    def take(self, rows: Sequence[int]) -> "TokenBatch":
        """The sequences `rows`, in this order.

        >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([0.5, -0.5]), torch.ones(2), torch.arange(3.0))
        >>> batch.take([1, 0]).old_logps_N
        tensor([2., 0., 1.])
        """
        if list(rows) == list(range(self.lengths_B.numel())):
            return self
        lengths = self.lengths_B.tolist()
        rows_B = torch.tensor(rows, device=self.lengths_B.device)
        tokens = torch.split(torch.arange(sum(lengths), device=self.lengths_B.device), lengths)
        tokens_N = torch.cat([tokens[row] for row in rows])

        def pick(values: torch.Tensor | None) -> torch.Tensor | None:
            # One a token where there is one dimension, one a sequence where there are two
            return None if values is None else values[tokens_N if values.dim() == 1 else rows_B]

        return TokenBatch(
            lengths_B=self.lengths_B[rows_B],
            advantages_B=self.advantages_B[rows_B],
            weights_B=self.weights_B[rows_B],
            old_logps_N=pick(self.old_logps_N),
            ref_logps_N=pick(self.ref_logps_N),
            is_ratio=pick(self.is_ratio),
        )

    def to(self, device: torch.device) -> "TokenBatch":
        """The same on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def sequence_of_token_N(self, tokens: int) -> torch.Tensor:
        """The index of the sequence of each of the N `tokens`; told, so that no device has to be waited for.

        >>> batch = TokenBatch(torch.tensor([2, 0, 1]), torch.zeros(3), torch.ones(3))
        >>> batch.sequence_of_token_N(3)
        tensor([0, 0, 2])
        """
        return torch.repeat_interleave(self.lengths_B, output_size=tokens)

    def sum_by_sequence(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sums over the tokens of each sequence.

        >>> batch = TokenBatch(torch.tensor([2, 0, 1]), torch.zeros(3), torch.ones(3))
        >>> batch.sum_by_sequence(torch.tensor([1.0, 2.0, 5.0]))
        tensor([3., 0., 5.])
        """
        zeros_B = values_N.new_zeros(self.lengths_B.shape)
        return zeros_B.index_add(0, self.sequence_of_token_N(values_N.numel()), values_N)


class LossOutput(NamedTuple):
    """The loss, and per token what the metrics are made of (without gradient)."""

    loss: torch.Tensor
    logps_N: torch.Tensor
    entropies_N: torch.Tensor


def sequence_weights(
    loss_type: str,
    lengths_B: torch.Tensor,
    *,
    accumulation_steps: float = 1.0,
    max_completion_length: int | None = None,
    window_tokens: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """What a token of each sequence counts, so that the weighted sum over tokens is TRL's loss of one micro-batch.

    `accumulation_steps` is 1 in evaluation. `window_tokens` is the number of scored tokens in one optimizer step,
    divided by the number of processes (dapo, cispo, vespo); `max_completion_length` is for dr_grpo alone.

    >>> sequence_weights("grpo", torch.tensor([4, 1]))
    tensor([0.1250, 0.5000])
    >>> sequence_weights("bnpo", torch.tensor([4, 1]), accumulation_steps=2)
    tensor([0.1000, 0.1000])
    """
    sequences = lengths_B.numel()
    ones_B = torch.ones_like(lengths_B, dtype=torch.float32)
    if loss_type in ("grpo", "sapo"):
        return ones_B / (lengths_B.clamp(min=1) * sequences * accumulation_steps)
    if loss_type == "bnpo":
        return ones_B / (lengths_B.sum().clamp(min=1) * accumulation_steps)
    if loss_type == "dr_grpo" and max_completion_length is not None:
        return ones_B / (sequences * max_completion_length * accumulation_steps)
    if loss_type == "luspo":
        return ones_B / (sequences * accumulation_steps)
    if loss_type in ("dapo", "cispo", "vespo") and window_tokens is not None:
        return ones_B / window_tokens
    raise ValueError(
        f"loss_type {loss_type!r} needs max_completion_length (dr_grpo) or window_tokens (dapo and its kin)"
    )


def grpo_loss(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    batch: TokenBatch,
    options: LossOptions,
) -> LossOutput:
    """Head projection and GRPO loss, with every logit in memory.

    >>> hidden_NH, weight_VH = torch.zeros(3, 4), torch.zeros(8, 4)
    >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.25]))
    >>> grpo_loss(hidden_NH, weight_VH, None, torch.tensor([1, 2, 3]), batch, LossOptions()).loss
    tensor(-0.7500)
    """
    logits_NV = F.linear(hidden_NH, weight_VH, bias_V).float() / options.temperature
    logps_NV = logits_NV.log_softmax(-1)
    logps_N = logps_NV.gather(-1, labels_N[:, None]).squeeze(-1)
    entropies_N = -(logps_NV.detach().exp() * logps_NV.detach()).sum(-1)
    return LossOutput(weighted_loss(logps_N, batch, options), logps_N.detach(), entropies_N)


def weighted_loss(logps_N: torch.Tensor, batch: TokenBatch, options: LossOptions) -> torch.Tensor:
    """The loss of all tokens, each with the weight of its sequence.

    >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.25]))
    >>> weighted_loss(torch.zeros(3), batch, LossOptions())
    tensor(-0.7500)
    """
    return (batch.sum_by_sequence(token_losses(logps_N, batch, options)) * batch.weights_B).sum()


def token_losses(logps_N: torch.Tensor, batch: TokenBatch, options: LossOptions) -> torch.Tensor:
    """The loss of each token, before any weighting.

    >>> batch = TokenBatch(torch.tensor([1, 1]), torch.tensor([1.0, -2.0]), torch.ones(2))
    >>> token_losses(torch.tensor([-0.5, -0.5]), batch, LossOptions())
    tensor([-1.,  2.])
    """
    sequence_N = batch.sequence_of_token_N(logps_N.numel())
    advantages_N = batch.advantages_B[sequence_N]
    log_ratio_N = logps_N - (logps_N.detach() if batch.old_logps_N is None else batch.old_logps_N)
    if options.importance_sampling_level == "sequence":
        ratio_N = torch.exp(mean_log_ratio(log_ratio_N, batch))[sequence_N]
    else:
        ratio_N = torch.exp(log_ratio_N)

    if options.loss_type == "cispo":
        loss_N = -ratio_N.clamp(max=options.epsilon_high).detach() * advantages_N * logps_N
    elif options.loss_type == "sapo":
        loss_N = -soft_gate(ratio_N, advantages_N, options) * advantages_N
    elif options.loss_type == "vespo":
        loss_N = -gamma_weights(log_ratio_N.detach(), batch, options)[sequence_N] * advantages_N * logps_N
    else:
        loss_N = -torch.min(
            ratio_N.clamp(max=options.delta if options.delta is not None else math.inf) * advantages_N,
            ratio_N.clamp(1 - options.epsilon_low, 1 + options.epsilon_high) * advantages_N,
        )

    if batch.is_ratio is not None and options.loss_type != "vespo":
        loss_N = loss_N * (batch.is_ratio if batch.is_ratio.dim() == 1 else batch.is_ratio.squeeze(1)[sequence_N])
    if options.beta != 0.0:
        loss_N = loss_N + options.beta * token_kl(logps_N, ratio_N, batch, options)
    return loss_N


def token_kl(logps_N: torch.Tensor, ratio_N: torch.Tensor, batch: TokenBatch, options: LossOptions) -> torch.Tensor:
    """The k3 estimate of the divergence from the reference model, times the importance ratio where asked for."""
    assert batch.ref_logps_N is not None, "beta != 0 needs the reference model's log-probabilities"
    log_ratio_N = batch.ref_logps_N - logps_N
    kl_N = torch.exp(log_ratio_N) - log_ratio_N - 1
    return kl_N * ratio_N if options.use_bias_correction_kl else kl_N


def mean_log_ratio(log_ratio_N: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """The log of GSPO's sequence-level importance ratio."""
    return batch.sum_by_sequence(log_ratio_N) / batch.lengths_B.clamp(min=1)


def soft_gate(ratio_N: torch.Tensor, advantages_N: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """SAPO's gate: a sigmoid in place of the clip, with a temperature for each sign of the advantage."""
    temperature_N = torch.where(advantages_N > 0, options.sapo_temperature_pos, options.sapo_temperature_neg)
    return torch.sigmoid(temperature_N * (ratio_N - 1)) * 4 / temperature_N


@torch.no_grad()
def gamma_weights(log_ratio_N: torch.Tensor, batch: TokenBatch, options: LossOptions) -> torch.Tensor:
    """VESPO's weight of each sequence: exp(lambda) w^k exp(-lambda w), with w the sequence's importance ratio.

    >>> batch = TokenBatch(torch.tensor([2, 1]), torch.tensor([1.0, -1.0]), torch.ones(2))
    >>> gamma_weights(torch.zeros(3), batch, LossOptions(loss_type="vespo"))
    tensor([1., 1.])
    """
    lowest, highest = math.log(1e-8), 20.0  # these bounds and 1e-4 below: GRPOTrainer.get_gamma_weights
    log_w_B = batch.sum_by_sequence(log_ratio_N.clamp(-20.0, highest))
    if batch.is_ratio is not None:
        log_is_ratio = batch.is_ratio.log().clamp(lowest, highest)
        log_w_B = log_w_B + (
            batch.sum_by_sequence(log_is_ratio) if log_is_ratio.dim() == 1 else log_is_ratio.squeeze(1)
        )
    log_w_B = log_w_B.clamp(lowest, highest)
    rewarded_B = batch.advantages_B >= 0
    k_B = torch.where(rewarded_B, options.vespo_k_pos, options.vespo_k_neg)
    lambda_B = torch.where(rewarded_B, options.vespo_lambda_pos, options.vespo_lambda_neg).clamp(min=1e-4)
    log_phi_B = lambda_B + k_B * log_w_B - lambda_B * log_w_B.exp()
    return log_phi_B.exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
