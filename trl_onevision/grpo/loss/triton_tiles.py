"""The fused loss on Liger's Triton kernels: three GEMM passes over tiles of tokens.

One GEMM makes the logits of a tile. Liger's kernels, launched on the part of the tile that belongs to one sequence
(their advantage is one number a sequence), turn them into the loss of each token and then, in place, into the gradient
of the logits. Two GEMMs take that gradient to the hidden states and to the head. Where the importance weight couples
all tokens of a sequence, the log-probabilities are needed first, and more than one tile means a fourth pass.

Shape suffixes: as in `reference`, and T tokens in a tile.
"""

from typing import Any

import torch
from trl.kernels import chunked_logprob

from trl_onevision.grpo.loss.problem import Gradients, Problem, by_dimension
from trl_onevision.grpo.loss.reference import LossOutput, gamma_weights, mean_log_ratio

# Tokens whose logits are in memory at once: enough for the GEMMs to be bound by arithmetic and not by reading the head
TILE_TOKENS = 1024
# The launch parameters of Liger's own wrapper
_LOSS_LAUNCH = {"BLOCK_N": 2048, "num_stages": 2, "num_warps": 1}
_GRADIENT_LAUNCH = {"BLOCK_N": 4096, "num_stages": 1, "num_warps": 16}
# The kernels step from one sequence to the next by `L`. They are launched on one sequence, so that any constant will
# do, and Triton, which compiles them anew for each value, compiles them once.
_ANY_LENGTH = 1
# The kernels read the ratio of token t at `t % stride`: a stride beyond any tile means one a token
_ONE_A_TOKEN = 1 << 30


def loss_and_gradients(problem: Problem, tile_tokens: int) -> tuple[LossOutput, Gradients]:
    """The loss with its per-token outputs, and the gradients it gives."""
    tiles = _Tiles(problem, tile_tokens)
    kernels = (
        _TokenKernels(problem) if problem.options.importance_sampling_level == "token" else _SequenceKernels(problem)
    )
    if kernels.need_log_probabilities:
        for start, stop in tiles.bounds:
            tiles.project(start, stop)
    kernels.couple(tiles.logps_N)
    for start, stop in tiles.bounds:
        logits_TV = tiles.project(start, stop)  # where there is one tile, projected above, it is still there
        for index, first, last in problem.sequences(start, stop):
            part_TV = logits_TV[first - start : last - start]
            kernels.launch(part_TV, index, first, with_gradient=tiles.gradients.wanted)
        if tiles.gradients.wanted:
            tiles.accumulate(start, stop)
    return LossOutput(kernels.loss(), tiles.logps_N, tiles.entropies_N), tiles.gradients


def tile_size(tokens: int, tile_tokens: int, hidden_size: int, dtype: torch.dtype, *, one_gemm: bool) -> int:
    """The tokens of a tile: all of them where that saves more memory than it takes.

    In one tile the head's gradient is one GEMM (`one_gemm`: of the head's own dtype) and needs no fp32 accumulator of
    the size of the head. That pays until the logits take more memory than this accumulator and the logits of a tile.

    >>> tile_size(4096, 1024, 3584, torch.bfloat16, one_gemm=True)
    4096
    >>> tile_size(16384, 1024, 3584, torch.bfloat16, one_gemm=True)
    1024
    """
    tile = max(1, min(tokens, tile_tokens))
    if one_gemm and dtype.itemsize < 4 and tokens * dtype.itemsize <= tile * dtype.itemsize + 4 * hidden_size:
        return max(1, tokens)
    return tile


class _Tiles:
    """The logits of one tile of tokens at a time, and the gradients that come of them."""

    def __init__(self, problem: Problem, tile_tokens: int) -> None:
        self.problem = problem
        self.block_tokens = tile_tokens
        tokens, hidden_size = problem.hidden_NH.shape
        one_gemm = problem.needs_gradient[1] and problem.weight_dtype == problem.dtype
        size = tile_size(tokens, tile_tokens, hidden_size, problem.dtype, one_gemm=one_gemm)
        self.bounds = [(start, min(start + size, tokens)) for start in range(0, tokens, size)]
        self.one_gemm = one_gemm and len(self.bounds) == 1
        self.gradients = problem.zero_gradients(problem.dtype if self.one_gemm else torch.float32)
        self.buffer_TV = problem.hidden_NH.new_empty((size, problem.weight_VH.size(0)))
        self.in_buffer: tuple[int, int] | None = None
        self.logps_N, self.entropies_N = torch.zeros((2, tokens), device=problem.hidden_NH.device)

    def project(self, start: int, stop: int) -> torch.Tensor:
        """The logits of a tile; its log-probabilities and entropies are noted on the way."""
        logits_TV = self.buffer_TV[: stop - start]
        if self.in_buffer == (start, stop):
            return logits_TV
        problem = self.problem
        torch.mm(problem.hidden_NH[start:stop], problem.weight_VH.t(), out=logits_TV)
        if problem.bias_V is not None:
            logits_TV.add_(problem.bias_V)
        logps_T, entropies_T = _score(logits_TV, problem.labels_N[start:stop], problem.options.temperature)
        self.logps_N[start:stop], self.entropies_N[start:stop] = logps_T, entropies_T
        self.in_buffer = (start, stop)
        return logits_TV

    def accumulate(self, start: int, stop: int) -> None:
        """Takes the gradient of a tile's logits, which stands in their place, to hidden states, head and bias."""
        grad_TV = self.buffer_TV[: stop - start]
        hidden_TH = self.problem.hidden_NH[start:stop]
        self.in_buffer = None
        if self.gradients.hidden_NH is not None:
            self._accumulate_hidden(self.gradients.hidden_NH[start:stop], grad_TV)
        if self.gradients.weight_VH is not None and self.one_gemm:
            torch.mm(grad_TV.t(), hidden_TH, out=self.gradients.weight_VH)
        elif self.gradients.weight_VH is not None:
            chunked_logprob._addmm_fp32(self.gradients.weight_VH, grad_TV.t(), hidden_TH)
        if self.gradients.bias_V is not None:
            self.gradients.bias_V.add_(grad_TV.sum(0, dtype=torch.float32))

    def _accumulate_hidden(self, out_TH: torch.Tensor, grad_TV: torch.Tensor) -> None:
        # The sum over the vocabulary is fp32 until it is complete; in blocks, so that this takes little memory
        for start in range(0, out_TH.size(0), self.block_tokens):
            block = slice(start, start + self.block_tokens)
            sum_TH = torch.zeros_like(out_TH[block], dtype=torch.float32)
            chunked_logprob._addmm_fp32(sum_TH, grad_TV[block], self.problem.weight_VH)
            out_TH[block] = sum_TH


def _score(logits_TV: torch.Tensor, labels_T: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each label and entropy of each distribution, by the kernel that TRL folds its tiles with."""
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
    return label_logit_T - log_z_T, log_z_T - x_sum_exp_T / sum_exp_T


class _Kernels:
    """Liger's GRPO kernels on a part of one sequence: what both pairs of them have in common."""

    need_log_probabilities: bool

    def __init__(self, problem: Problem) -> None:
        self.options, self.batch = problem.options, problem.batch
        self.labels_N = problem.labels_N.contiguous()
        self.advantages_B = self.batch.advantages_B.float().contiguous()
        self.weights_B = self.batch.weights_B.float().contiguous()
        self.old_logps_N = _contiguous(self.batch.old_logps_N)
        self.ref_logps_N = _contiguous(self.batch.ref_logps_N)
        self.is_ratio_N, self.is_ratio_B = by_dimension(self.batch.is_ratio)
        shape = (4, self.labels_N.numel())
        self.loss_N, self.log_z_N, self.kl_N, self.clipped_N = torch.zeros(shape, device=self.labels_N.device)

    def couple(self, logps_N: torch.Tensor) -> None:
        """Computes what the tokens of a sequence have in common, from `logps_N` where they are needed."""
        raise NotImplementedError

    def launch(self, logits_TV: torch.Tensor, index: int, start: int, *, with_gradient: bool) -> None:
        """Loss of the tokens from `start` on, all of sequence `index`; their logits become the logits' gradient."""
        raise NotImplementedError

    def loss(self) -> torch.Tensor:
        """The weighted sum over all tokens."""
        return (self.batch.sum_by_sequence(self.loss_N) * self.weights_B).sum()

    def log_ratio(self, logps_N: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(logps_N) if self.old_logps_N is None else logps_N - self.old_logps_N

    def shared_arguments(self, logits_TV: torch.Tensor, index: int, start: int) -> dict[str, Any]:
        """What all kernels take. A slice hands over a pointer to a token's or a sequence's first element."""
        return {
            "LOGITS": logits_TV,
            "OLD_LOGP": None if self.old_logps_N is None else self.old_logps_N[start:],
            "REF_LOGP": None if self.ref_logps_N is None else self.ref_logps_N[start:],
            "INPUT_IDS": self.labels_N[start:],
            "COMPLETION_MASK": None,
            "ADVANTAGES": self.advantages_B[index:],
            "LSE": self.log_z_N[start:],
            "TEMPERATURE": self.options.temperature,
            "BETA": self.options.beta,
            "USE_BIAS_CORRECTION_KL": self.options.use_bias_correction_kl,
            "L": _ANY_LENGTH,
            "N": logits_TV.size(1),
        }

    def outputs(self, start: int) -> dict[str, torch.Tensor]:
        return {"LOSS": self.loss_N[start:], "KL": self.kl_N[start:], "IS_CLIPPED": self.clipped_N[start:]}

    def upstream(self, logits_TV: torch.Tensor, index: int) -> dict[str, Any]:
        # All tokens of a sequence have its one weight: a stride of zero
        return {"DLOSS": self.weights_B[index:], "loss_stride0": 0, "loss_stride1": 0, "DLOGITS": logits_TV}

    def is_ratio(self, index: int, start: int) -> dict[str, Any]:
        if self.is_ratio_B is not None:
            return {"VLLM_IS_RATIO": self.is_ratio_B[index:], "VLLM_IS_RATIO_STRIDE": 1}
        ratio = None if self.is_ratio_N is None else self.is_ratio_N[start:]
        return {"VLLM_IS_RATIO": ratio, "VLLM_IS_RATIO_STRIDE": _ONE_A_TOKEN}

    def clip(self) -> dict[str, float]:
        options = self.options
        return {"EPS_LOW": options.epsilon_low, "EPS_HIGH": options.epsilon_high, "DELTA": options.delta or 0.0}


class _TokenKernels(_Kernels):
    """The kernels with an importance ratio of its own for each token: every loss type."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.is_vespo = self.options.loss_type == "vespo"
        # On policy every ratio is one, whatever the log-probabilities
        self.need_log_probabilities = self.is_vespo and self.old_logps_N is not None

    def couple(self, logps_N: torch.Tensor) -> None:
        self.phi_B = gamma_weights(self.log_ratio(logps_N), self.batch, self.options) if self.is_vespo else None

    def is_ratio(self, index: int, start: int) -> dict[str, Any]:
        if self.is_vespo:  # its weight of a sequence holds the ratio already
            return {"VLLM_IS_RATIO": None, "VLLM_IS_RATIO_STRIDE": _ONE_A_TOKEN}
        return super().is_ratio(index, start)

    def launch(self, logits_TV: torch.Tensor, index: int, start: int, *, with_gradient: bool) -> None:
        from liger_kernel.ops import grpo_loss as liger

        options = self.options
        arguments = {
            **self.shared_arguments(logits_TV, index, start),
            **self.is_ratio(index, start),
            **self.clip(),
            "PHI_SEQ": None if self.phi_B is None else self.phi_B[index:],
            "LOSS_TYPE": liger._str_to_loss_type[options.loss_type],
            "SAPO_TEMP_POS": options.sapo_temperature_pos,
            "SAPO_TEMP_NEG": options.sapo_temperature_neg,
        }
        grid = (1, logits_TV.size(0))
        liger._grpo_loss_fwd_kernel[grid](**arguments, **self.outputs(start), **_LOSS_LAUNCH)
        if with_gradient:
            upstream = self.upstream(logits_TV, index)
            liger._grpo_loss_bwd_kernel[grid](**arguments, **upstream, **_GRADIENT_LAUNCH)


class _SequenceKernels(_Kernels):
    """The kernels with one importance ratio a sequence (GSPO): the loss types that clip it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.corrects_kl = self.options.beta != 0.0 and self.options.use_bias_correction_kl
        self.need_log_probabilities = self.old_logps_N is not None or self.corrects_kl

    def couple(self, logps_N: torch.Tensor) -> None:
        options, batch = self.options, self.batch
        self.ratio_B = torch.exp(mean_log_ratio(self.log_ratio(logps_N), batch))
        self.capped_B = self.ratio_B if options.delta is None else self.ratio_B.clamp(max=options.delta)
        self.clipped_B = self.ratio_B.clamp(1 - options.epsilon_low, 1 + options.epsilon_high)
        # The ratio depends on every token of its sequence, so that a token's gradient holds sums over the sequence
        self.policy_sum_B = self.weights_B * self._is_ratio_sum_B()
        self.kl_sum_B = torch.zeros_like(self.weights_B)
        if self.corrects_kl:
            assert self.ref_logps_N is not None
            log_ratio_N = self.ref_logps_N - logps_N
            kl_B = batch.sum_by_sequence(log_ratio_N.exp() - log_ratio_N - 1)
            self.kl_sum_B = self.weights_B * self.ratio_B * kl_B

    def _is_ratio_sum_B(self) -> torch.Tensor:
        if self.is_ratio_N is not None:
            return self.batch.sum_by_sequence(self.is_ratio_N)
        return self.batch.lengths_B * (1.0 if self.is_ratio_B is None else self.is_ratio_B)

    def launch(self, logits_TV: torch.Tensor, index: int, start: int, *, with_gradient: bool) -> None:
        from liger_kernel.ops import grpo_loss as liger

        arguments = self.shared_arguments(logits_TV, index, start)
        grid = (1, logits_TV.size(0))
        liger._grpo_loss_fwd_kernel_seq[grid](
            **arguments,
            **self.outputs(start),
            **self.is_ratio(index, start),
            COEF_1=self.capped_B[index:],
            COEF_1_RAW=self.ratio_B[index:],
            COEF_2=self.clipped_B[index:],
            IS_CLIPPED_SEQ=self.ratio_B[index:],  # goes to an output that is not read
            **_LOSS_LAUNCH,
        )
        if with_gradient:
            liger._grpo_loss_bwd_kernel_seq[grid](
                **arguments,
                **self.upstream(logits_TV, index),
                **self.clip(),
                DLOSS_SUM=self.policy_sum_B[index:],
                DKL_SUM=self.kl_sum_B[index:],
                COEF_1=self.ratio_B[index:],
                SEQ_LEN=self.batch.lengths_B[index:],
                **_GRADIENT_LAUNCH,
            )


def _contiguous(values: torch.Tensor | None) -> torch.Tensor | None:
    return None if values is None else values.float().contiguous()
