"""Raw rows of a dataset that has an adapter, in TRL's columns: `dataset_name: Fancy-MLLM/R1-Onevision` just trains."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from datasets import Dataset, IterableDataset

from trl_onevision.data import RowError, adapter_for, convert_row, features
from trl_onevision.data.adapters import find
from trl_onevision.grpo.collator import keep_encoded

logger = logging.getLogger(__name__)
BATCH = 16


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
        adapter.NAME,
        adapter.NAME,
    )
    # Encoded: adapters take files as they are, and one that is on the grid already is kept byte for byte
    adapted = keep_encoded(dataset).map(
        partial(_convert, name=adapter.NAME),
        batched=True,
        batch_size=BATCH,
        remove_columns=dataset.column_names,
        features=features("grpo"),
    )
    if isinstance(adapted, Dataset) and len(dataset) and not len(adapted):
        raise ValueError(
            f"None of {len(dataset):,} raw rows could be used as rows of {adapter.NAME}. `trl-onevision prepare "
            f"{adapter.NAME}` says why for each row; rows of another dataset need `prepare --columns`."
        )
    return adapted


def _convert(batch: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    rows = []
    for values in zip(*batch.values(), strict=True):
        try:
            rows.append(convert_row(dict(zip(batch, values, strict=True)), find(name)))
        except RowError as error:
            logger.warning("Left out: %s", error)
    return {column: [row[column] for row in rows] for column in features("grpo")}
