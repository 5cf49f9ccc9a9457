"""`loss: liger` in a GRPO trainer: the fused loss in place of the model's scoring head, inside the model's forward.

TRL's `_compute_loss` asks the model for log-probabilities, and makes loss and metrics of them. While a loss is being
computed, the head here answers with log-probabilities and entropies without gradient, so that the metrics are TRL's
own, and with the loss of Liger's kernels, which is what is trained on. Both come from one call of the wrapped model,
for the hooks of DDP, FSDP and ZeRO to see it.
"""

import dataclasses
import functools
import logging
import types
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch.distributed.tensor import DTensor
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

from trl_onevision.grpo.loss import kernels, liger
from trl_onevision.grpo.loss.reference import LossOptions, TokenBatch, sequence_weights

logger = logging.getLogger(__name__)

MASKED_WITHIN = "tools and environments, whose tokens are in a completion and not in its loss"
# What families call a factor on their logits
_LOGIT_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def loss_options(args: GRPOConfig) -> LossOptions:
    """The options of the loss as TRL's trainer reads them.

    >>> loss_options(GRPOConfig(output_dir="runs", epsilon=0.3, bf16=False)).epsilon_high
    0.3
    """
    same_name = {f.name for f in dataclasses.fields(LossOptions)} - {"epsilon_low", "epsilon_high"}
    return LossOptions(
        epsilon_low=args.epsilon,
        epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
        **{name: getattr(args, name) for name in same_name},
    )


def refused_options(args: GRPOConfig) -> list[str]:
    """What in TRL's options the fused loss cannot honour; known before anything is loaded.

    >>> refused_options(GRPOConfig(output_dir="runs", top_entropy_quantile=0.2, bf16=False))
    ['top_entropy_quantile=0.2']
    """
    neutral = {
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "fp16": False,  # the gradient is computed before the loss is scaled, and would underflow
    }
    found = [f"{name}={getattr(args, name)}" for name, value in neutral.items() if getattr(args, name) != value]
    if args.router_aux_loss_coef:
        found.append(f"router_aux_loss_coef={args.router_aux_loss_coef}")
    return found


def refused_features(trainer: GRPOTrainer, model: Any) -> list[str]:
    """What in the model or the trainer the fused loss cannot honour; known once both are there."""
    config = model.config.get_text_config()
    found = []
    if getattr(config, "final_logit_softcapping", None) is not None:
        found.append(f"soft-capped logits (final_logit_softcapping={config.final_logit_softcapping})")
    for name in _LOGIT_FACTORS:
        if getattr(config, name, None) not in (None, 1.0):
            found.append(f"scaled logits ({name}={getattr(config, name)})")
    if trainer.aux_loss_enabled:
        found.append("the mixture-of-experts auxiliary loss (router_aux_loss_coef)")
    if trainer.tools or trainer.environment_factories:
        found.append(MASKED_WITHIN)
    return found


def fused_loss(trainer: Any, model: Any) -> "LigerLoss | None":
    """The fused loss of a trainer: where it is asked for and, unless something needs TRL's, on a GPU."""
    options = trainer.options
    on_gpu = trainer.accelerator.device.type == "cuda"
    if options.loss == "trl" or (options.loss == "auto" and not on_gpu):
        return None
    refused = options.refused_by_fused_loss(trainer.args) + refused_features(trainer, model)
    if (mismatch := kernels.mismatch()) is not None:
        refused.append(f"other kernels than those of constraints.txt: {mismatch}")
    if options.loss == "liger":
        check(refused)
    elif trainer.use_vllm and trainer.vllm_importance_sampling_correction:
        refused.append("vLLM's correction, whose ratio it needs before its pass, at the price of another pass")
    elif trainer.rollout_func is not None:
        refused.append(f"a rollout function, which may have {MASKED_WITHIN}")
    if refused:
        logger.warning("As in TRL, the head runs over chunks of the vocabulary (%s).", "; ".join(refused))
        return None
    return LigerLoss(trainer, model)


def check(refused: Sequence[str]) -> None:
    """Raise where there is something that the fused loss cannot honour.

    >>> check(["fp16=True"])
    Traceback (most recent call last):
    ValueError: loss: liger cannot honour fp16=True. Drop it, or set loss: trl.
    """
    if refused:
        raise ValueError(f"loss: liger cannot honour {'; '.join(refused)}. Drop it, or set loss: trl.")


def window_weights(trainer: Any, lengths_B: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """What a token of each sequence counts in the loss that `trainer` makes of a micro-batch (`sequence_weights`)."""
    window_tokens = num_items_in_batch.clamp(min=1.0) / trainer.accelerator.num_processes
    accumulation_steps = 1.0
    if trainer.model.training:
        accumulation_steps = trainer.current_gradient_accumulation_steps
        window_tokens = window_tokens * accumulation_steps / trainer.args.steps_per_generation
    return sequence_weights(
        trainer.loss_type,
        lengths_B,
        accumulation_steps=accumulation_steps,
        max_completion_length=trainer.max_completion_length,
        window_tokens=window_tokens,
    )


class LigerLoss:
    """The fused loss of one trainer.

    It takes the place of the scoring head of `model` (the trainer's, without wrappers and adapters) while `compute`
    runs; old-policy, reference and evaluation passes of generations stay TRL's.

    Example:

    ```python
    liger_loss = LigerLoss(trainer, model)
    loss = liger_loss.compute(functools.partial(GRPOTrainer._compute_loss, trainer), wrapped_model, inputs)
    ```
    """

    def __init__(self, trainer: GRPOTrainer, model: Any) -> None:
        self.trainer, self.args = trainer, cast(GRPOConfig, trainer.args)
        self.options = loss_options(self.args)
        self.batch: TokenBatch | None = None
        self._add_to(model)

    def compute(
        self, compute_loss: Callable[[Any, dict[str, Any]], Any], model: Any, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """The fused loss of a micro-batch; `compute_loss` is TRL's own, run for the metrics that it logs."""
        self.batch = self._token_batch(inputs)
        outputs: list[FusedCausalLMOutput] = []
        # Taken from the wrapped model: what DDP and FSDP hand out is what their backward passes hang on
        hook = model.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            compute_loss(model, inputs)
        finally:
            hook.remove()
            self.batch = None
        (output,) = outputs
        assert output.loss is not None
        return output.loss

    def score_rows(self, rows: Sequence[int]) -> None:
        """Tells which rows the coming call of the model scores, in the order of their tokens; all, if not told."""
        if self.batch is not None:
            self.batch = self.batch.take(rows)

    def _token_batch(self, inputs: dict[str, Any]) -> TokenBatch:
        check([MASKED_WITHIN] if "tool_mask" in inputs else [])  # of a rollout function
        mask_BT = inputs["completion_mask"].bool()
        lengths_B = mask_BT.sum(1)

        def flat(name: str) -> torch.Tensor | None:
            values_BT = inputs.get(name)
            return None if values_BT is None else values_BT[mask_BT]

        is_ratio = inputs.get("importance_sampling_ratio")
        return TokenBatch(
            lengths_B=lengths_B,
            advantages_B=inputs["advantages"],
            weights_B=window_weights(self.trainer, lengths_B, inputs["num_items_in_batch"]),
            old_logps_N=flat("old_per_token_logps"),
            ref_logps_N=flat("ref_per_token_logps"),
            is_ratio=is_ratio if is_ratio is None or is_ratio.size(1) == 1 else is_ratio[mask_BT],
        )

    def _add_to(self, model: Any) -> None:
        trl_forward = model.forward

        @functools.wraps(type(model).forward)  # `generate` validates its arguments against this signature
        def forward(model: Any, *args: Any, **kwargs: Any) -> Any:
            if self.batch is None or not kwargs.pop("fused_lm_head", False):
                return trl_forward(*args, **kwargs)
            return self._score(model, *args, **kwargs)

        model.forward = types.MethodType(forward, model)

    def _score(
        self,
        model: Any,
        *args: Any,
        labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> FusedCausalLMOutput:
        """What TRL's fused head does, with the fused loss in the place of the chunked log-probabilities."""
        hidden = model.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        if shift_labels is None:
            assert labels is not None
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        head = model.get_output_embeddings()
        weight_VH, bias_V = head.weight, head.bias
        hidden, shift_labels = hidden.to(weight_VH.device), shift_labels.to(weight_VH.device)
        scored = shift_labels != -100
        precision: Any = nullcontext()
        if self.args.cast_lm_head_to_fp32:
            hidden, precision = hidden.float(), torch.autocast(hidden.device.type, enabled=False)
        if isinstance(weight_VH, DTensor):
            weight_VH = weight_VH.full_tensor()
            bias_V = None if bias_V is None else bias_V.full_tensor()
        assert self.batch is not None
        batch = self.batch.to(hidden.device)
        with precision, maybe_gather_lm_head_ctx(weight_VH, bias_V):
            result = liger.grpo_loss(hidden[scored], weight_VH, bias_V, shift_labels[scored], batch, self.options)
        empty = torch.zeros(scored.shape, device=hidden.device)
        return FusedCausalLMOutput(
            loss=result.loss,
            log_probs=empty.masked_scatter(scored, result.logps_N),
            entropy=empty.masked_scatter(scored, result.entropies_N),
            label_mask=scored,
        )
