"""JSON that a run keeps of itself."""

import json
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
