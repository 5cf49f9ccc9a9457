"""A model's answers to the benchmark: transformers in length-sorted batches, or any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from io import BytesIO
from string import ascii_uppercase
from typing import Any

from PIL import Image

from trl_onevision.answers.choice import without_label
from trl_onevision.answers.extract import full_text
from trl_onevision.bench.local import Checkpoint
from trl_onevision.bench.tsv import BenchRow
from trl_onevision.chat import FAIR_TRIAL, Chat, Line, NoReply, Request
from trl_onevision.data.images import PixelGrid, store_image
from trl_onevision.data.prompts import IMAGE, find_prompt, user_messages, with_choices
from trl_onevision.data.questions import read_choices


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Generation:
    """How answers are made: all that, with the model and the file, decides what they are.

    Decoding is greedy, as the released settings (top_k 1) amount to, with their repetition penalty and length.
    `max_pixels` is Qwen2.5-VL's own bound; larger images are reduced.
    """

    prompt: str = "think-answer"
    max_new_tokens: int = 4096
    repetition_penalty: float = 1.05
    max_pixels: int = 12_845_056
    batch_size: int = 8
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        find_prompt(self.prompt)
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r}: expected bfloat16, float16 or float32")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty {self.repetition_penalty}: expected more than 0; 1.0 for none")


@dataclass(frozen=True)
class Answer:
    """What a model said to one row, and whether it came to an end by itself."""

    index: str
    completion: str
    finished: bool


def question_of(row: BenchRow) -> str:
    """The question with its options, unless it lists them already; the image stands before it, whatever it marks.

    >>> row = BenchRow("1", "<image>Which colour?", ["red", "B. blue"], True, "A", "College", "Math", "")
    >>> print(question_of(row))
    Which colour?
    Choices:
    A. red
    B. blue
    """
    question = row.question.replace(IMAGE, "").strip()
    options = [without_label(option, label) for option, label in zip(row.choices or [], ascii_uppercase, strict=False)]
    return question if len(read_choices(question) or []) == len(options) else with_choices(question, options)


def batches(rows: Sequence[BenchRow], size: int, done: Set[str] = frozenset()) -> list[list[BenchRow]]:
    """Rows of like length together, the longest first, without the batches that are done.

    >>> rows = [BenchRow(str(n), "x" * n, None, False, "1", "College", "Math", "") for n in (1, 4, 2, 3)]
    >>> [[row.index for row in batch] for batch in batches(rows, 2, done={"4", "3", "2"})]
    [['2', '1']]

    A batch is the same whatever is done: a run that goes on computes what it would have computed at once.
    """
    by_length = sorted(rows, key=lambda row: (-len(row.image) // 1000, -len(row.question), row.index))
    whole = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    return [batch for batch in whole if not all(row.index in done for row in batch)]


def answer_locally(model: str, rows: Sequence[BenchRow], settings: Generation, done: Set[str]) -> Iterator[Answer]:
    """Greedy answers of a checkpoint, on a GPU where there is one."""
    todo = batches(rows, settings.batch_size, done)
    if not todo:
        return
    checkpoint = Checkpoint.load(model, settings.dtype)
    for batch in todo:
        said = checkpoint.answer(
            [_messages(row, settings) for row in batch],
            settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        for row, one in zip(batch, said, strict=True):
            if row.index not in done:
                yield Answer(row.index, one.text, one.finished)


async def answer_by_server(
    server: str, model: str, rows: Sequence[BenchRow], settings: Generation, keep: Callable[[Answer], None]
) -> None:
    """Answers of a server that speaks OpenAI's chat completions (vLLM, SGLang, a hosted one), kept as they arrive.

    `batch_size` requests run at a time; a failed one is retried by the client and then left for the next run.
    Where the first ones all fail, the others are not sent.
    """
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": settings.max_new_tokens}
    if settings.repetition_penalty != 1.0:  # beyond OpenAI's own parameters; vLLM and SGLang read it
        options["extra_body"] = {"repetition_penalty": settings.repetition_penalty}
    chat = Chat(model, server, max_concurrency=settings.batch_size, timeout=600.0, options=options)
    ready = asyncio.Semaphore(settings.batch_size)  # requests with their images: not those of the whole file
    answered, failures = 0, list[str]()

    async def ask(line: Line, row: BenchRow) -> None:
        nonlocal answered
        async with ready:
            if not answered and len(failures) >= max(settings.batch_size, FAIR_TRIAL):
                return
            try:
                text, image = _asked(row, settings)
                reply = await line.ask(Request(text, (image,)))
            except NoReply as error:
                failures.append(f"row {row.index}: {str(error).rstrip('.')}")
                return
        answered += 1
        # With the reasoning that a server splits off.
        completion = full_text({"reasoning": reply.reasoning, "content": reply.text})
        keep(Answer(row.index, completion, not reply.cut))

    async with chat.open() as line:
        await asyncio.gather(*(ask(line, row) for row in rows))
    if not failures:
        return
    asked = f"{len(failures)} of {len(rows)} requests"
    if answered:
        raise BenchError(
            f"{server}: {asked} failed, the first: {failures[0]}. What was answered is kept; the same command "
            "asks for the rest."
        )
    raise BenchError(
        f"{server}: no answer to the first {asked}, the first: {failures[0]}. Check that the server is up and "
        f"has a model named {model!r}; the same command asks again."
    )


def _asked(row: BenchRow, settings: Generation) -> tuple[str, bytes]:
    """The prompt's text, and the file of the row's image, which stands before it."""
    stored = store_image(f"data:;base64,{row.image}", PixelGrid.of(1, max_pixels=settings.max_pixels))
    (message,) = user_messages(question_of(row), find_prompt(settings.prompt), n_images=1)
    return message["content"][-1]["text"], stored.data


def _messages(row: BenchRow, settings: Generation) -> list[dict[str, Any]]:
    text, image = _asked(row, settings)
    picture = {"type": "image", "image": Image.open(BytesIO(image)).convert("RGB")}
    return [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]
