"""What the completions of a prompt can share in which family of models, and why not where they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from trl_onevision.grpo import shared_prompt

# By name, since what mixes tokens can be seen in no config. Every name is held to TRL's numbers, on a small model, by
# tests/grpo/test_families.py; docs/families.md has what each family gets.

# Language models whose tokens meet in full attention alone, which transformers hands to its `AttentionInterface`
PACKED_LANGUAGE = (
    *("apertus", "arcee", "cohere", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "exaone", "gemma", "glm", "glm4"),
    *("glm4_moe", "glm4v_text", "gpt_neox", "granite", "granitemoe", "helium", "internlm3", "llama", "minimax_m2"),
    *("ministral3", "mistral", "mixtral", "olmo", "olmo2", "olmoe", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3"),
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text", "seed_oss", "smollm3"),
    "starcoder2",
)
# Those around them whose masks are causal over images too
PACKED_VISION = (
    *("glm46v", "idefics3", "internvl", "llava", "llava_next", "llava_onevision", "mistral3", "qwen2_vl"),
    *("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm"),
)
# Those whose cache of a prompt, expanded, goes on as G caches would
PREFILLED_LANGUAGE = (
    *PACKED_LANGUAGE,
    *("cohere2", "exaone4", "gemma3_text", "gemma4_text", "gpt_oss", "lfm2", "olmo3", "qwen3_5_text", "qwen3_next"),
)
PREFILLED_VISION = (*PACKED_VISION, "gemma3", "gemma4", "lfm2_vl", "qwen3_5")

# Rotary positions that stay what they are when a sequence grows
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


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
    if len(trainer.environment_factories or ()) > 1:
        return "environments may give equal prompts other tools"
    if trainer.rollout_func is not None:
        return "a rollout function tokenizes and generates by itself"
    return None


def _why_not_prefill(trainer: Any, model: Any) -> str | None:
    if _is_prompt_learning(trainer.model):
        return "prompt-learning adapters add tokens of their own"
    return _why_not_known(model, PREFILLED_VISION, PREFILLED_LANGUAGE) or _why_not_dropout(trainer, model)


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
    text = _language_config(model)
    if text._attn_implementation not in ("sdpa", shared_prompt.ATTENTION):
        return f"attn_implementation is {text._attn_implementation!r}, and only 'sdpa' understands packed rows"
    layers = getattr(text, "layer_types", None) or ["sliding_attention" if _slides(text) else "full_attention"]
    others = sorted(set(layers) - {"full_attention"})
    if others:
        return f"layers of {' and '.join(others)} do not attend to the whole prompt"
    rope_type = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in ROPE_TYPES:
        return f"rotary positions of type {rope_type!r} change with the length of a sequence"
    return _why_not_known(model, PACKED_VISION, PACKED_LANGUAGE)


def _why_not_known(model: Any, vision: tuple[str, ...], language: tuple[str, ...]) -> str | None:
    family, text = model.config.model_type, model.config.get_text_config().model_type
    if family != text and family not in vision:
        return f"{family!r} is not among the families tested for it"
    if text not in language:
        return f"{text!r} is not among the language models tested for it"
    return None


def _slides(text: Any) -> bool:
    """Whether every layer sees a window alone: where a config names no types of layers, its masks go by this."""
    return bool(getattr(text, "sliding_window", None)) and getattr(text, "use_sliding_window", True)


def _why_not_dropout(trainer: Any, model: Any) -> str | None:
    if trainer.options.share_prompt == "true" or not has_dropout(model):
        return None
    return "dropout is active, and the copies of a prompt would share one mask; share_prompt: true allows it"


def has_dropout(model: Any) -> bool:
    """Whether two passes over the same tokens give different results in training."""
    in_attention = getattr(_language_config(model), "attention_dropout", None)
    return bool(in_attention) or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


def _is_prompt_learning(model: Any) -> bool:
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning


def _language_config(model: Any) -> Any:
    """The config that the layers of the language model read; ModernBERT's "decoder" is its head, which has none."""
    return getattr(model.get_decoder(), "config", model.config)
