"""Raw rows of a dataset that has an adapter, in TRL's columns: `dataset_name: Fancy-MLLM/R1-Onevision` just trains."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, concatenate_datasets, is_caching_enabled
from filelock import FileLock

from trl_onevision.data import RowError, adapter_for, convert_row, features
from trl_onevision.data.adapters import find
from trl_onevision.grpo.collator import keep_encoded

logger = logging.getLogger(__name__)
BATCH = 16
SHARD = 2048  # rows that one process converts while others convert others


def adapt(dataset: Any) -> Any:
    """The dataset in the columns of the row contract where its own are a raw schema; anything else as it is.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> raw = Dataset.from_list([{"problem": "What is 2 + 2?", "solution": "The sum is $\\\\boxed{4}$."}])
    >>> adapt(raw)[0]["solution"]
    '4'

    ```

    Rows that cannot be used are left out, each with a logged reason; none left is a `ValueError`.
    `trl-onevision prepare` does the same once for all runs, with a choice of prompt, grid and frame, and a file of
    what it left out.
    """
    if isinstance(dataset, dict):
        return type(dataset)({name: adapt(split) for name, split in dataset.items()})
    if not isinstance(dataset, (Dataset, IterableDataset)) or dataset.column_names is None:
        return dataset
    adapter = adapter_for(dataset.column_names)
    if adapter is None:
        return dataset
    logger.warning(
        "Columns %s are raw rows of %s: adapting them. Once for all runs: trl-onevision prepare %s",
        ", ".join(dataset.column_names),
        adapter.name,
        adapter.name,
    )
    columns: dict[str, Any] = {"remove_columns": dataset.column_names, "features": features("grpo")}
    convert = partial(_convert, name=adapter.name)
    # Encoded: adapters take files as they are, and one that is on the grid already is kept byte for byte
    encoded = keep_encoded(dataset)
    if isinstance(encoded, Dataset):
        adapted = _map_in_shards(encoded, convert, **columns)
    else:
        adapted = encoded.map(convert, batched=True, batch_size=BATCH, **columns)
    if isinstance(adapted, Dataset) and len(dataset) and not len(adapted):
        raise ValueError(
            f"None of {len(dataset):,} raw rows could be used as rows of {adapter.name}. `trl-onevision prepare "
            f"{adapter.name}` says why for each row; rows of another dataset need `prepare --columns`."
        )
    return adapted


def _map_in_shards(dataset: Dataset, convert: Any, **columns: Any) -> Dataset:
    """Convert a dataset once for all processes of a machine, each a part of it, and read the others' from the cache.

    A process begins at its own place, and waits for a shard that another has begun. There is no barrier, which would
    end the run after `ddp_timeout`, and what is done when a run stops is there for the next.
    """
    starts = range(0, len(dataset), SHARD)
    ranks, rank = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    own = len(starts) * rank // ranks
    shards = {}
    for start in [*starts[own:], *starts[:own]]:
        shard = dataset.select(range(start, min(start + SHARD, len(dataset))))
        with _nobody_else(shard):
            shards[start] = shard.map(convert, batched=True, batch_size=BATCH, desc="adapting raw rows", **columns)
    return concatenate_datasets([shards[start] for start in starts]) if shards else dataset


def _nobody_else(shard: Dataset) -> AbstractContextManager[Any]:
    """A lock beside the cache of a shard; what lies in memory has no cache to share."""
    if not shard.cache_files or not is_caching_enabled():
        return nullcontext()
    folder = Path(shard.cache_files[0]["filename"]).parent
    return FileLock(folder / f"adapting-{shard._fingerprint}.lock")


def _convert(batch: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    rows = []
    for values in zip(*batch.values(), strict=True):
        try:
            rows.append(convert_row(dict(zip(batch, values, strict=True)), find(name)))
        except RowError as error:
            logger.warning("Left out: %s", error)
    return {column: [row.get(column) for row in rows] for column in features("grpo")}
