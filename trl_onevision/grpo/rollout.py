"""One preprocess and one prefill a prompt: what generation and scoring reuse instead of doing again for each copy."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, compress, pairwise
from typing import Any, cast

import numpy as np
import torch
from transformers import BatchFeature, DynamicCache, GenerationConfig
from trl.trainer.utils import pad

from trl_onevision.grpo.rows import are_by_image, take_rows

PER_TOKEN_FIELDS = ("token_type_ids", "mm_token_type_ids")
# What an image processor says of each image, by which TRL counts the tiles that an image was cut into
TILE_FIELDS = ("num_patches", "image_rows", "image_cols")


@dataclass
class Prompts:
    """The prompts of a generation batch, each distinct one processed once.

    Attributes:
        unique_of_row: For each row, which distinct prompt it holds.
        unique_ids: The token ids of each distinct prompt.
        unique_images: The images of each distinct prompt; None where there are none at all.
        fields: What the processor returned besides token ids, for the distinct prompts.
        seen: What the image processor said of each image.
        every_copy: Whether each row holds its prompt's images for TRL, and not its first copy alone.
    """

    unique_of_row: list[int]
    unique_ids: list[Any]
    unique_images: list[Any] | None
    fields: dict[str, Any]
    seen: dict[str, torch.Tensor]
    every_copy: bool

    def __post_init__(self) -> None:
        self.ids = [self.unique_ids[u] for u in self.unique_of_row]
        self.all_images = self.images = None
        if self.unique_images is not None:
            self.all_images = [self.unique_images[u] for u in self.unique_of_row]
            first = set(range(len(self.ids)) if self.every_copy else self.first_rows)
            self.images = [image if row in first else None for row, image in enumerate(self.all_images)]

    @property
    def first_rows(self) -> list[int]:
        """The first row of each distinct prompt."""
        return first_rows(self.unique_of_row)

    @property
    def num_images(self) -> list[int]:
        """How many images each distinct prompt has."""
        return [len(images or []) for images in self.unique_images or [None] * len(self.unique_ids)]

    def num_tiles(self) -> list[int] | None:
        """How many rows of the image tensors each distinct prompt has, by TRL's rule; None where an image is one."""
        pixels, seen = self._image_fields().get("pixel_values"), self.seen
        if "spatial_shapes" in self.fields and "image_rows" in seen:
            tiles = seen["image_rows"] * seen["image_cols"]
            tiles = tiles + (tiles > 1) * seen["use_thumbnail"]
        elif "num_patches" in seen and pixels is not None and pixels.ndim == 4 and len(pixels) != sum(self.num_images):
            tiles = seen["num_patches"]
        else:
            return None
        return [int(of_prompt.sum()) for of_prompt in tiles.split(self.num_images)]

    def why_not(self) -> str | None:
        """Why rows cannot take what is theirs from what was processed once, or None where they can."""
        known = are_by_image(self._image_fields(), self.num_images, self.num_tiles())
        return None if known else f"its processor returned {', '.join(self.fields)}, not all of which are by image"

    def fields_of_rows(self, every_copy: bool) -> dict[str, Any]:
        """The processor's fields for the rows; image tensors on `every_copy`, or on the first of each prompt."""
        batch = {**self._image_fields(), "num_images": self.num_images, "num_tiles": self.num_tiles()}
        taken = take_rows(batch, self.unique_of_row, list(range(len(self.unique_ids))), every_copy)
        num_images, _ = taken.pop("num_images"), taken.pop("num_tiles", None)
        for key in self.fields:
            if key in PER_TOKEN_FIELDS:
                taken[key] = [self.fields[key][u] for u in self.unique_of_row]
        if "batch_num_images" in self.fields:  # of LLaVA-OneVision, which leaves out prompts without images
            taken["batch_num_images"] = torch.tensor([count for count in num_images if count])
        return taken

    def features(self) -> dict[str, torch.Tensor]:
        """The tensors of the rows as TRL holds them, with per-token fields padded."""
        features = self.fields_of_rows(self.every_copy)
        for key in PER_TOKEN_FIELDS:
            if key in features:
                features[key] = pad([torch.tensor(v) for v in features[key]], padding_value=0, padding_side="left")
        return features

    def seen_of_rows(self) -> dict[str, torch.Tensor]:
        """What the image processor said of the images of the rows as TRL holds them."""
        assert self.images is not None
        starts = [0, *accumulate(self.num_images)]
        rows = zip(self.unique_of_row, self.images, strict=True)
        index = [i for u, images in rows if images for i in range(starts[u], starts[u + 1])]
        return {key: value[index] for key, value in self.seen.items() if key in TILE_FIELDS}

    def _image_fields(self) -> dict[str, torch.Tensor]:
        return {
            key: value if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))
            for key, value in self.fields.items()
            if key not in (*PER_TOKEN_FIELDS, "batch_num_images")
        }


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


def first_rows(unique_of_row: list[int]) -> list[int]:
    """The first row of each run.

    Example:

    ```python
    >>> first_rows([0, 0, 1, 2, 2])
    [0, 2, 3]

    ```
    """
    return [row for row, u in enumerate(unique_of_row) if row == 0 or u != unique_of_row[row - 1]]


@contextmanager
def seen_once(processor: Any) -> Iterator[dict[str, torch.Tensor]]:
    """While active, what the processor's image processor says of each image is put into the mapping it yields."""
    seen: dict[str, torch.Tensor] = {}
    if not hasattr(processor, "image_processor"):
        yield seen
        return
    image_processor = processor.image_processor

    def look(images: Any, **kwargs: Any) -> Any:
        output = image_processor(images, **kwargs)
        for key in TILE_FIELDS:
            if key in output:
                told = torch.as_tensor(output[key]).flatten()
                seen[key] = torch.cat([seen[key], told]) if key in seen else told
        seen["use_thumbnail"] = torch.tensor(bool(getattr(image_processor, "use_thumbnail", False)))
        return output

    processor.image_processor = _Delegate(image_processor, look)
    try:
        yield seen
    finally:
        processor.image_processor = image_processor


class _Delegate:
    """`wrapped`, but for a call and the attributes given."""

    def __init__(self, wrapped: Any, call: Callable[..., Any], **attributes: Any) -> None:
        self._wrapped, self._call = wrapped, call
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def process_once(processor: Any, prompts: Prompts) -> Any:
    """The processor, but for the images of `prompts`, of which it returns what is already known."""

    def process(images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        if images is not None and images is prompts.images:
            return BatchFeature(prompts.features())
        return processor(images=images, text=text, **kwargs)

    def process_images(images: Any, **kwargs: Any) -> Any:
        """TRL counts an image's tiles with a second look at it."""
        if images is prompts.images:
            return BatchFeature(prompts.seen_of_rows())
        return processor.image_processor(images=images, **kwargs)

    return _Delegate(processor, process, image_processor=_Delegate(processor.image_processor, process_images))


def unpadded(processor: Any) -> Any:
    """The processor, whose chat template gives the prompts of a batch without padding, whatever its own defaults are.

    TRL takes all that it is given for tokens of the prompt: Gemma 4's processor pads; that of Mistral 3 makes one
    tensor, for which prompts must be of one length.
    """

    def render(*args: Any, processor_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        padded = processor.apply_chat_template(
            *args, processor_kwargs={**(processor_kwargs or {}), "padding": True}, **kwargs
        )
        real = [torch.as_tensor(row).bool().tolist() for row in padded["attention_mask"]]
        for key in {"input_ids", "attention_mask", *PER_TOKEN_FIELDS} & set(padded):
            rows = [torch.as_tensor(row).tolist() for row in padded[key]]
            padded[key] = [list(compress(row, kept)) for row, kept in zip(rows, real, strict=True)]
        return padded

    return _Delegate(processor, processor, apply_chat_template=render)


def mixed_rows(processor: Any) -> Any:
    """The processor, for which TRL's None may stand in place of a row's images.

    Example:

    ```python
    >>> from types import SimpleNamespace
    >>> class Processor(SimpleNamespace):
    ...     def __call__(self, images, text):
    ...         return images
    >>> processor = mixed_rows(Processor(image_processor=None))
    >>> processor(images=[["a cat"], None], text=["What is it?", "2 + 2 = ?"])
    [['a cat'], []]

    ```
    """

    def takes_none(call: Callable[..., Any]) -> Callable[..., Any]:
        def process(images: Any = None, **kwargs: Any) -> Any:
            rows = [[] if row is None else row for row in images] if isinstance(images, list) else images
            return call(images=rows, **kwargs)

        return process

    of_images = processor.image_processor
    return _Delegate(processor, takes_none(processor), image_processor=_Delegate(of_images, takes_none(of_images)))


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
        cache.reorder_cache(cast(torch.LongTensor, index))
        if getattr(base.base_model, "rope_deltas", None) is not None:
            base.base_model.rope_deltas = base.base_model.rope_deltas[index]
        return generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=generation_config,
            **{_cache_name(base): cache},
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
        use_cache=True,
        logits_to_keep=1,
        **{_cache_name(base): cache, **fields, **per_token},
    )
    return cache


def _cache_name(model: Any) -> str:
    """What the model's forward calls its cache: transformers 5.24 says `cache` where it said `past_key_values`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
