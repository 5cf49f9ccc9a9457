"""JSON that a run keeps of itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """All or nothing: a crash or a full disk leaves the previous file."""
    beside = path.with_name(f"{path.name}.part")
    try:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """What a run has written, empty where it has not. Raises `ValueError` where that is no JSON object."""
    try:
        value = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: found no JSON object ({value}), expected what a run has kept of itself. Nothing was changed: "
            "choose another --output, or move what is there."
        )
    return value


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where a run is another than the one that has written.

    >>> changes({"limit": 3, "kept": 2}, {"limit": 4})
    ['limit 3 -> 4']
    """
    return [f"{key} {before.get(key)!r} -> {value!r}" for key, value in now.items() if before.get(key) != value]
