"""What rows of `trl-onevision formalize` teach, with and without its filters, beside rows of bare answers, over seeds.

    python tests/bench/bench_formalize.py runs/formalize --seeds 0 1 2

Pictures of two handwritten digits and the question for their sum go through the real command. Behind it stands a
server that sees the digits and reasons as large models do, with their faults (`FAULTS`). Each kind of row trains the
quickstart's model from random weights by the quickstart's SFT recipe, as many steps each; the table has the exact sums
on pictures of scans that no row shows, and what was wrong with the rows that were trained on.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from datasets import load_dataset
from PIL import Image
from trl.scripts import sft

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "formalize")]

from chat_server import Handler, Server
from scripted import images_of, stage_of

from trl_onevision.answers.extract import answer_text
from trl_onevision.chat import Chat, Reply
from trl_onevision.data.convert import Conversion
from trl_onevision.data.prepare import prepare
from trl_onevision.data.sources import open_source
from trl_onevision.data.writer import write_dataset
from trl_onevision.formalize.pipeline import Pipeline, Plan, Tally
from trl_onevision.formalize.run import REPLIES, Output, Prices, Reader, formalized
from trl_onevision.formalize.stages import Row, find_leak
from trl_onevision.json_file import write_json
from trl_onevision.quickstart.digits import draw
from trl_onevision.quickstart.evaluate import answer
from trl_onevision.quickstart.model import build_model, build_processor, build_tokenizer
from trl_onevision.recipes import recipe_path
from trl_onevision.rewards import accuracy_reward

QUESTION = "What is the sum of the digits?"
BATCH_SIZE = 32
COLUMNS = "id=id,prompt=question,solution=answer,image=file"

KINDS = {
    "filtered": "pipeline",
    "unfiltered": "pipeline without filters",
    "answers": "answers alone",
    "unfiltered-some": "pipeline without filters, as many rows as with",
    "answers-kept": "answers alone, of the pictures that filters keep",
}

# How often each model is wrong, the judge too
FAULTS = {
    "a digit misread": 0.15,
    "two digits misread, the sum as it was": 0.015,  # which no filter can see
    "a cell lost": 0.06,  # the text does not parse; most retries mend it
    "added wrongly": 0.1,
    "added wrongly, answered right": 0.04,
    "description left in": 0.1,
    "retold at length": 0.03,
    "judge blind to a wrong step": 0.1,
    "judge against right steps": 0.02,
}


def picture(split: str, index: int) -> tuple[Image.Image, list[int], list[int]]:
    """Two digits on a canvas, what they are, and where each starts."""
    image, digits, boxes = draw(np.random.default_rng([len(split), index]), split, 2)
    return image, digits, [box[0] for box in boxes]


class Models:
    """Both models: what they say follows from the request, and so do their faults."""

    def __init__(self, pictures: Iterable[tuple[Image.Image, list[int], list[int]]]) -> None:
        self.seen = {image.tobytes(): (digits, lefts) for image, digits, lefts in pictures}
        self.server = Server(self.behave)

    def behave(self, handler: Handler, text: str, before: int) -> None:
        """Answer one request."""
        stage, images = stage_of(text), images_of(handler.body)
        luck = random.Random(blake2b(text.encode() + b"".join(images)).digest())
        if stage in ("formal", "repair"):
            with Image.open(BytesIO(images[0])) as image:
                handler.reply(self.read(image.convert("RGB").tobytes(), stage, luck))
        else:
            say: dict[str, Callable[[str, random.Random], str]] = {"reason": add, "rewrite": retell, "verify": judge}
            handler.reply(say[stage](text, luck))

    def read(self, pixels: bytes, stage: str, luck: random.Random) -> str:
        """The digits as a table, by where they start."""
        digits, lefts = list(self.seen[pixels][0]), self.seen[pixels][1]
        fault = happens(luck, "a digit misread", "two digits misread, the sum as it was", "a cell lost")
        if fault == "a digit misread":
            place = luck.randrange(2)
            digits[place] = (digits[place] + luck.randrange(1, 10)) % 10
        elif fault == "two digits misread, the sum as it was":
            shift = 1 if digits[0] < 9 and digits[1] > 0 else -1
            digits = [digits[0] + shift, digits[1] - shift] if {*digits} != {0} else digits
        lines = [f"{left},{digit}" for left, digit in zip(lefts, digits, strict=True)]
        if fault == "a cell lost" and (stage == "formal" or luck.random() < 0.5):
            lines[1] = str(lefts[1])
        return "\n".join(["```csv", "left,digits", *lines, "```"])


def happens(luck: random.Random, *faults: str) -> str:
    """Which of some faults happens, if any."""
    return luck.choices([*faults, ""], [*(FAULTS[f] for f in faults), 1 - sum(FAULTS[f] for f in faults)])[0]


def add(text: str, luck: random.Random) -> str:
    """Reason over what the table has."""
    digits = re.findall(r"^\d+,(\d)$", text, re.MULTILINE)
    said = right = sum(map(int, digits))
    fault = happens(luck, "added wrongly", "added wrongly, answered right")
    if fault:
        said = right + luck.choice([-2, -1, 1, 2]) if right > 1 else right + luck.choice([1, 2])
    head = luck.choice(["The caption lists", "The description gives"])
    closing = said if fault != "added wrongly, answered right" else right
    return f"{head} {' and '.join(digits)}.\n{' + '.join(digits)} = {said}.\n\nAnswer: {closing}"


def retell(text: str, luck: random.Random) -> str:
    """The reasoning as if the picture had been seen."""
    reasoning = text.partition("Here is the input:\n\n")[2]
    fault = happens(luck, "description left in", "retold at length")
    if fault == "description left in":
        return reasoning
    seen = re.sub(r"The caption lists|The description gives", "The image shows", reasoning)
    if fault == "retold at length":
        seen = "There is a sheet of white paper, and somebody has written on it by hand with black ink. " * 2 + seen
    return seen


def judge(text: str, luck: random.Random) -> str:
    """Whether the steps of a solution are right."""
    terms, said = re.findall(r"([\d +]+) = (\d+)\.", text.rpartition("Solution: ")[2])[-1]
    right = sum(map(int, terms.split("+"))) == int(said)
    mistaken = luck.random() < FAULTS["judge against right steps" if right else "judge blind to a wrong step"]
    return json.dumps({"valid": int(right != mistaken), "why": f"{terms} is not {said}"})


class WithoutFilters(Pipeline):
    """The stages that make a row, without any that judges it."""

    def __init__(self, plan: Plan, *others: Any) -> None:
        super().__init__(plan, *others)
        asks = plan.asks
        asks["rewrite"] = asks["rewrite"]._replace(accept=as_it_came)
        ask = {name: partial(self._ask, one) for name, one in asks.items()}
        self.steps = [ask["formal"], ask["reason"], partial(self._here, first_draft), ask["rewrite"]]


def first_draft(row: Row) -> Row:
    return replace(row, reasoning=row.drafts[0])


def as_it_came(row: Row, replies: Sequence[Reply]) -> Row:
    return replace(row, rewritten=replies[0].text)


async def unfiltered(url: str, folder: Path, kept: Path, output: Path) -> None:
    """The same run without filters; what the filtered one has asked comes from its cache."""
    options = {"temperature": 0.0, "max_tokens": 8192}
    chats = [Chat(model, url, cache=kept / REPLIES, options=options) for model in ("sees", "reasons")]
    plan, source = Plan(*chats), open_source(str(folder))
    reader = Reader(source, Conversion(image_root=source.root), COLUMNS, kind="chart")
    out, stopped = Output(output, {"vision": "sees", "reason": "reasons"}, Prices()), threading.Event()
    async with plan.vision.open() as vision, plan.reason.open() as reason:
        pipeline = WithoutFilters(plan, {"vision": vision, "reason": reason}, Tally())
        async for done in formalized(pipeline, reader, reader.rows(), 64, stopped):
            out.take(done)
    out.publish({})


def make_rows(output: Path, count: int) -> None:
    """The rows of each kind, from the same pictures."""
    folder, kept = output / "pictures", output / "formalized"
    folder.mkdir(parents=True)
    pictures = [picture("grpo", index) for index in range(count)]
    with (folder / "questions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "file", "question", "answer", "completion"])
        for index, (image, digits, _) in enumerate(pictures):
            image.save(folder / f"{index}.png")
            total = sum(digits)
            table.writerow([index, f"{index}.png", QUESTION, total, f"<answer>\n{total}\n</answer>"])
    models = Models(pictures)
    threading.Thread(target=models.server.serve_forever, args=(0.02,), daemon=True).start()
    url = models.server.url
    arguments = [f"--vision={url},sees", f"--reason={url},reasons", f"--columns={COLUMNS}", "--kind=chart"]
    command = ["formalize", str(folder), *arguments, f"--output={kept}"]
    subprocess.run([sys.executable, "-c", "from trl_onevision.cli import app; app()", *command], check=True)
    asyncio.run(unfiltered(url, folder, kept, output / "formalized-unfiltered"))
    models.server.shutdown()

    data, conversion = output / "data", Conversion("sft")
    prepare("r1-onevision", data / "filtered", source=str(kept / "rows"), conversion=conversion)
    raw = output / "formalized-unfiltered" / "rows"
    prepare("r1-onevision", data / "unfiltered", source=str(raw), conversion=conversion)
    answers = COLUMNS.replace("solution=answer", "completion=completion")
    prepare("answers", data / "answers", source=str(folder), columns=answers, conversion=conversion)
    ids = [row["id"] for row in rows_of(data / "filtered")]
    some = random.Random(0).sample([row["id"] for row in rows_of(data / "unfiltered")], len(ids))
    select(data / "answers", ids, data / "answers-kept")
    select(data / "unfiltered", some, data / "unfiltered-some")


def rows_of(data: Path) -> Any:
    """The rows of a prepared folder."""
    return load_dataset(str(data), split="train")


def select(data: Path, ids: list[str], output: Path) -> None:
    """The rows with some ids."""
    wanted = set(ids)
    write_dataset((row for row in rows_of(data) if row["id"] in wanted), output, purpose="sft")


def text_of(row: dict[str, Any]) -> str:
    """What an SFT row teaches to say."""
    return str(row["completion"][0]["content"][0]["text"])


def train(data: Path, texts: list[str], folder: Path, seed: int, steps: int) -> dict[str, float]:
    """One SFT run: shares of exact sums and of mentions of a description on held-out pictures, and processor time."""
    figures = folder / "figures.json"
    if figures.exists():
        return dict(json.loads(figures.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    processor = build_processor()
    processor.tokenizer = build_tokenizer(texts)
    for part in (processor, build_model(processor, seed)):
        part.save_pretrained(folder / "model")
    given = {"model_name_or_path": folder / "model", "dataset_name": data, "output_dir": folder / "sft"}
    given |= {"max_steps": steps, "per_device_train_batch_size": BATCH_SIZE, "seed": seed, "disable_tqdm": "true"}
    overrides = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    recipe = ["--config", str(recipe_path("quickstart-sft"))]
    *arguments, _ = sft.make_parser().parse_args_and_config([*recipe, *overrides], return_remaining_strings=True)
    before = time.process_time()
    with (folder / "sft.log").open("w") as log, redirect_stdout(log):
        sft.main(*arguments)
    seconds = time.process_time() - before
    held_out = [held_out_row(index) for index in range(600)]
    completions = [text for batch in answer(folder / "sft", held_out, 64) for text in batch]
    (folder / "completions.json").write_text(json.dumps(completions))
    scores = accuracy_reward(completions, [row["solution"] for row in held_out], task=["number"] * len(held_out))
    leaks = [find_leak(text, QUESTION) is not None for text in completions]
    write_json(figures, {"accuracy": fmean(map(float, scores)), "leaks": fmean(leaks), "seconds": seconds})
    return dict(json.loads(figures.read_text()))


def held_out_row(index: int) -> dict[str, Any]:
    """A question about a picture of scans that training does not show."""
    image, digits, _ = picture("held-out", index)
    return {"prompt": [{"role": "user", "content": QUESTION}], "images": [image], "solution": str(sum(digits))}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{fmean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="Rows and runs that are done in this folder are not made again.")
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    data = given.output / "data"
    if not data.exists():
        make_rows(given.output, given.pictures)
    rows = {kind: list(rows_of(data / kind)) for kind in KINDS}
    texts = [QUESTION, "user\nassistant\n", *(text_of(row) for of_kind in rows.values() for row in of_kind)]
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in given.kinds}
    for seed in given.seeds:
        for kind in given.kinds:
            runs[kind].append(train(data / kind, texts, given.output / f"{kind}-{seed}", seed, given.steps))
            print(f"{kind}, seed {seed}: {runs[kind][-1]}", file=sys.stderr, flush=True)
    sums = {str(index): str(sum(picture("grpo", index)[1])) for index in range(given.pictures)}
    print("| rows | how many | wrong answer | speak of a description | exact sums | speak of a description |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in given.kinds:
        wrong = fmean(answer_text(text_of(row)) != sums[row["id"]] for row in rows[kind])
        leaks = fmean(find_leak(text_of(row), QUESTION) is not None for row in rows[kind])
        figures = [spread([run[key] for run in runs[kind]]) for key in ("accuracy", "leaks")]
        cells = [KINDS[kind], f"{len(rows[kind]):,}", f"{wrong:.3f}", f"{leaks:.3f}", *figures]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
