"""The version of TRL this package was written against, told by the methods that it overrides."""

from __future__ import annotations

import inspect

import trl

TESTED_TRL = ("1.16.0",)

# Parameters of each overridden method, as this package was written against them.
SIGNATURES = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_tokenize_prompts": ("self", "prompts"),
    "_generate_single_turn": (
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ),
    "_get_per_token_logps_and_entropies": (
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
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
    ),
    "_compute_loss": ("self", "model", "inputs"),
}


def check_signatures(trainer: type) -> None:
    """Raise where a method this package overrides no longer takes what it took in the tested versions of TRL."""
    for name, expected in SIGNATURES.items():
        method = getattr(trainer, name, None)
        found = tuple(inspect.signature(method).parameters) if method is not None else None
        if found != expected:
            raise RuntimeError(
                f"TRL {trl.__version__} has GRPOTrainer.{name}{found or ' (missing)'}, but trl-onevision was written "
                f"against {name}{expected}. Tested versions of TRL: {', '.join(TESTED_TRL)}."
            )
