"""Charts of known data, and a server that plays both models and makes the mistakes that a test asks for."""

import base64
import csv
import json
import random
import re
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.append(str(Path(__file__).parents[1]))

from chat_server import Server, text_of

from trl_onevision.chat import Chat, Request

BROKEN_CHART = "flowchart LR\nA[one --> B"
# Where a row with a fault must end; `None`: it passes after all.
ENDS = {
    "": None,
    "wrong cell": "consistency",
    "wrong answer": "answer",
    "answer lost": "answer",
    "leak": "leak",
    "rewritten": "rewrite",
    "broken csv": "parse",
    "broken mermaid": "parse",
    "repaired": None,
    "not valid": "verify",
    "500 once": None,
    "500 always": "reason",
    "slow once": None,
    "cut": "reason",
    "cut formal": "formal",
    "huge": "formal",
    "no kind": "kind",
    "not json": "verify",
}


@dataclass(frozen=True)
class Chart:
    number: int
    fault: str
    table: tuple
    asked: int

    @property
    def id(self):
        return f"chart-{self.number}"

    @property
    def kind(self):
        return "flowchart" if "mermaid" in self.fault else "chart"

    @property
    def question(self):
        return f"What is the sales of {self.table[self.asked][0]}?"

    @property
    def gold(self):
        return self.table[self.asked][1]

    def csv(self, wrong=False):
        cells = [(name, value + (7 if wrong and i == self.asked else 0)) for i, (name, value) in enumerate(self.table)]
        return "\n".join(["city,sales", *(f"{name},{value}" for name, value in cells)])

    def image(self):
        picture = Image.new("RGB", (112, 112), "white")
        draw = ImageDraw.Draw(picture)
        for index, (_, value) in enumerate(self.table):
            draw.rectangle((10 + 32 * index, 104 - value, 30 + 32 * index, 104), fill=("red", "green", "blue")[index])
        # The number as a row of dots: every image is another, and the server knows it again.
        for bit in range(12):
            if self.number >> bit & 1:
                draw.rectangle((4 + 8 * bit, 2, 8 + 8 * bit, 6), fill="black")
        return picture


def charts(faults, seed=0):
    rng = random.Random(seed)
    rows = []
    for number, fault in enumerate(faults):
        table = tuple((f"{city}{number}", rng.randint(10, 90)) for city in ("Rome", "Oslo", "Lima"))
        rows.append(Chart(number, fault, table, rng.randrange(3)))
    return rows


def write(rows, folder):
    folder.mkdir(parents=True)
    with (folder / "questions.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "file", "question", "answer"])
        for row in rows:
            row.image().save(folder / f"{row.id}.png")
            lines.writerow([row.id, f"{row.id}.png", row.question, row.gold])
    return folder


class Models:
    """Both models behind one address; `seen` counts requests by what a cache knows them by."""

    def __init__(self, rows, pause=0.0, slow=4.0):
        self.rows, self.pause, self.slow = {row.number: row for row in rows}, pause, slow
        self.server = Server(self.behave)
        self.answered = []  # keys, as the replies left
        self.received = []
        self.on_request = lambda: None

    def behave(self, handler, text, before):
        body = handler.body
        row, images = self.rows[self.number(body)], images_of(body)
        key = Chat(body["model"], options={k: body[k] for k in ("temperature", "max_tokens")}).key(
            Request(text, images, body.get("seed", 0))
        )
        self.received.append(key)
        self.on_request()
        time.sleep(self.pause)
        self.reply(handler, row, stage_of(text), before)
        self.answered.append(key)

    def number(self, body):
        if images := images_of(body):
            with Image.open(BytesIO(images[0])) as picture:
                return sum((picture.getpixel((6 + 8 * bit, 4)) == (0, 0, 0)) << bit for bit in range(12))
        return int(re.search(r"(?:Rome|Oslo|Lima)(\d+)", text_of(body))[1])

    def reply(self, handler, row, stage, before):
        fault = row.fault
        if (fault == "500 once" and stage == "reason" and not before) or (fault == "500 always" and stage == "reason"):
            handler.send("{}", 500, headers=[("retry-after-ms", "20")])
        elif fault == "slow once" and stage == "formal" and not before:
            time.sleep(self.slow)
            handler.close_connection = True
        elif fault == "cut" and stage == "reason":
            handler.reply(self.text(row, stage)[:40], "length")
        elif fault == "cut formal" and stage == "formal":
            handler.reply("```csv\ncity,sa", "length")
        elif fault == "huge" and stage == "formal":
            handler.reply("x" * 10_000_000)
        else:
            handler.reply(self.text(row, stage))

    def text(self, row, stage):
        fault, name = row.fault, row.table[row.asked][0]
        answer = row.gold + (1 if fault == "wrong answer" else 0)
        reasoning = (
            f"The caption gives three cities. The description says that {name} stands at {answer}.\n"
            f"Let me check: nothing else has that name, so it is {answer}.\n\nAnswer: {answer}"
        )
        rewritten = reasoning.replace("The caption gives", "The image shows").replace(
            "The description says that", "I see that"
        )
        if fault == "leak":
            rewritten = rewritten.replace("Let me check", "According to the provided caption")
        if fault == "rewritten":
            rewritten = "A very different story. " * 10 + rewritten
        if fault == "answer lost":
            rewritten = rewritten.rpartition("\n\n")[0].replace(f"so it is {answer}", "so it is clear")
        valid = {"not valid": '{"valid": 0, "why": "step 2 is wrong"}', "not json": "I am not sure."}
        formal = f"```csv\n{row.csv(wrong=fault == 'wrong cell')}\n```"
        repaired = formal
        if fault in ("broken csv", "repaired"):
            formal = f"```csv\n{row.csv()},9\n```"
        if fault == "broken csv":
            repaired = formal
        if row.kind == "flowchart":
            chart = f"flowchart LR\nA[{name}] -->|sales {row.gold}| B[end]"
            formal = repaired = f"```mermaid\n{BROKEN_CHART if fault == 'broken mermaid' else chart}\n```"
        return {
            "kind": json.dumps({"kind": "poem" if fault == "no kind" else row.kind, "objects": []}),
            "formal": formal,
            "repair": repaired,
            "reason": reasoning,
            "rewrite": rewritten,
            "verify": valid.get(fault, '{"valid": 1}'),
        }[stage]


STAGES = {
    "Which kind of image": "kind",
    "It was refused:": "repair",
    "You have advanced visual": "reason",
    "You will receive a snippet": "rewrite",
    "Judge a worked solution": "verify",
}


def stage_of(text):
    return next((stage for words, stage in STAGES.items() if words in text), "formal")


def images_of(body):
    content = body["messages"][0]["content"]
    blocks = content if isinstance(content, list) else []
    urls = [block["image_url"]["url"] for block in blocks if block["type"] == "image_url"]
    return tuple(base64.b64decode(url.partition(",")[2]) for url in urls)
