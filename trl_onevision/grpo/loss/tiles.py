"""Head projection, loss and gradients over tiles of tokens: three GEMM passes.

One GEMM makes the logits of a tile, and TRL's kernel reads the log-probability of each label off them. The loss, as
`reference` defines it, is a function of these numbers alone, one a token, and autograd tells what it changes by each.
With that, Liger's kernel writes the gradient of the logits in their place, and two GEMMs take it to the hidden states
and to the head. Where the loss couples the tokens of a sequence, all log-probabilities are needed first, and more than
one tile means a fourth pass.

Shape suffixes: as in `reference`, and T tokens in a tile.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.utils.import_utils import is_triton_available
from trl.kernels import chunked_logprob

from trl_onevision.grpo.loss.reference import LossOptions, LossOutput, TokenBatch, weighted_loss


class Gradients(NamedTuple):
    """Gradients of the loss; `None` for what needs none."""

    hidden_NH: torch.Tensor | None
    weight_VH: torch.Tensor | None
    bias_V: torch.Tensor | None


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
        self.labels_N = self.labels_N.contiguous()
        if (tokens := int(self.batch.lengths_B.sum())) != self.hidden_NH.size(0):
            raise ValueError(f"{self.hidden_NH.size(0)} scored tokens, but the sequences have {tokens}")

    def zero_gradients(self, weight_dtype: torch.dtype) -> Gradients:
        """Zeros to accumulate in, for what needs a gradient: the head's in `weight_dtype`."""
        hidden, weight, bias = self.needs_gradient
        return Gradients(
            torch.zeros_like(self.hidden_NH, dtype=self.hidden_dtype) if hidden else None,
            torch.zeros_like(self.weight_VH, dtype=weight_dtype) if weight else None,
            torch.zeros_like(self.bias_V, dtype=torch.float32) if bias and self.bias_V is not None else None,
        )

    @property
    def couples(self) -> bool:
        """Whether what the loss changes by one token's log-probability depends on those of its sequence."""
        off_policy = self.batch.old_logps_N is not None
        if self.options.importance_sampling_level == "sequence":
            return off_policy or (self.options.beta != 0.0 and self.options.use_bias_correction_kl)
        return off_policy and self.options.loss_type == "vespo"


def loss_and_gradients(problem: Problem, tile_tokens: int | None) -> tuple[LossOutput, Gradients]:
    """The loss with its per-token outputs, and the gradients it gives."""
    tiles = _Tiles(problem, tile_tokens)
    wanted = any(gradient is not None for gradient in tiles.gradients)
    if problem.couples or not wanted:
        for start, stop in tiles.bounds:
            tiles.project(start, stop)
    if wanted:
        for start, stop in tiles.bounds:
            tiles.project(start, stop)
            _, slope_N = _loss_and_slope(problem, tiles.logps_N)
            tiles.differentiate(start, stop, slope_N[start:stop])
            tiles.accumulate(start, stop)
    loss, _ = _loss_and_slope(problem, tiles.logps_N)
    return LossOutput(loss, tiles.logps_N, tiles.entropies_N), tiles.gradients


def fast_tile(device: torch.device, trains_head: bool) -> int:
    """How many tokens' logits are in memory at once, so that arithmetic and not memory bounds the GEMMs.

    Without Triton few will do. Where each tile adds to a gradient of the head in fp32, they are more: on an H200 that
    costs as much as some 800 tokens of a GEMM.
    """
    if not runs_on_triton(device):
        return 128
    return 2048 if trains_head else 1024


def tile_size(tokens: int, tile_tokens: int, hidden_size: int, dtype: torch.dtype, *, one_gemm: bool) -> int:
    """The tokens of a tile: all of them where that takes no more memory.

    In one tile the head's gradient is one GEMM (`one_gemm`: of the head's own dtype) and needs no fp32 accumulator of
    the size of the head. That pays until the logits take more memory than this accumulator.

    >>> tile_size(4096, 2048, 3584, torch.bfloat16, one_gemm=True)
    4096
    >>> tile_size(16384, 2048, 3584, torch.bfloat16, one_gemm=True)
    2048
    """
    if one_gemm and dtype.itemsize < 4 and tokens * dtype.itemsize <= 4 * hidden_size:
        return max(1, tokens)
    return max(1, min(tokens, tile_tokens))


def runs_on_triton(device: torch.device) -> bool:
    """Whether Liger's Triton kernels can run on `device` (on the CPU: in Triton's interpreter)."""
    if not is_triton_available():
        return False
    import triton

    return device.type in ("cuda", "xpu") or triton.knobs.runtime.interpret


def _loss_and_slope(problem: Problem, logps_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and what it changes by each log-probability."""
    with torch.enable_grad():
        logps_N = logps_N.detach().requires_grad_()
        loss = weighted_loss(logps_N, problem.batch, problem.options)
    return loss.detach(), torch.autograd.grad(loss, logps_N)[0]


class _Tiles:
    """The logits of one tile of tokens at a time, and the gradients that come of them."""

    def __init__(self, problem: Problem, tile_tokens: int | None) -> None:
        self.problem = problem
        tokens, hidden_size = problem.hidden_NH.shape
        trains_head = problem.needs_gradient[1]
        one_gemm = trains_head and problem.weight_dtype == problem.dtype
        most = tile_tokens or fast_tile(problem.hidden_NH.device, trains_head)
        size = tile_size(tokens, most, hidden_size, problem.dtype, one_gemm=one_gemm)
        self.bounds = [(start, min(start + size, tokens)) for start in range(0, tokens, size)]
        self.one_gemm = one_gemm and len(self.bounds) == 1
        self.gradients = problem.zero_gradients(problem.dtype if self.one_gemm else torch.float32)
        self.buffer_TV = problem.hidden_NH.new_empty((size, problem.weight_VH.size(0)))
        self.in_buffer: tuple[int, int] | None = None
        self.logps_N, self.entropies_N, self.log_z_N = torch.zeros((3, tokens), device=problem.hidden_NH.device)

    def project(self, start: int, stop: int) -> None:
        """Makes the logits of a tile, where it is not the one in the buffer, and notes what is read off them."""
        if self.in_buffer == (start, stop):
            return
        problem, tile = self.problem, slice(start, stop)
        logits_TV = self.buffer_TV[: stop - start]
        torch.mm(problem.hidden_NH[tile], problem.weight_VH.t(), out=logits_TV)
        if problem.bias_V is not None:
            logits_TV.add_(problem.bias_V)
        scores = _score(logits_TV, problem.labels_N[tile], problem.options.temperature)
        self.logps_N[tile], self.entropies_N[tile], self.log_z_N[tile] = scores
        self.in_buffer = (start, stop)

    def differentiate(self, start: int, stop: int, slope_T: torch.Tensor) -> None:
        """Makes the logits of a tile into their gradient, from what the loss changes by each log-probability."""
        labels_T, log_z_T = self.problem.labels_N[start:stop], self.log_z_N[start:stop]
        write = _write_by_liger if runs_on_triton(labels_T.device) else _write_by_torch
        write(self.buffer_TV[: stop - start], labels_T, log_z_T, slope_T, self.problem.options.temperature)
        self.in_buffer = None

    def accumulate(self, start: int, stop: int) -> None:
        """Takes the gradient of a tile's logits, which stands in their place, to hidden states, head and bias."""
        grad_TV = self.buffer_TV[: stop - start]
        hidden_TH = self.problem.hidden_NH[start:stop]
        if self.gradients.hidden_NH is not None:
            # The sum over the vocabulary is fp32 until it is complete
            sum_TH = torch.zeros_like(hidden_TH, dtype=torch.float32)
            chunked_logprob._addmm_fp32(sum_TH, grad_TV, self.problem.weight_VH)
            self.gradients.hidden_NH[start:stop] = sum_TH
        if self.gradients.weight_VH is not None and self.one_gemm:
            torch.mm(grad_TV.t(), hidden_TH, out=self.gradients.weight_VH)
        elif self.gradients.weight_VH is not None:
            chunked_logprob._addmm_fp32(self.gradients.weight_VH, grad_TV.t(), hidden_TH)
        if self.gradients.bias_V is not None:
            self.gradients.bias_V.add_(grad_TV.sum(0, dtype=torch.float32))


def _score(logits_TV: torch.Tensor, labels_T: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    """Log-probability of each label, entropy and log-normalizer of each distribution, by TRL's own kernel."""
    tokens, vocabulary = logits_TV.shape
    largest_T = torch.full((tokens,), -torch.inf, device=logits_TV.device)
    sum_exp_T, x_sum_exp_T, label_logit_T, unused_T = largest_T.new_zeros((4, tokens))
    on_triton = chunked_logprob._use_triton(logits_TV.device)
    fold = chunked_logprob._forward_kernel[(tokens,)] if on_triton else chunked_logprob._forward_tile
    fold(
        logits_TV,
        logits_TV.stride(0),
        labels_T,
        largest_T,
        sum_exp_T,
        x_sum_exp_T,
        unused_T,
        unused_T,
        unused_T,
        label_logit_T,
        0,
        vocabulary,
        logit_scale=1.0,
        softcap=1.0,
        inv_t=1 / temperature,
        HAS_SOFTCAP=False,
        HAS_ENTROPY=True,
        HAS_LOG_SUM_SQ_PROBS=False,
        HAS_MEAN_LOGITS=False,
        HAS_IS_TOP1=False,
        BLOCK_SIZE=chunked_logprob._BLOCK_SIZE,
    )
    log_z_T = largest_T + sum_exp_T.log()
    return label_logit_T - log_z_T, log_z_T - x_sum_exp_T / sum_exp_T, log_z_T


def _write_by_liger(
    logits_TV: torch.Tensor, labels_T: torch.Tensor, log_z_T: torch.Tensor, slope_T: torch.Tensor, temperature: float
) -> None:
    """The gradient of the logits in their place, by the kernel in which Liger differentiates its own losses.

    In its form for `vespo` it gives a token's log-probability the slope `-PHI_SEQ * ADVANTAGES * DLOSS`, of which the
    last is read once a token. All tokens are to it one sequence, so that one launch serves them all.
    """
    from liger_kernel.ops import grpo_loss as liger

    liger._grpo_loss_bwd_kernel[(1, logits_TV.size(0))](
        DLOSS=slope_T,
        loss_stride0=0,
        loss_stride1=1,
        DLOGITS=logits_TV,
        LOGITS=logits_TV,
        INPUT_IDS=labels_T,
        LSE=log_z_T,
        PHI_SEQ=slope_T.new_ones(1),
        ADVANTAGES=slope_T.new_full((1,), -1.0),
        LOSS_TYPE=liger._str_to_loss_type["vespo"],
        TEMPERATURE=temperature,
        N=logits_TV.size(1),
        L=1,  # how far the next sequence is, and there is none
        BLOCK_N=4096,  # this and the next two as in Liger's own launch
        num_stages=1,
        num_warps=16,
        # What the losses themselves are made of, which has no part in it
        OLD_LOGP=None,
        REF_LOGP=None,
        COMPLETION_MASK=None,
        VLLM_IS_RATIO=None,
        VLLM_IS_RATIO_STRIDE=1,
        BETA=0.0,
        EPS_LOW=0.0,
        EPS_HIGH=0.0,
        DELTA=0.0,
        SAPO_TEMP_POS=1.0,
        SAPO_TEMP_NEG=1.0,
        USE_BIAS_CORRECTION_KL=False,
    )


def _write_by_torch(
    logits_TV: torch.Tensor, labels_T: torch.Tensor, log_z_T: torch.Tensor, slope_T: torch.Tensor, temperature: float
) -> None:
    """The same without Triton: of a log-probability, the gradient is one at its label, less each probability."""
    gradient_TV = logits_TV.float().div_(temperature).sub_(log_z_T[:, None]).exp_().neg_()
    gradient_TV.scatter_add_(1, labels_T[:, None], torch.ones_like(log_z_T)[:, None])
    logits_TV.copy_(gradient_TV.mul_(slope_T[:, None] / temperature))
