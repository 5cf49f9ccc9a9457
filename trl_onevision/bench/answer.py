"""What is asked about a row of the benchmark, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from trl_onevision.answers.choice import without_label
from trl_onevision.answers.extract import full_text
from trl_onevision.bench.tsv import BenchRow
from trl_onevision.chat import Reply
from trl_onevision.data.images import PixelGrid, store_image
from trl_onevision.data.prompts import IMAGE, find_prompt, user_messages, with_choices
from trl_onevision.data.questions import read_choices
from trl_onevision.engine import Conversation, Sampling

# The released settings: greedy, as top_k 1 amounts to
RELEASED = Sampling(k=1, temperature=0.0, repetition_penalty=1.05, max_new_tokens=4096)


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Answer:
    """What a model said to one row, and whether it came to an end by itself."""

    index: str
    completion: str
    finished: bool

    @classmethod
    def of(cls, row: BenchRow, reply: Reply) -> Answer:
        """With the reasoning that a server splits off."""
        return cls(row.index, full_text({"reasoning": reply.reasoning, "content": reply.text}), not reply.cut)


def question_of(row: BenchRow) -> str:
    """The question with its options, unless it lists them already; the image stands before it, whatever it marks.

    >>> row = BenchRow("1", "<image>Which colour?", ["red", "B. blue"], "A", "College", "Math", "")
    >>> print(question_of(row))
    Which colour?
    Choices:
    A. red
    B. blue
    """
    question = row.question.replace(IMAGE, "").strip()
    options = [without_label(option, label) for option, label in zip(row.choices or [], ascii_uppercase, strict=False)]
    return question if len(read_choices(question) or []) == len(options) else with_choices(question, options)


class Questions:
    """The rows as an engine asks them: in a prompt, with images of at most `max_pixels`."""

    def __init__(self, rows: Sequence[BenchRow], prompt: str, max_pixels: int) -> None:
        grid, template = PixelGrid.of(1, max_pixels=max_pixels), find_prompt(prompt)
        self.rows = rows
        self.prompts = [
            Conversation(
                json.dumps(user_messages(question_of(row), template, n_images=1), ensure_ascii=False),
                (store_image(f"data:;base64,{row.image}", grid).data,),
            )
            for row in rows
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """The row's index."""
        return self.rows[index].index

    def asked(self, index: int, blind: bool = False) -> Conversation:
        """The image, then the question."""
        return self.prompts[index]
