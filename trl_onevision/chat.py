"""Asking a model behind any server that speaks OpenAI's chat completions: bounded, retried, cached, within a budget.

What the judge rewards, `trl-onevision formalize` and `trl-onevision bench` stand on. Only the standard library, and
`openai` once something is asked: `pip install "trl-onevision[judge]"`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FAIR_TRIAL = 8  # requests: one may fail by itself, for its length say, but a wrong address fails for every one
REFUSED = (400, 413, 422)  # what a server says of a prompt that is too long, or of an image that it cannot read
LONGEST_REPLY = 200_000  # characters that are kept of a reply; no stage and no judge has use for more

_budget_lock = threading.Lock()  # the module's own, because an instance with a lock does not pickle


@dataclass(frozen=True, order=True)
class Request:
    """One user message: its text, and before it its images as the bytes of their files.

    Another `seed` is another sample of the same question; it is sent, and part of what the cache knows a reply by.
    """

    text: str
    images: tuple[bytes, ...] = ()
    seed: int = 0

    def message(self) -> dict[str, Any]:
        """The message as the protocol has it.

        >>> Request("How many?").message(), Request("How many?", (b"\\xff\\xd8",)).message()["content"][0]["image_url"]
        ({'role': 'user', 'content': 'How many?'}, {'url': 'data:image/jpeg;base64,/9g='})
        """
        if not self.images:
            return {"role": "user", "content": self.text}
        blocks: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(i)}} for i in self.images]
        return {"role": "user", "content": [*blocks, {"type": "text", "text": self.text}]}

    def messages(self) -> list[dict[str, Any]]:
        """All that is sent."""
        return [self.message()]


def data_url(image: bytes) -> str:
    """A JPEG's or a PNG's bytes as a URL that holds them."""
    kind = "jpeg" if image[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@dataclass(frozen=True)
class Reply:
    """What a model said; `reasoning` is what its server split off, `cut` says where the reply ends before its end."""

    text: str
    reasoning: str = ""
    cut: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = field(default=False, compare=False)


class NoReply(RuntimeError):
    """A request failed for good; the message says how. `refused` says that it would fail again, for what it is."""

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class BudgetSpent(NoReply):
    """The request was not sent."""


@dataclass
class Budget:
    """A bound on the requests of a process, for one server or for several together. A retry is not counted."""

    requests: int
    spent: int = 0

    def take(self) -> bool:
        """Whether one more may be sent, which is then counted.

        >>> budget = Budget(1)
        >>> budget.take(), budget.take()
        (True, False)
        """
        with _budget_lock:
            granted = self.spent < self.requests
            self.spent += granted
        return granted


@dataclass(eq=False)
class Chat:
    """A model behind an OpenAI-compatible server.

    >>> chat = Chat("Qwen/Qwen3-32B", "http://127.0.0.1:8000/v1", cache="replies.sqlite")
    >>> asyncio.run(chat.ask_all([], deadline=60.0))
    {}

    - `max_concurrency` requests run at a time. A failed connection, a time-out, 408, 409, 429 and 5xx are retried
      `max_retries` times with growing pauses, or as the server's `Retry-After` says; `timeout` seconds bound each.
    - `cache` is a file of past replies (SQLite), shared by processes and runs; another model, option or request is
      another entry. A reply is in it before the next request is sent: a process that is killed loses what was under
      way, and nothing that had come.
    - `budget` bounds the requests of a process. `options` go into each. The API key is read from the environment
      variable `api_key_env`, so that it is never in a recipe or a pickle; a server that asks for none needs none.
    """

    model: str
    base_url: str | None = None
    _: KW_ONLY
    max_concurrency: int = 16
    max_retries: int = 4
    timeout: float = 60.0
    cache: str | os.PathLike | None = None
    budget: Budget | None = None
    options: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    api_key_env: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        if self.max_concurrency < 1 or not self.timeout > 0:
            raise ValueError("max_concurrency and timeout must be positive")

    async def ask_all(self, requests: Iterable[Request], deadline: float) -> dict[Request, Reply | NoReply]:
        """A reply, or why there is none, to each request, within `deadline` seconds. Equal ones are sent once."""
        keys = {request: self.key(request) for request in requests}
        known = load(self.cache, set(keys.values()))
        replies: dict[Request, Reply | NoReply] = {r: known[key] for r, key in keys.items() if key in known}
        if unknown := sorted(keys.keys() - replies.keys()):
            async with self.open() as line:
                asked = [line.ask_within(deadline, request) for request in unknown]
                replies |= zip(unknown, await asyncio.gather(*asked), strict=True)
        return replies

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Line]:
        """A connection, for one event loop as its client is; what is under way at its end is given up."""
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ImportError('asking a server needs openai: pip install "trl-onevision[judge]"') from error
        client = AsyncOpenAI(
            api_key=os.environ.get(self.api_key_env) or "none",
            base_url=self.base_url,
            max_retries=self.max_retries,
            timeout=self.timeout,
        )
        async with client:
            line = Line(self, client)
            try:
                yield line
            finally:
                await line.give_up()

    def key(self, request: Request) -> str:
        """What the cache knows a reply by: model, options, and all of the request."""
        images = [hashlib.sha256(image).hexdigest() for image in request.images]
        named = json.dumps([self.model, self.options, request.text, images, request.seed], sort_keys=True)
        return hashlib.sha256(named.encode()).hexdigest()


class Line:
    """An open connection to a chat's server."""

    def __init__(self, chat: Chat, client: Any) -> None:
        self.chat, self.client = chat, client
        self.running = asyncio.Semaphore(chat.max_concurrency)
        self.under_way: dict[str, asyncio.Task[Reply]] = {}
        self.store = Store(chat.cache)

    async def ask(self, request: Request) -> Reply:
        """The reply, from the cache if it is there; `NoReply` where none came. Equal requests under way share one."""
        key = self.chat.key(request)
        if key not in self.under_way:
            if reply := load(self.chat.cache, {key}).get(key):
                return reply
            task = self.under_way[key] = asyncio.create_task(self._send(request, key))
            task.add_done_callback(lambda _: self.under_way.pop(key, None))
        return await asyncio.shield(self.under_way[key])

    async def ask_within(self, deadline: float, request: Request) -> Reply | NoReply:
        """The reply, or why there is none, after `deadline` seconds at the latest."""
        try:
            async with asyncio.timeout(deadline):
                return await self.ask(request)
        except TimeoutError:
            return NoReply(f"no reply within {deadline} seconds")
        except NoReply as error:
            return error

    async def give_up(self) -> None:
        """Cancel what is under way, and close the cache."""
        tasks = list(self.under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.store.close()

    async def _send(self, request: Request, key: str) -> Reply:
        from openai import OpenAIError

        chat = self.chat
        async with self.running:
            if chat.budget is not None and not chat.budget.take():
                raise BudgetSpent(f"the budget of {chat.budget.requests} requests is spent")
            options = chat.options | ({"seed": request.seed} if request.seed else {})
            try:
                reply = _read(
                    await self.client.chat.completions.create(model=chat.model, messages=request.messages(), **options)
                )
            # A body that is no chat completion comes back as text, as an empty object or not at all.
            except (OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
                refused = getattr(error, "status_code", None) in REFUSED
                raise NoReply(f"{type(error).__name__}: {str(error)[:200]}", refused) from error
            self.store.put(key, reply)
        return reply


def _read(completion: Any) -> Reply:
    choice = completion.choices[0]
    message = choice.message
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    reasoning = reasoning if isinstance(reasoning, str) else ""
    ended = choice.finish_reason in ("stop", "length", "content_filter")  # saying null where it says nothing
    text = "" if message.content is None and (reasoning or ended) else message.content
    if not isinstance(text, str):
        raise TypeError(f"a reply without text: {text!r}"[:200])
    cut = "at the server's limit of tokens" if choice.finish_reason == "length" else ""
    if max(len(text), len(reasoning)) > LONGEST_REPLY:
        cut = f"at {LONGEST_REPLY:,} of its {max(len(text), len(reasoning)):,} characters"
    usage = getattr(completion, "usage", None)
    return Reply(
        text[:LONGEST_REPLY],
        reasoning[:LONGEST_REPLY],
        cut,
        int(getattr(usage, "prompt_tokens", None) or 0),
        int(getattr(usage, "completion_tokens", None) or 0),
    )


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def load(path: str | os.PathLike | None, keys: set[str]) -> dict[str, Reply]:
    """The replies that a cache holds to some keys."""
    if path is None or not Path(path).exists():
        return {}
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            found = {
                key: database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone() for key in keys
            }
        return {key: replace(Reply(**json.loads(row[0])), cached=True) for key, row in found.items() if row}
    except (sqlite3.Error, ValueError, TypeError) as error:
        _warn_once(f"the cache {path} cannot be read, so everything is asked again: {error}")
        return {}


class Store:
    """A cache that is written to. Its log lets a reply be kept without waiting for the disk, and outlives a kill."""

    def __init__(self, path: str | os.PathLike | None) -> None:
        self.path = None if path is None else Path(path)
        self.database: sqlite3.Connection | None = None

    def put(self, key: str, reply: Reply) -> None:
        """Keep one reply."""
        if self.path is None:
            return
        try:
            if self.database is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.database = sqlite3.connect(self.path, timeout=30)
                self.database.execute("PRAGMA journal_mode = WAL")
                self.database.execute("PRAGMA synchronous = NORMAL")
            with self.database:
                self.database.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
                self.database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))
        except (sqlite3.Error, OSError) as error:
            _warn_once(f"the cache {self.path} cannot be written: {error}")

    def close(self) -> None:
        """Fold the log into the file."""
        if self.database is not None:
            self.database.close()
            self.database = None
