"""Every rank makes the same collectives and runs the same modules, whatever its rows are.

A rank whose rows hold no image would leave out what the others wait for: TRL's gather of images, and a pass of the
vision tower, whose weights (ZeRO-3, FSDP) or gradients (DDP, ZeRO) are exchanged while it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves
from transformers import Trainer
from trl.trainer.grpo_trainer import GRPOTrainer

from trl_onevision.grpo.guards import blocks


def on_any_rank(flags: list[bool], accelerator: Accelerator) -> list[bool]:
    """Each of the flags, or-ed over all ranks.

    Example:

    ```python
    >>> on_any_rank([True, False], Accelerator(cpu=True))
    [True, False]

    ```
    """
    gathered: torch.Tensor = accelerator.gather(torch.tensor([flags], dtype=torch.int, device=accelerator.device))
    return gathered.bool().any(0).tolist()


def images_in(prompts: list[Any]) -> list[list[Any] | None]:
    """For each prompt the images in its blocks, None where there is none.

    Example:

    ```python
    >>> images_in([[{"role": "user", "content": [{"type": "image", "image": "cat.png"}]}], "How many?"])
    [['cat.png'], None]

    ```
    """
    return [
        [block["image"] for block in blocks(prompt) if block.get("image") is not None] or None for prompt in prompts
    ]


class TowerPasses:
    """Keeps the vision tower in step on all ranks of a trainer.

    Attributes:
        due: Whether the calls of the model that are made now run the tower, on this rank as on every other.
    """

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer: Any = trainer
        self.due = False

    def note(self, batches: list[dict[str, Any]]) -> None:
        """Write into each micro-batch, as `tower_due`, whether its pass runs the tower on any rank."""
        with_images = [any(batch.get("num_images") or []) for batch in batches]
        for batch, due in zip(batches, on_any_rank(with_images, self.trainer.accelerator), strict=True):
            batch["tower_due"] = due or self._always_due()

    def _always_due(self) -> bool:
        """DDP that does not look for unused parameters waits for the gradient of every one, images or not."""
        wrapped = self.trainer.model_wrapped
        waits = isinstance(wrapped, DistributedDataParallel) and not wrapped.find_unused_parameters
        return waits and self.trainer._is_vlm

    @contextmanager
    def joined(self, model: Any, has_images: bool) -> Iterator[None]:
        """While active, the next call of `model` (without wrappers) runs the tower if it is due.

        A call without an image runs it on a blank one, where a call with images does: behind the look-up of
        embeddings. Of that it adds nothing, an empty sum, so that output and gradients are those of the call alone.
        """
        alone = self.trainer.accelerator.num_processes == 1 and not torch.is_grad_enabled()
        if has_images or alone or not self.due:
            yield
            return

        def add_nothing_of_it(module: torch.nn.Module, args: Any, embeddings: torch.Tensor) -> torch.Tensor:
            hook.remove()
            return embeddings + self._empty_sum(model).to(embeddings)

        hook = model.get_input_embeddings().register_forward_hook(add_nothing_of_it)
        try:
            yield
        finally:
            hook.remove()

    def _empty_sum(self, model: Any) -> torch.Tensor:
        encode = getattr(model.base_model, "get_image_features", None)
        if encode is None:
            raise ValueError(
                f"Another rank has rows with images and this one has none, but the vision tower of model family "
                f"{model.config.model_type!r} cannot be run by itself (it has no get_image_features). Give every rank "
                "rows of both kinds, or rows of one kind only."
            )
        known = inspect.signature(encode).parameters
        features = encode(**{name: value for name, value in self._blank.items() if name in known})
        # What the language model is given, and no more: ZeRO-3 compares the order of modules in the backward pass too
        given = [features.pooler_output, features.get("deepstack_features")]
        return torch.stack([leaf.flatten()[:0].sum() for leaf in tree_leaves(given) if leaf is not None]).sum()

    @cached_property
    def _blank(self) -> dict[str, Any]:
        """What the processor makes of one small image without content."""
        processor = self.trainer.processing_class.image_processor
        fields = processor(images=[[Image.new("RGB", (56, 56))]], return_tensors="pt")
        on_device: dict[str, Any] = Trainer._prepare_inputs(self.trainer, dict(fields))
        return on_device
