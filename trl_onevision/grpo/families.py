"""What the completions of a prompt can share in which family of models, and why not where they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from trl_onevision.grpo import shared_prompt

# Held to TRL's own numbers, on small models, by tests/grpo/test_families.py. Packed: masks are causal over text and
# images alike, every layer attends to all that is before it, and nothing but attention mixes tokens.
PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")
PREFILLED = PACKED


@dataclass(frozen=True)
class Sharing:
    """For each thing that the completions of a prompt can share, why they do not; None where they do.

    Attributes:
        processing: Its images are decoded and preprocessed once.
        prefill: Its cache is computed once, and expanded.
        scoring: It is one sequence with its completions, in one pass.
    """

    processing: str | None = None
    prefill: str | None = None
    scoring: str | None = None

    def describe(self) -> str:
        """What is not shared, and why; empty where everything is.

        Example:

        ```python
        >>> Sharing(prefill="dropout is active", scoring="dropout is active").describe()
        'prefill and scoring (dropout is active)'

        ```
        """
        by_reason: dict[str, list[str]] = {}
        for name, reason in vars(self).items():
            if reason is not None:
                by_reason.setdefault(reason, []).append(name)
        return ", ".join(f"{' and '.join(names)} ({reason})" for reason, names in by_reason.items())


def sharing(trainer: Any, model: Any) -> Sharing:
    """What the completions of a prompt can share under `trainer`, whose model without wrappers is `model`."""
    processing = _why_not_process(trainer)
    prefill = processing or _why_not_prefill(trainer, model)
    return Sharing(processing, prefill, processing or _why_not_score(trainer, model))


def _why_not_process(trainer: Any) -> str | None:
    if trainer.environment_factories:
        return "an environment may give each copy of a prompt something else to see"
    if trainer.rollout_func is not None:
        return "a rollout function tokenizes and generates by itself"
    return None


def _why_not_prefill(trainer: Any, model: Any) -> str | None:
    if _is_prompt_learning(trainer.model):
        return "prompt-learning adapters add tokens of their own"
    if model.config.model_type not in PREFILLED:
        return f"model family {model.config.model_type!r} is not one of {', '.join(PREFILLED)}"
    return _why_not_dropout(trainer, model)


def _why_not_score(trainer: Any, model: Any) -> str | None:
    if trainer.options.share_prompt == "false":
        return "share_prompt is false"
    if trainer.tools:
        return "tools may put images into completions"
    if trainer.aux_loss_enabled:
        return "the mixture-of-experts auxiliary loss counts a prompt's tokens once a completion"
    if _is_prompt_learning(trainer.model):
        return "prompt-learning adapters add tokens of their own"
    return _why_not_packed(model) or _why_not_dropout(trainer, model)


def _why_not_packed(model: Any) -> str | None:
    family = model.config.model_type
    if family not in PACKED:
        return f"model family {family!r} is not one of {', '.join(PACKED)}"
    text = model.get_decoder().config
    if text._attn_implementation not in ("sdpa", shared_prompt.ATTENTION):
        return f"attn_implementation is {text._attn_implementation!r}, and only 'sdpa' understands packed rows"
    if any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or []):
        return "some layers do not attend to the whole prompt"
    return None


def _why_not_dropout(trainer: Any, model: Any) -> str | None:
    if trainer.options.share_prompt == "true" or not has_dropout(model):
        return None
    return "dropout is active, and the copies of a prompt would share one mask; share_prompt: true allows it"


def has_dropout(model: Any) -> bool:
    """Whether two passes over the same tokens give different results in training."""
    in_attention = getattr(model.get_decoder().config, "attention_dropout", 0.0) > 0
    return bool(in_attention) or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


def _is_prompt_learning(model: Any) -> bool:
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning
