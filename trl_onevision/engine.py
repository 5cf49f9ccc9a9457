"""Answers of a model to rows, by a checkpoint on this machine or by a server; a cache of them is how a run goes on.

What `trl-onevision bench` and `trl-onevision select` stand on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from rich.console import Console

from trl_onevision.chat import FAIR_TRIAL, Chat, Line, NoReply, Reply, Request, Store, data_url, load
from trl_onevision.console import progress

IDLE_ROUNDS = 3
# Beyond OpenAI's parameters: without them vLLM and SGLang take what a checkpoint's generation_config says, and
# Qwen2.5-VL's says `top_k: 1`, of which every sample is the same.
UNFILTERED = {"top_k": -1, "repetition_penalty": 1.0}


class EngineError(RuntimeError):
    """The answers are not all there; the message says why and what to do."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: as `trl grpo` draws its rollouts, of all that is likely; at temperature 0 greedily."""

    k: int = 8
    blind: bool = False
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 1024
    batch_size: int = 8
    dtype: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.k < 1 or (self.k > 1 and not self.temperature):
            raise ValueError(
                f"k {self.k}, temperature {self.temperature}: expected 1 or more, and for several above 0"
            )
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty {self.repetition_penalty}: expected more than 0; 1.0 for none")
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r}: expected bfloat16, float16 or float32")

    def samples(self, asked: Conversation) -> list[Conversation]:
        """The k requests for one prompt, which differ in their seeds; the greedy one needs none."""
        if not self.temperature:
            return [asked]
        return [replace(asked, seed=self.seed * self.k + number + 1) for number in range(self.k)]


@dataclass(frozen=True, order=True)
class Conversation(Request):
    """A prompt of several messages: `text` is their JSON, in which an image block stands where each image belongs.

    >>> Conversation('[{"role": "user", "content": [{"type": "text", "text": "How many?"}]}]').messages()
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'How many?'}]}]
    """

    def messages(self) -> list[dict[str, Any]]:
        """The messages as a server takes them."""
        urls = ({"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images)
        return self._with(urls)

    def shown(self) -> list[dict[str, Any]]:
        """The messages as a processor takes them."""
        return self._with({"type": "image", "image": Image.open(BytesIO(data)).convert("RGB")} for data in self.images)

    def _with(self, images: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = json.loads(self.text)
        for message in messages:
            message["content"] = [next(images) if b["type"] == "image" else b for b in message["content"]]
        return messages


class Prompts(Protocol):
    """Rows, as an engine asks about them."""

    def __len__(self) -> int:
        """How many rows there are."""

    def name(self, index: int) -> str:
        """What an error calls a row."""

    def asked(self, index: int, blind: bool = False) -> Conversation | None:
        """What is asked about a row; blind, without what its images show: nothing, where it has none."""


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

    def ask(self, rows: Prompts, console: Console) -> dict[int, str]:
        """Ask for what is missing. Why rows can have no answer, by their places.

        Raises `EngineError` where it was stopped or a server answers no more, and `ValueError` on what is no model.
        """
        with progress(console) as bars:
            task = bars.add_task("asking", total=len(rows))
            try:
                return self._fill(rows, lambda: bars.advance(task))
            except KeyboardInterrupt:
                raise EngineError(
                    f"Stopped; what was answered is kept in {self.chat.cache}. The same command goes on."
                ) from None

    def _fill(self, rows: Prompts, tick: Callable[[], Any]) -> dict[int, str]:
        """As `ask`; `tick` is called for each row that has its answers."""
        raise NotImplementedError


class Local(Engine):
    """A checkpoint's folder or hub id, by transformers, `batch_size` prompts at a time."""

    def __init__(self, model: str, sampling: Sampling, cache: Path) -> None:
        mark = fingerprint(Path(model)) if Path(model).exists() else model
        decisive = ("k", "temperature", "repetition_penalty", "max_new_tokens", "batch_size", "dtype")
        options = {name: getattr(sampling, name) for name in decisive}
        super().__init__(Chat(mark, cache=cache, options=options), sampling)
        self.model = model

    def _fill(self, rows: Prompts, tick: Callable[[], Any]) -> dict[int, str]:
        checkpoint = None
        with closing(Store(self.chat.cache)) as store:
            for blind, batch in self._batches(rows):
                prompts = [prompt for index in batch if (prompt := rows.asked(index, blind)) is not None]
                if not all(map(self.replies, prompts)):
                    checkpoint = checkpoint or Checkpoint.load(self.model, self.sampling.dtype)
                    self._sample(checkpoint, prompts, store)
                for _ in batch if blind == self.sampling.blind else ():
                    tick()
        return {}

    def _batches(self, rows: Prompts) -> Iterator[tuple[bool, list[int]]]:
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

        sampling = self.sampling
        samples = [sample for prompt in prompts for sample in sampling.samples(prompt)]
        keys = [self.chat.key(sample) for sample in samples]
        # What a batch is answered follows from the batch alone, wherever a run was stopped
        torch.manual_seed(int(hashlib.sha256("".join(keys).encode()).hexdigest()[:15], 16))
        drawn = {"temperature": sampling.temperature, "top_p": 1.0, "top_k": 0}
        said = checkpoint.answer(
            [prompt.shown() for prompt in prompts],
            sampling.max_new_tokens,
            num_return_sequences=sampling.k,
            do_sample=sampling.temperature > 0,
            repetition_penalty=sampling.repetition_penalty,
            **(drawn if sampling.temperature else dict.fromkeys(drawn)),
        )
        for key, reply in zip(keys, said, strict=True):
            store.put(key, reply)


class Server(Engine):
    """Any server that speaks OpenAI's chat completions, `batch_size` requests at a time.

    `extra` goes into each request beyond OpenAI's own parameters, `UNFILTERED` unless given.
    """

    def __init__(
        self, server: str, model: str, sampling: Sampling, cache: Path, extra: dict[str, Any] | None = None
    ) -> None:
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        if extra := UNFILTERED if extra is None else extra:
            options["extra_body"] = extra
        concurrency = sampling.batch_size
        chat = Chat(model, server, max_concurrency=concurrency, timeout=600.0, cache=cache, options=options)
        super().__init__(chat, sampling)

    def _fill(self, rows: Prompts, tick: Callable[[], Any]) -> dict[int, str]:
        """As `ask`. What failed is asked again, what was refused is not.

        Raises `EngineError` where no request is answered, and where `IDLE_ROUNDS` in a row brought nothing.
        """
        todo, refused, idle = list(range(len(rows))), dict[int, str](), IDLE_ROUNDS - 1
        while todo:
            try:
                answered, failed = asyncio.run(self._ask_all(rows, todo, tick))
            except ExceptionGroup as group:  # of the tasks, one that could not read its row
                raise group.exceptions[0] from None
            idle = 0 if answered else idle + 1
            refused |= {index: str(error) for index, error in failed.items() if error.refused}
            todo = [index for index in failed if index not in refused]
            if len(refused) == len(rows) or (todo and idle == IDLE_ROUNDS):
                index, error = min(failed.items(), key=lambda item: item[0])
                raise EngineError(
                    f"{self.chat.base_url}: {len(failed)} of {len(rows)} rows have no answers, the first: row "
                    f"{rows.name(index)}: {str(error).rstrip('.')}. Check that the server is up and has a model named "
                    f"{self.chat.model!r}; what was answered is kept, and the same command asks for the rest."
                )
        return refused

    async def _ask_all(
        self, rows: Prompts, todo: list[int], tick: Callable[[], Any]
    ) -> tuple[int, dict[int, NoReply]]:
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

    def _missing(self, rows: Prompts, index: int) -> list[Conversation]:
        """What is still to be asked about a row, the blind question too where that is wanted."""
        prompts = (rows.asked(index), rows.asked(index, blind=True) if self.sampling.blind else None)
        samples = [sample for prompt in prompts if prompt for sample in self.sampling.samples(prompt)]
        known = load(self.chat.cache, set(map(self.chat.key, samples)))
        return [sample for sample in samples if self.chat.key(sample) not in known]


class Checkpoint:
    """A model for images and text with its processor, which pads on the left."""

    def __init__(self, network: Any, processor: Any) -> None:
        self.network, self.processor = network, processor
        end = network.generation_config.eos_token_id
        self.ends = set(end) if isinstance(end, list) else {end}

    @classmethod
    def load(cls, model: str, dtype: str) -> Checkpoint:
        """From a folder or a hub id, onto a GPU where there is one.

        Raises `ValueError` where `model` cannot be loaded as a model for images and text.
        """
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(model, padding_side="left")
            network = AutoModelForImageTextToText.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"--model {model}: cannot be loaded as a model for images and text: {error}") from error
        return cls(network.to("cuda" if torch.cuda.is_available() else "cpu"), processor)

    def answer(self, conversations: Sequence[Any], max_new_tokens: int, **decoding: Any) -> list[Reply]:
        """Answers to conversations whose image blocks hold PIL images; `decoding` goes to `generate`.

        With `num_return_sequences=k`, the `k` answers of a conversation stand beside each other.
        """
        import torch

        inputs = self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        ).to(self.network.device)
        with torch.inference_mode():
            sequences = self.network.generate(**inputs, max_new_tokens=max_new_tokens, **decoding)
        answered = sequences[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answered, skip_special_tokens=True)
        return [self._reply(ids, text) for ids, text in zip(answered.tolist(), texts, strict=True)]

    def _reply(self, ids: list[int], text: str) -> Reply:
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        cut = "at --max-new-tokens" if end is None else ""
        return Reply(text, cut=cut, completion_tokens=len(ids) if end is None else end + 1)


def fingerprint(path: Path) -> str:
    """What tells a file from another by its content, or a folder of weights from another without reading them all."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    # Weights lie flat; folders within may be earlier checkpoints, or this benchmark's own report.
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".bin", ".json", ".jinja"))
    named = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
