"""Training one half of a model: the language model, or what turns images into its inputs."""

from __future__ import annotations

from typing import Any

PARTS = ("vision", "language")


def freeze(model: Any, part: str) -> None:
    """Take one half of `model` out of training; adapters in it are frozen too.

    `language` is the decoder with its embeddings and its head, `vision` all the rest: the tower and the projector.
    Raises `ValueError` where that half is empty, or where nothing is left to train.
    """
    language = _language(model)
    frozen = [p for p in model.parameters() if (id(p) in language) == (part == "language")]
    if not frozen:
        raise ValueError(f"freeze: {part} has nothing to freeze: {type(model).__name__} is a language model alone.")
    for parameter in frozen:
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"freeze: {part} leaves nothing to train. With LoRA, aim lora_target_modules at the other half."
        )


def trains_vision(model: Any) -> bool:
    """Whether any weight trains that turns images into inputs of the language model; adapters are weights too."""
    language = _language(model)
    return any(parameter.requires_grad and id(parameter) not in language for parameter in model.parameters())


def _language(model: Any) -> set[int]:
    """The parameters of the decoder, its embeddings and its head, by identity."""
    modules = (model.get_decoder(), model.get_output_embeddings())
    return {id(parameter) for module in modules for parameter in module.parameters()}
