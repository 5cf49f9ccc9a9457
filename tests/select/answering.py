"""Rows with and without images, and a server whose answers are right as often as a row says."""

import hashlib
import random
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))

import chat_server


def row(number, p, images=()):
    question = f"Row {number}: right {p} of the time?"
    return {
        "prompt": [{"role": "user", "content": question}],
        "images": list(images),
        "solution": str(number),
        "task": "number",
        "id": f"row-{number}",
        "source": "test",
    }


def picture(number):
    return Image.effect_noise((56, 28 * (1 + number % 2)), 90).convert("RGB")


def text_of(body):
    """The text of a request's last message, and the number of the row that it asks about."""
    content = body["messages"][-1]["content"]
    return "".join(block.get("text", "") for block in content)


def answer(body):
    """What the server says: a function of the request alone, right with the row's p."""
    text = text_of(body)
    number, p = text.split()[1].rstrip(":"), float(text.split("right ")[1].split()[0])
    draw = random.Random(hashlib.sha256(f"{text} {body.get('seed')}".encode()).hexdigest()).random()
    return f"<think>Hm.</think><answer>{number if draw < p else -1}</answer>"


class Scripted(chat_server.Server):
    """Answers as `answer` says, but for what `fails(text, how often it came before)` says: a status."""

    def __init__(self):
        super().__init__(self.reply)
        self.fails = lambda body, before: None
        self.on_request = lambda: None
        self.bodies, self.sent = [], {}

    def reply(self, handler, text, before):
        body = handler.body
        key = repr(sorted(body.items()))
        with self.lock:
            self.bodies.append(body)
            before = self.sent[key] = self.sent.get(key, -1) + 1
            self.on_request()
        if status := self.fails(body, before):
            handler.send('{"error": {"message": "no"}}', status)
        else:
            handler.reply(answer(body))
