"""The version of TRL this package was written against, told by the methods that it overrides.

TRL may add what a method can do without; what it requires, this package has to give.
"""

from __future__ import annotations

import inspect
from typing import Any

import trl

TESTED_TRL = ("1.16.0",)

# What TRL's scoring pass takes of a batch besides its tokens
FIELDS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)

# Parameters of each overridden method that this package gives, in TRL's order.
SIGNATURES = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_generate": ("self", "prompts"),
    "_tokenize_prompts": ("self", "prompts"),
    "_generate_single_turn": (
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ),
    "_get_tool_suffix_ids": ("self", "tool_messages"),
    "_get_per_token_logps_and_entropies": (
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
        *FIELDS,
    ),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("self", "model", "inputs"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
}


def check_signatures(trainer: type) -> None:
    """Raise where a method this package overrides lacks a parameter that it gives, or requires another.

    Example:

    ```python
    >>> class Changed:
    ...     def _prepare_inputs(self, generation_batch, epoch): ...
    >>> check_signatures(Changed)
    Traceback (most recent call last):
    RuntimeError: TRL ... has GRPOTrainer._prepare_inputs(self, generation_batch, epoch), but trl-onevision was
        written against _prepare_inputs(self, generation_batch). Tested versions of TRL: 1.16.0. Install one of them.

    ```
    """
    for name, given in SIGNATURES.items():
        method = getattr(trainer, name, None)
        parameters = inspect.signature(method).parameters if method is not None else {}
        known = tuple(p for p in parameters if p in given)
        required = [
            p.name
            for p in parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if known != given or not set(required) <= set(given):
            found = f"({', '.join(parameters)})" if parameters else " no longer"
            raise RuntimeError(
                f"TRL {trl.__version__} has GRPOTrainer.{name}{found}, but trl-onevision was written against "
                f"{name}({', '.join(given)}). Tested versions of TRL: {', '.join(TESTED_TRL)}. Install one of them."
            )


def check_fields(fields: dict[str, Any]) -> None:
    """Raise where TRL's scoring pass is given a field that a packed row would leave out without a word.

    Example:

    ```python
    >>> check_fields({"pixel_values": None, "audio_values": None, "compute_margin": False})
    >>> check_fields({"audio_values": [0.1]})
    Traceback (most recent call last):
    RuntimeError: TRL ... gives the scoring pass audio_values, which this version of trl-onevision does not know.
        Tested versions of TRL: 1.16.0. Install one of them.

    ```
    """
    known = {*FIELDS, "batch_num_images"}
    if unknown := [
        name for name, value in fields.items() if value is not None and value is not False and name not in known
    ]:
        raise RuntimeError(
            f"TRL {trl.__version__} gives the scoring pass {', '.join(unknown)}, which this version of trl-onevision "
            f"does not know. Tested versions of TRL: {', '.join(TESTED_TRL)}. Install one of them."
        )
