"""Adapts the raw rows of a parquet file, as one of two processes that share a cache but no process group."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset

from trl_onevision.grpo import raw_rows

if __name__ == "__main__":
    source, cache, seen = sys.argv[1:]
    raw = load_dataset("parquet", data_files=source, split="train", cache_dir=cache)
    convert_row = raw_rows.convert_row

    def noted(row: dict[str, Any], adapter: Any) -> Any:
        with Path(seen).open("a") as file:
            file.write(f"{row['id']}\n")
        return convert_row(row, adapter)

    raw_rows.convert_row, raw_rows.SHARD = noted, 2
    sys.stdout.write(json.dumps(raw_rows.adapt(raw)["id"][:]))
