"""A checkpoint that nobody trained, and the benchmark's file."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "data" / "fixtures"))

import published

from trl_onevision.quickstart.model import build_model, build_processor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    processor = build_processor()
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tsv(tmp_path_factory):
    return published.write(tmp_path_factory.mktemp("published") / "r1-onevision.tsv")


class ChatServer(ThreadingHTTPServer):
    """OpenAI's chat completions, answered by `answers`; what contains `fails` is refused for good.

    An answer is its text, or a mapping of the message's fields; None as text is what a cut-off thought leaves.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.bodies, self.fails, self.answers = [], None, lambda text: ""
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class ChatHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        refused = self.server.fails is not None and self.server.fails in text
        if not refused:
            self.server.bodies.append(body)
        answer = self.server.answers(text)
        message = {"role": "assistant"} | (answer if isinstance(answer, dict) else {"content": answer})
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        reply["choices"] = [
            {"index": 0, "message": message, "finish_reason": "stop" if message["content"] else "length"}
        ]
        data = json.dumps({"error": {"message": "no"}} if refused else reply).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def chat_server():
    server = ChatServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
