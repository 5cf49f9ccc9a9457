"""TRL's trainer beside ours on a real vLLM, as the table in docs/trainer.md: pytest -m vllm -k table -s."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import tiny
from compare import OURS
from watch import EPOCHS, STOCK, Run, ratios, run

pytestmark = pytest.mark.vllm

ROWS: dict[str, dict[str, Any]] = {
    "one image": {},
    "two images": {"per_row": 2},
    "text beside images": {"text_rows": (0, 3)},
    "text alone": {"text_rows": (0, 1, 2, 3)},
}


def figures(shown: Run) -> str:
    """Tokens of the first prompt on both sides, the largest difference at each step, and the range of ratios."""
    tokens = f"{len(shown.sent[0][0])} -> {len(shown.seen[0][0])}"
    every = [ratio for step in shown.log for ratio in ratios(step)]
    return f"{tokens} | {', '.join(f'{value:.0e}' for value in shown.largest)} | {min(every):.4f} to {max(every):.4f}"


def test_table(with_engine: Callable[..., Any]) -> None:
    table, largest = [], {}
    for rows, data in ROWS.items():
        for name, kind in (("TRL", STOCK), ("ours", OURS)):
            trainer = with_engine(**kind, **EPOCHS, shuffle_dataset=False, data=tiny.dataset(4, **data))
            try:
                shown = run(trainer)
                largest[rows, name] = max(shown.largest)
                table.append(f"| {rows} | {name} | {figures(shown)} |")
            except Exception as error:
                table.append(f"| {rows} | {name} | {type(error).__name__}: {str(error).splitlines()[0][:80]} | | |")
    sys.stdout.write("\n" + "\n".join(table) + "\n")
    assert {rows for rows, name in largest if name == "ours"} == ROWS.keys()
    assert all(value < 1e-5 for (_, name), value in largest.items() if name == "ours")
    assert largest["one image", "TRL"] > 1e-2
