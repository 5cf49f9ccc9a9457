"""The benchmark's file, and a server that answers."""

import sys
import threading
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / folder) for folder in (".", "bench", "data/fixtures")]

import published
from chat_server import Server


@pytest.fixture(scope="session")
def tsv(tmp_path_factory):
    return published.write(tmp_path_factory.mktemp("published") / "r1-onevision.tsv")


@pytest.fixture
def chat_server():
    """A server whose `answers` reply to a text, and which refuses for good what contains `fails`.

    An answer is its text, or a mapping of the message's fields; None as text is what a cut-off thought leaves.
    """

    def behave(handler, text, before):
        if server.fails is not None and server.fails in text:
            handler.send('{"error": {"message": "no"}}', 400)
            return
        server.bodies.append(handler.body)
        answer = server.answers(text)
        fields = answer if isinstance(answer, dict) else {"content": answer}
        handler.reply(finish_reason="stop" if fields["content"] else "length", **fields)

    server = Server(behave)
    server.bodies, server.fails, server.answers = [], None, lambda text: ""
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
