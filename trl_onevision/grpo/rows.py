"""Rows of a batch in which only the first copy of a prompt carries its images.

TRL gives each of a group's G rows its own copy of the prompt's image tensors. Here the first row of a run of equal
prompts holds them and `num_images` is 0 on the others, so every helper of TRL that counts images keeps working and
nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

IMAGE_FIELDS = (
    "pixel_values",
    "image_grid_thw",
    "image_position_ids",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
)


def first_copies(prompt_ids_BP: torch.Tensor, prompt_mask_BP: torch.Tensor, num_images: list[int] | None) -> list[int]:
    """For each row, the first row of its run of equal prompts; a row with images of its own starts a run.

    Example:

    ```python
    >>> ids = torch.tensor([[5, 6], [5, 6], [5, 6], [7, 8]])
    >>> first_copies(ids, torch.ones_like(ids), num_images=[1, 0, 1, 0])
    [0, 0, 2, 3]

    ```
    """
    same_prompt = ((prompt_ids_BP[1:] == prompt_ids_BP[:-1]) & (prompt_mask_BP[1:] == prompt_mask_BP[:-1])).all(1)
    first = [0]
    for row, same in enumerate(same_prompt.tolist(), start=1):
        has_images = num_images is not None and num_images[row] > 0
        first.append(first[-1] if same and not has_images else row)
    return first


def are_by_row(batch: Mapping[str, Any]) -> bool:
    """Whether image tensors have an entry a row, padded to the most images of one (Idefics, SmolVLM), as TRL tells."""
    return "pixel_attention_mask" in batch and "spatial_shapes" not in batch


def are_by_image(fields: Mapping[str, Any], num_images: list[int], num_tiles: list[int] | None) -> bool:
    """Whether the image tensors of as many rows as `num_images` are ones that `take_rows` can tell apart.

    Example:

    ```python
    >>> fields = {"pixel_values": torch.zeros(3, 3, 28, 28)}
    >>> are_by_image(fields, [2, 1], None), are_by_image(fields, [1, 1], None), are_by_image(fields, [1, 1], [2, 1])
    (True, False, True)

    ```
    """
    if any(key not in IMAGE_FIELDS for key in fields):
        return False
    if "pixel_values" not in fields:
        return True
    count = sum(num_images)
    if are_by_row(fields):
        return all(len(value) == len(num_images) for value in fields.values())
    if "image_grid_thw" in fields:
        return len(fields["image_grid_thw"]) == count
    tiles = sum(num_tiles) if num_tiles is not None else count
    return len(fields["pixel_values"]) == tiles and ("spatial_shapes" not in fields or num_tiles is not None)


def take_rows(batch: dict[str, Any], rows: list[int], first: list[int], every_copy: bool = False) -> dict[str, Any]:
    """Select rows, copies of a prompt side by side; images go to each run's first row, or to `every_copy`.

    Example:

    ```python
    >>> pixels = torch.tensor([[1.0], [2.0]])  # one row of pixels for each of two images
    >>> batch = {"ids": torch.arange(4), "pixel_values": pixels, "num_images": [1, 0, 1, 0]}
    >>> half = take_rows(batch, rows=[1, 2, 3], first=[0, 0, 2, 2])
    >>> half["ids"].tolist(), half["pixel_values"].tolist(), half["num_images"]
    ([1, 2, 3], [[1.0], [2.0]], [1, 1, 0])

    ```
    """
    batch = {key: value for key, value in batch.items() if value is not None}
    batch = batch if are_by_row(batch) else split_pixel_values_by_grid(batch)
    holds = [every_copy or i == 0 or first[row] != first[rows[i - 1]] for i, row in enumerate(rows)]
    taken: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, list):
            taken[key] = [
                value[first[row]] if held else _nothing_like(value[row]) for row, held in zip(rows, holds, strict=True)
            ]
        else:
            taken[key] = value[rows] if value.ndim > 0 else value
    taken = unsplit_pixel_values_by_grid(taken)
    if "num_images" in taken and not any(taken["num_images"]):
        taken = {key: value for key, value in taken.items() if key not in IMAGE_FIELDS}
    return taken


def micro_batches(batch: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split a generation batch into `count` micro-batches, shuffled as TRL shuffles rows, but with groups kept whole.

    The groups take the order in which TRL's own permutation first meets them, so the random state that generation
    sees afterwards is the one it would have seen under TRL.
    """
    first = first_copies(batch["prompt_ids"], batch["prompt_mask"], batch.get("num_images"))
    permutation = torch.randperm(len(first)).tolist()
    rank: dict[int, int] = {}
    for row in permutation:
        rank.setdefault(first[row], len(rank))
    order = sorted(range(len(first)), key=lambda row: rank[first[row]])
    size = len(order) // count
    return [take_rows(batch, order[i * size : (i + 1) * size], first) for i in range(count)]


def _nothing_like(value: Any) -> Any:
    return value[:0] if isinstance(value, torch.Tensor) else 0
