"""Sampled answers to rows, by a checkpoint on this machine or by a server; a cache of them is how a run goes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trl_onevision.bench.local import Checkpoint
from trl_onevision.bench.predictions import fingerprint
from trl_onevision.chat import FAIR_TRIAL, Chat, Line, NoReply, Reply, Store, load
from trl_onevision.select.rows import Conversation, Rows, SelectError

IDLE_ROUNDS = 3
# Beyond OpenAI's parameters: without them vLLM and SGLang take what a checkpoint's generation_config says, and
# Qwen2.5-VL's says `top_k: 1`, of which every sample is the same.
UNFILTERED = {"top_k": -1, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: as `trl grpo` draws its rollouts, from the whole distribution."""

    k: int = 8
    blind: bool = False
    temperature: float = 1.0
    max_new_tokens: int = 1024
    batch_size: int = 8
    dtype: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 2 or not self.temperature > 0:
            raise ValueError(f"k {self.k}, temperature {self.temperature}: expected 2 or more, and more than 0")
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r}: expected bfloat16, float16 or float32")

    def samples(self, asked: Conversation) -> list[Conversation]:
        """The k requests for one prompt, which differ in their seeds."""
        return [replace(asked, seed=self.seed * self.k + number + 1) for number in range(self.k)]

    def prompts(self, rows: Rows, index: int) -> list[Conversation]:
        """A row's prompt, and its blind one where that is asked for and the row has an image."""
        both = (rows.asked(index), rows.asked(index, blind=True) if self.blind else None)
        return [prompt for prompt in both if prompt is not None]


class Engine:
    """Fills a cache with the answers to rows; what is in it is not asked again.

    `chat` names the cache, and by its model and options what its answers are known by.
    """

    def __init__(self, chat: Chat, sampling: Sampling) -> None:
        self.chat, self.sampling = chat, sampling

    def replies(self, asked: Conversation) -> list[Reply] | None:
        """The k answers to a prompt, or nothing where one is missing."""
        keys = [self.chat.key(sample) for sample in self.sampling.samples(asked)]
        known = load(self.chat.cache, set(keys))
        return [known[key] for key in keys] if len(known) == len(set(keys)) else None

    def fill(self, rows: Rows, tick: Callable[[], Any]) -> dict[int, str]:
        """Ask for what is missing; `tick` is called for each row that has its answers. Why rows can have none."""
        raise NotImplementedError


class Local(Engine):
    """A checkpoint's folder or hub id, by transformers, `batch_size` prompts at a time."""

    def __init__(self, model: str, sampling: Sampling, cache: Path) -> None:
        mark = fingerprint(Path(model)) if Path(model).exists() else model
        options = {name: getattr(sampling, name) for name in ("k", "temperature", "max_new_tokens", "batch_size")}
        super().__init__(Chat(mark, cache=cache, options={**options, "dtype": sampling.dtype}), sampling)
        self.model = model

    def fill(self, rows: Rows, tick: Callable[[], Any]) -> dict[int, str]:
        store, checkpoint = Store(self.chat.cache), None
        for blind, batch in self._batches(rows):
            prompts = [prompt for index in batch if (prompt := rows.asked(index, blind)) is not None]
            if not all(map(self.replies, prompts)):
                checkpoint = checkpoint or Checkpoint.load(self.model, self.sampling.dtype)
                self._sample(checkpoint, prompts, store)
            for _ in batch if blind == self.sampling.blind else ():
                tick()
        store.close()
        return {}

    def _batches(self, rows: Rows) -> Iterator[tuple[bool, list[int]]]:
        """Rows of like size together, text apart from images: the same batches whatever is known already."""
        prompts = ((index, rows.asked(index)) for index in range(len(rows)))
        sizes = [(sum(map(len, p.images)) // 1000, len(p.text), index, bool(p.images)) for index, p in prompts if p]
        for blind in (False, True) if self.sampling.blind else (False,):
            for has_image in (True, False):
                order = [index for *_, index, has in sorted(sizes, reverse=True) if has == has_image]
                for start in range(0, len(order), self.sampling.batch_size):
                    yield blind, order[start : start + self.sampling.batch_size]

    def _sample(self, checkpoint: Checkpoint, prompts: list[Conversation], store: Store) -> None:
        import torch

        samples = [sample for prompt in prompts for sample in self.sampling.samples(prompt)]
        keys = [self.chat.key(sample) for sample in samples]
        # What a batch is answered follows from the batch alone, wherever a run was stopped
        torch.manual_seed(int(hashlib.sha256("".join(keys).encode()).hexdigest()[:15], 16))
        said = checkpoint.answer(
            [prompt.shown() for prompt in prompts],
            self.sampling.max_new_tokens,
            num_return_sequences=self.sampling.k,
            do_sample=True,
            temperature=self.sampling.temperature,
            top_p=1.0,
            top_k=0,
            repetition_penalty=1.0,
        )
        for key, one in zip(keys, said, strict=True):
            store.put(key, Reply(one.text, cut="" if one.finished else "at --max-new-tokens"))


class Server(Engine):
    """Any server that speaks OpenAI's chat completions, `batch_size` requests at a time."""

    def __init__(
        self, server: str, model: str, sampling: Sampling, cache: Path, extra: dict[str, Any] | None = None
    ) -> None:
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        if extra := UNFILTERED if extra is None else extra:
            options["extra_body"] = extra
        concurrency = sampling.batch_size
        chat = Chat(model, server, max_concurrency=concurrency, timeout=600.0, cache=cache, options=options)
        super().__init__(chat, sampling)

    def fill(self, rows: Rows, tick: Callable[[], Any]) -> dict[int, str]:
        """As `Engine.fill`. What failed is asked again, what was refused is not.

        Raises `SelectError` where no request is answered, and where `IDLE_ROUNDS` in a row brought nothing.
        """
        todo, refused, idle = list(range(len(rows))), dict[int, str](), IDLE_ROUNDS - 1
        while todo:
            answered, failed = asyncio.run(self._ask_all(rows, todo, tick))
            idle = 0 if answered else idle + 1
            refused |= {index: str(error) for index, error in failed.items() if error.refused}
            todo = [index for index in failed if index not in refused]
            if len(refused) == len(rows) or (todo and idle == IDLE_ROUNDS):
                index, error = next(iter(failed.items()))
                raise SelectError(
                    f"{self.chat.base_url}: {len(failed)} of {len(rows)} rows have no answers, the first: row "
                    f"{rows.name(index)}: {error}. Check that the server is up and has a model named "
                    f"{self.chat.model!r}; what was answered is kept, and the same command asks for the rest."
                )
        return refused

    async def _ask_all(self, rows: Rows, todo: list[int], tick: Callable[[], Any]) -> tuple[int, dict[int, NoReply]]:
        """One round: how many requests were answered, and the rows of those that were not."""
        ready = asyncio.Semaphore(self.chat.max_concurrency)  # rows with their images, not those of the whole data
        answered, failed = 0, dict[int, NoReply]()
        trial = max(self.chat.max_concurrency, FAIR_TRIAL)

        async def ask(line: Line, index: int) -> None:
            nonlocal answered
            async with ready:
                if not answered and len(failed) >= trial:  # a wrong address fails for every row
                    failed[index] = NoReply("not sent")
                    return
                wanted = await asyncio.to_thread(self._missing, rows, index)
                replies = await asyncio.gather(*map(line.ask, wanted), return_exceptions=True)
            for reply in replies:
                if isinstance(reply, NoReply):
                    failed[index] = reply
                elif isinstance(reply, BaseException):
                    raise reply
            answered += sum(isinstance(reply, Reply) for reply in replies)
            if index not in failed:
                tick()

        async with self.chat.open() as line, asyncio.TaskGroup() as group:
            for index in todo:
                group.create_task(ask(line, index))
        return answered, failed

    def _missing(self, rows: Rows, index: int) -> list[Conversation]:
        samples = [s for prompt in self.sampling.prompts(rows, index) for s in self.sampling.samples(prompt)]
        known = load(self.chat.cache, set(map(self.chat.key, samples)))
        return [sample for sample in samples if self.chat.key(sample) not in known]
