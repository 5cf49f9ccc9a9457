"""The transport alone; what it does with a server that misbehaves is in rewards/test_judge.py."""

import asyncio
import dataclasses
import pickle
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from chat_server import Server

from trl_onevision.chat import LONGEST_REPLY, Budget, BudgetSpent, Chat, NoReply, Reply, Request, load

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        server = Server(behave)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(chat, *requests, together=True):
    async def run():
        async with chat.open() as line:
            if together:
                return await asyncio.gather(*map(line.ask, requests), return_exceptions=True)
            return [await line.ask(request) for request in requests]

    return asyncio.run(run())


def test_an_image_travels_before_its_text(serve):
    server = serve(lambda handler, text, before: handler.reply(handler.body["messages"][0]["content"][0]["type"]))
    (reply,) = ask(Chat("m", server.url), Request("What is it?", (PNG,)))
    assert reply == Reply("image_url", prompt_tokens=100, completion_tokens=20)
    assert list(server.seen) == ["What is it?"]


def test_model_options_text_image_and_seed_are_what_a_reply_is_known_by():
    chat, request = Chat("m"), Request("a", (PNG,))
    others = [
        Chat("n").key(request),
        Chat("m", options={"temperature": 1.0}).key(request),
        *(chat.key(dataclasses.replace(request, **{k: v})) for k, v in [("text", "b"), ("images", ()), ("seed", 1)]),
    ]
    assert len({chat.key(request), *others}) == 6
    assert Chat("m", "http://elsewhere", max_retries=9).key(Request("a", (PNG,))) == chat.key(request)


def test_a_seed_is_sent(serve):
    server = serve(lambda handler, text, before: handler.reply(str(handler.body.get("seed"))))
    assert [r.text for r in ask(Chat("m", server.url), Request("a"), Request("a", seed=7))] == ["None", "7"]


def test_equal_requests_under_way_share_one(serve):
    server = serve(lambda handler, text, before: handler.reply("yes"))
    assert [reply.text for reply in ask(Chat("m", server.url), *[Request("a")] * 20)] == ["yes"] * 20
    assert server.seen == {"a": 1}


def test_what_a_server_splits_off_and_where_it_cuts_is_kept(serve, tmp_path):
    def behave(handler, text, before):
        if text == "thinks":
            handler.reply(None, "length", reasoning_content="Let me see")
        else:
            handler.reply("x" * 10_000_000)

    chat = Chat("m", serve(behave).url, cache=tmp_path / "cache.sqlite")
    for cached in (False, True):
        thinks, long = ask(chat, Request("thinks"), Request("long"))
        assert (thinks.text, thinks.reasoning, thinks.cut) == ("", "Let me see", "at the server's limit of tokens")
        assert (len(long.text), long.cut) == (LONGEST_REPLY, "at 200,000 of its 10,000,000 characters")
        assert (thinks.cached, long.cached) == (cached, cached)


@pytest.mark.parametrize("reason, cut", [("stop", ""), ("length", "at the server's limit of tokens")])
def test_a_reply_that_ended_without_a_word_is_one(serve, reason, cut):
    server = serve(lambda handler, text, before: handler.reply(None, reason))
    (reply,) = ask(Chat("m", server.url), Request("a"))
    assert (reply.text, reply.reasoning, reply.cut) == ("", "", cut)


def test_a_reply_is_in_the_cache_before_the_next_request_is_sent(serve, tmp_path):
    cache, held = tmp_path / "cache.sqlite", []

    def behave(handler, text, before):
        rows = sqlite3.connect(cache).execute("SELECT count(*) FROM replies").fetchone()[0] if cache.exists() else 0
        held.append(rows)
        handler.reply(text)

    chat = Chat("m", serve(behave).url, cache=cache, max_concurrency=1)
    ask(chat, *map(Request, "abcdefgh"))
    assert held == list(range(8))


def test_a_cache_is_one_file_once_its_line_is_closed(serve, tmp_path):
    server = serve(lambda handler, text, before: handler.reply("yes"))

    async def asked():
        async with Chat("m", server.url, cache=tmp_path / "cache.sqlite").open() as line:
            await line.ask(Request("a"))
        return line

    line = asyncio.run(asked())  # which is still there: it is not the garbage collector that closes
    assert [path.name for path in tmp_path.iterdir()] == ["cache.sqlite"] and line.store.database is None


def test_servers_share_a_budget_and_cached_replies_are_free(serve, tmp_path):
    server = serve(lambda handler, text, before: handler.reply("yes"))
    budget = Budget(2)
    one, other = (Chat(name, server.url, cache=tmp_path / "c.sqlite", budget=budget) for name in "mn")
    ask(one, Request("a"), Request("a"))
    ask(one, Request("a"))
    ask(other, Request("a"))
    (spent,) = ask(other, Request("b"))
    assert isinstance(spent, BudgetSpent) and "budget of 2 requests" in str(spent)
    assert sum(server.seen.values()) == 2
    assert pickle.loads(pickle.dumps(one)).budget.spent == 2


def test_what_is_under_way_at_the_end_is_given_up(serve):
    release = threading.Event()
    server = serve(lambda handler, text, before: release.wait(30))
    replies = asyncio.run(Chat("m", server.url, max_retries=0).ask_all([Request("a"), Request("b")], deadline=0.5))
    release.set()
    assert {str(reply) for reply in replies.values()} == {"no reply within 0.5 seconds"}
    assert all(isinstance(reply, NoReply) for reply in replies.values())


@pytest.mark.parametrize("entry", ["not JSON", "[]", '{"text": "a", "of another version": 1}'])
def test_an_entry_that_cannot_be_read_is_asked_for_again(entry, tmp_path, caplog):
    path = tmp_path / f"{abs(hash(entry))}.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        database.execute("INSERT INTO replies VALUES ('k', ?)", (entry,))
    assert load(path, {"k"}) == {}
    assert str(path) in caplog.text


def test_importing_stays_light():
    heavy = ("torch", "trl", "transformers", "datasets", "numpy", "openai", "PIL")
    code = f"import sys, trl_onevision.chat; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
