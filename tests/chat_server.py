"""A server on this machine that speaks OpenAI's chat completions and does as a test tells it."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers each request with `behave(handler, text of the request, how often it came before)`."""

    daemon_threads = True

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.lock = threading.Lock()
        self.seen = Counter()
        self.headers = []
        self.running = self.most_running = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that gave up is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = text_of(body)
        self.body = body
        with server.lock:
            before = server.seen[text]
            server.seen[text] += 1
            server.headers.append(self.headers)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            server.behave(self, text, before)
        finally:
            with server.lock:
                server.running -= 1

    def send(self, body, status=200, content_type="application/json", headers=()):
        body = body.encode()
        self.send_response(status)
        for name, value in [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reply(self, content, finish_reason="stop", **message):
        choice = {
            "index": 0,
            "finish_reason": finish_reason,
            "message": {"role": "assistant", "content": content, **message},
        }
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        self.send(json.dumps({**head, "choices": [choice], "usage": usage}))

    def log_message(self, *args):
        """Quiet."""


def text_of(body):
    """The text of a request's only message."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
