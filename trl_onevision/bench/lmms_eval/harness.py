"""What lmms-eval calls for each row: image, prompt, score. It imports this file by its path."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from trl_onevision.bench.answer import Answer, question_of
from trl_onevision.bench.score import score
from trl_onevision.bench.tsv import COLUMNS, BenchRow, row_of
from trl_onevision.data.images import decode_image
from trl_onevision.data.prompts import PROMPTS


def _row(doc: Mapping[str, Any]) -> BenchRow:
    return row_of({column: "" if doc[column] is None else str(doc[column]) for column in COLUMNS})


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The row's image."""
    return [decode_image(f"data:;base64,{_row(doc).image}")]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    """The question in the paper's inference prompt.

    >>> doc = dict.fromkeys(COLUMNS, "") | {"question": "<image>How many?", "choices": None}
    >>> doc_to_text(doc)[:36]
    'How many? First output the thinking '
    """
    return PROMPTS["think-answer"].template.replace("{question}", question_of(_row(doc)))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the rules find the gold in the completion.

    >>> doc = dict.fromkeys(COLUMNS, "1") | {"answer": "5 cm", "choices": None}
    >>> process_results(doc, ["<think>2 + 3</think><answer>5</answer>"])
    {'accuracy': 1.0}
    """
    row = _row(doc)
    (one,) = score([row], [Answer(row.index, results[0], True)])
    return {"accuracy": float(one.correct)}
