"""One preprocess and one prefill a prompt: what generation and scoring reuse instead of doing again for each copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, DynamicCache, GenerationConfig
from trl.trainer.utils import pad

PER_TOKEN_FIELDS = ("token_type_ids", "mm_token_type_ids")


@dataclass
class Prompts:
    """The prompts of a generation batch, each distinct one processed once.

    Attributes:
        every: The prompts as TRL passed them, G copies each.
        unique_of_row: For each row, which distinct prompt it holds.
        images: For each row its images if it is the first copy of its prompt, else None; None where there are none.
        all_images: For each row its images.
        fields: What the processor returned besides token ids, for the distinct prompts.
    """

    every: list[Any]
    unique_of_row: list[int]
    images: list[Any] | None
    all_images: list[Any] | None
    fields: dict[str, Any]

    @property
    def first_rows(self) -> list[int]:
        """The first row of each distinct prompt."""
        return [i for i, u in enumerate(self.unique_of_row) if i == 0 or u != self.unique_of_row[i - 1]]

    def features(self) -> dict[str, torch.Tensor]:
        """The processor's tensors: image fields of the distinct prompts, per-token fields of every row."""
        features = {}
        for key, value in self.fields.items():
            if key in PER_TOKEN_FIELDS:
                rows = pad([torch.tensor(v) for v in value], padding_value=0, padding_side="left")
                features[key] = rows[self.unique_of_row]
            else:
                features[key] = value if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))
        return features


def unique_rows(prompts: list[Any]) -> list[int]:
    """For each prompt, the number of its run of equal prompts; images are equal when they are one object.

    Example:

    ```python
    >>> image = object()
    >>> ask = lambda text: [{"role": "user", "content": [{"type": "image", "image": image}, {"text": text}]}]
    >>> unique_rows([ask("How many?"), ask("How many?"), ask("What colour?")])
    [0, 0, 1]

    ```
    """
    keys = [json.dumps(prompt, default=id, sort_keys=True) for prompt in prompts]
    numbers = [0]
    for previous, key in pairwise(keys):
        numbers.append(numbers[-1] + (key != previous))
    return numbers


class ProcessOnce:
    """A processor that returns what is already known about the prompts of the current generation."""

    def __init__(self, processor: Any, prompts: Prompts) -> None:
        self._processor, self._prompts = processor, prompts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """The processor's output for `images` and `text`, without processing the current prompts again."""
        if images is not None and images is self._prompts.images:
            return BatchFeature(self._prompts.features())
        return self._processor(images=images, text=text, **kwargs)

    def image_processor(self, images: Any, **kwargs: Any) -> Any:
        """TRL counts an image's tiles with a second look at it; the copies that hold no images are left out."""
        rows = [row if isinstance(row, list) else [row] for row in images]
        flat = [image for row in rows for image in row if image is not None]
        return self._processor.image_processor(images=flat, **kwargs)


def can_expand(config: GenerationConfig, longest_prompt: int) -> bool:
    """Whether `generate` under `config` can start from a cache that holds all but the last token of each prompt."""
    caches = bool(config.use_cache) and config.cache_implementation is None
    return caches and config.num_beams in (None, 1) and longest_prompt > 1


@contextmanager
def prefill_once(model: Any, prompts: Prompts) -> Iterator[None]:
    """While active, `model.generate` on G copies of each prompt runs the prompt once and expands its cache."""
    generate, own = model.generate, vars(model).get("generate")  # FSDP gives the module one of its own

    def shared(input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any, **fields: Any) -> Any:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        first, index = prompts.first_rows, torch.tensor(prompts.unique_of_row, device=input_ids.device)
        cache = _prefill(model, base, input_ids[first], attention_mask[first], fields)
        cache.batch_select_indices(index)
        if getattr(base.base_model, "rope_deltas", None) is not None:
            base.base_model.rope_deltas = base.base_model.rope_deltas[index]
        return generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            generation_config=generation_config,
        )

    model.generate = shared
    try:
        yield
    finally:
        del model.generate
        if own is not None:
            model.generate = own


def _prefill(
    model: Any, base: Any, input_ids_UP: torch.Tensor, attention_mask_UP: torch.Tensor, fields: dict[str, Any]
) -> DynamicCache:
    """The cache of all but the last token of each distinct prompt, from one call of the model with its adapters."""
    cache = DynamicCache(config=base.config.get_text_config())
    # The model's own rule, as `generate` applies it: with padding on the left, and for images, positions differ
    # from the column number.
    position_ids = base._prepare_position_ids_for_generation(
        input_ids_UP, {"attention_mask": attention_mask_UP, **fields}
    )
    per_token = {key: value[:, :-1] for key, value in fields.items() if value.shape == input_ids_UP.shape}
    model(
        input_ids=input_ids_UP[:, :-1],
        attention_mask=attention_mask_UP[:, :-1],
        position_ids=position_ids[..., :-1],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **{**fields, **per_token},
    )
    return cache
