"""Image rows and text rows in one GRPO run, in which order, and which of them: held-out accuracy on both, over seeds.

    python tests/bench/bench_joint.py --output runs/joint --seeds 0 1 2

A tiny Qwen2.5-VL reads numbers off real digit scans and adds small numbers in many wordings. It is started once by
supervised training on few rows of both kinds, and of a jigsaw of the scans; then every arm takes as many GRPO steps of
as many completions from there. Held out are other handwriting, and sums in wordings that no training row has them in.
Every finished run is kept in its folder: the same command goes on. `joint.png` shows the curves.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.data_utils import prepare_multimodal_messages

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.synthesize import make
from trl_onevision.data.synthesize.puzzle import row as puzzle_row
from trl_onevision.data.writer import write_dataset
from trl_onevision.engine import Checkpoint, Local, Sampling
from trl_onevision.json_file import write_json
from trl_onevision.quickstart import digits
from trl_onevision.quickstart.model import build_model, build_processor
from trl_onevision.rewards import accuracy_reward, format_reward, order_reward
from trl_onevision.select.keep import band
from trl_onevision.select.measure import Rewards
from trl_onevision.select.rows import Rows
from trl_onevision.select.run import Wanted, select

LARGEST = 5
WORDS = ("zero", "one", "two", "three", "four", "five")
WORDINGS = ("What is {a} + {b}?", "{a} plus {b}?", "Add {a} and {b}.", "Sum of {a} and {b}?", "{a} and {b} make?")
SFT_ROWS, HELD_OUT = 150, 200
STEPS, PROMPTS_A_STEP, GENERATIONS, EVERY = 40, 16, 8, 20
ARMS = ("image", "text", "joint", "curriculum", "selected", "random", "jigsaw")
REWARDS = ["trl_onevision.rewards.accuracy_reward", "trl_onevision.rewards.format_reward"]


def sums(split: str) -> list[dict[str, Any]]:
    """The sums of a split, in an order that is the same on every machine. No two splits share a sum in its wording."""
    numbers = range(LARGEST + 1)
    asked = [
        (wording.format(a=x, b=y), a + b)
        for a in numbers
        for b in numbers
        for wording in WORDINGS
        for x in (str(a), WORDS[a])
        for y in (str(b), WORDS[b])
    ]
    random.Random(0).shuffle(asked)
    bounds = {"held-out": (0, HELD_OUT), "sft": (HELD_OUT, HELD_OUT + SFT_ROWS), "grpo": (HELD_OUT + SFT_ROWS, None)}
    return [
        row(question, [], str(total), "I add.", f"sum-{split}-{place}", "sums")
        for place, (question, total) in enumerate(asked[slice(*bounds[split])])
    ]


def scans(split: str, count: int) -> Iterator[dict[str, Any]]:
    """Rows of a number to read."""
    rows = (made for made in digits.rows(split, 2 * count) if made["task"] == "number")
    return (made for made, _ in zip(rows, range(count), strict=False))


def scan(rng: np.random.Generator, split: str) -> Image.Image:
    """A digit without the paper around it, so that a cut through the middle goes through the digit."""
    image, _, boxes = digits.draw(rng, split, 1)
    return image.crop(tuple(boxes[0]))


def jigsaws(split: str, count: int) -> Iterator[dict[str, Any]]:
    """Two halves of a scan: which is the left one? The question is short, or the tiny model would read it for long."""
    for index in range(count):
        puzzle = make("jigsaw", lambda rng: scan(rng, split), 1, list(digits.SPLITS).index(split), index)
        puzzle = replace(puzzle, question="Order the pieces.")
        made = puzzle_row(puzzle, f"jigsaw-{split}-{index}", "jigsaw", PROMPTS["plain"])
        yield made | {"completion": said("I look at the edges.", puzzle.solution.replace(" ", ""))}


def row(question: str, images: list[Any], solution: str, thought: str, name: str, source: str) -> dict[str, Any]:
    """A row of the contract with the completion that supervised training shows."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": said(thought, solution),
        "images": images,
        "solution": solution,
        "task": "number",
        "choices": None,
        "id": name,
        "source": source,
    }


def said(thought: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": f"<think>{thought}</think><answer>{answer}</answer>"}]


def written(folder: Path, rows: list[dict[str, Any]], purpose: Any = "grpo") -> Dataset:
    if not folder.exists():
        write_dataset(rows, folder, purpose=purpose)
    return load_dataset(str(folder), split="train")


def mixed(first: list[Any], second: list[Any]) -> list[Any]:
    """Rows of both in turn."""
    return [one for two in zip(first, second, strict=True) for one in two]


def repeated(rows: list[Any], count: int) -> list[Any]:
    return [rows[index % len(rows)] for index in range(count)]


COMMON = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "lr_scheduler_type": "cosine",
}


def start(output: Path, steps: int) -> Path:
    """The supervised checkpoint that every arm starts from."""
    folder = output / "start"
    if (folder / "model.safetensors").exists():
        return folder
    rows = repeated(list(scans("sft", 1000)), 1500) + repeated(sums("sft"), 1500)
    rows += repeated(list(jigsaws("sft", 100)), 600)
    random.Random(0).shuffle(rows)
    data = written(output / "data" / "sft", rows, "sft")
    processor = build_processor()
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        warmup_steps=10,
        max_length=None,
        logging_steps=20,
        **COMMON,
    )
    trainer = SFTTrainer(build_model(processor), args=args, train_dataset=data, processing_class=processor)
    trainer.train()
    trainer.save_model(str(folder))
    processor.save_pretrained(folder)
    return folder


class HeldOut(TrainerCallback):
    """Answers rows that nobody trains on, greedily, every few steps of a run; its own time is not the run's."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.sides = {"image": list(scans("held-out", HELD_OUT)), "text": sums("held-out")}
        self.checkpoint = Checkpoint(model, processor)
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step % EVERY == 0 or state.global_step == state.max_steps:
            self.measure(state.global_step)

    def measure(self, step: int) -> None:
        """Add the share of right answers on each side to the curve."""
        began, model = time.process_time(), self.checkpoint.network
        model.eval()
        with torch.random.fork_rng():
            self.curve.append({"step": step, **{side: self._accuracy(rows) for side, rows in self.sides.items()}})
        model.train()
        self.seconds += time.process_time() - began

    def _accuracy(self, rows: list[dict[str, Any]]) -> float:
        asked = [prepare_multimodal_messages(made["prompt"], images=made["images"]) for made in rows]
        said = [
            one for at in (0, len(asked) // 2) for one in self.checkpoint.answer(asked[at : at + len(asked) // 2], 24)
        ]
        columns = {name: [made[name] for made in rows] for name in ("solution", "task", "choices", "id")}
        return fmean(accuracy_reward(completions=[one.text for one in said], **columns))


def train(model_at: Path, data: Dataset, seed: int, steps: int, folder: Path, **more: Any) -> dict[str, Any]:
    """One GRPO run: its curve of held-out accuracy, and its seconds of processor time; the model stays in `folder`."""
    model = AutoModelForImageTextToText.from_pretrained(model_at, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(model_at, padding_side="left")
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "max_steps": steps,
        "per_device_train_batch_size": PROMPTS_A_STEP * GENERATIONS,
        "num_generations": GENERATIONS,
        "max_completion_length": 24,
        "learning_rate": 4e-4,
        "warmup_steps": 3,
        "adam_beta2": 0.99,
        "scale_rewards": "none",
        "reward_weights": [1.0, 0.25],
        "logging_steps": 1,
        **COMMON,
        **more,
    }
    scored = [accuracy_reward, format_reward] if "order" not in data["task"] else [order_reward, format_reward]
    trainer = OneVisionGRPOTrainer(model, scored, OneVisionGRPOConfig(**settings), data, processing_class=processor)
    held_out = HeldOut(model, processor)
    known = model_at / "held-out.json"  # the same for every run from there
    if not known.exists():
        held_out.measure(0)
        write_json(known, held_out.curve)
    held_out.curve = json.loads(known.read_text())
    trainer.add_callback(held_out)
    before, began = held_out.seconds, time.process_time()
    trainer.train()
    seconds = time.process_time() - began - (held_out.seconds - before)
    trainer.save_model(str(folder / "model"))
    processor.save_pretrained(folder / "model")
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    return {"curve": held_out.curve, "seconds": seconds, "rewards": rewards}


class Bench:
    """The data and the runs of one output folder."""

    def __init__(self, output: Path, steps: int, sft_steps: int) -> None:
        self.output, self.steps = output, steps
        self.start = start(output, sft_steps)
        needed = steps * PROMPTS_A_STEP
        image, text = list(scans("grpo", needed)), repeated(sums("grpo"), needed)
        data = output / "data"
        self.image = written(data / "image", image)
        self.text = written(data / "text", text)
        self.joint = written(data / "joint", mixed(image[: needed // 2], text[: needed // 2]))
        self.jigsaw = written(data / "jigsaw", list(jigsaws("grpo", needed)))

    def selected(self, split: str) -> Dataset:
        """The joint rows that the start answers right at 0.1 to 0.9, or as many at random."""
        return load_dataset(str(self._select("selected", Wanted([band("0.1:0.9")], random_control=True))))[split]

    def by_pass_rate(self) -> Dataset:
        """The joint rows, those first that the start answers right most often."""
        return load_dataset(str(self._select("ordered", Wanted(order="easy"))))["train"]

    def _select(self, name: str, wanted: Wanted) -> Path:
        folder = self.output / name
        if not (folder / "select.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            began = time.process_time()
            sampling = Sampling(k=8, max_new_tokens=24, batch_size=32, dtype="float32")
            engine = Local(str(self.start), sampling, self.output / "answers.sqlite")  # asked once for both
            rows, rewards = Rows(str(self.output / "data" / "joint")), Rewards.named(REWARDS, [1.0, 0.25])
            summary = select(rows, engine, rewards, folder, wanted)
            print(f"select, {name}: {summary}, {time.process_time() - began:.0f} s", flush=True)
        return folder

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """One run of an arm, which is not done again where its figures are there."""
        folder = self.output / f"{arm}-{seed}"
        if (folder / "run.json").exists():
            return json.loads((folder / "run.json").read_text())
        begin, more = self.start, {}
        if arm == "jigsaw":
            pre = train(self.start, self.jigsaw, seed, self.steps // 2, folder / "pre")
            begin, more = folder / "pre" / "model", {"pre": pre}
        data = {
            "image": lambda: self.image,
            "text": lambda: self.text,
            "joint": lambda: self.joint,
            "curriculum": self.by_pass_rate,
            "selected": lambda: self.selected("train"),
            "random": lambda: self.selected("random"),
            "jigsaw": lambda: self.image,
        }[arm]()
        result = train(begin, data, seed, self.steps, folder, shuffle_dataset=arm != "curriculum") | more
        write_json(folder / "run.json", result)
        shutil.rmtree(folder / "model", ignore_errors=True)
        return result


def spread(values: list[float]) -> str:
    return f"{fmean(values):.3f} ± {pstdev(values):.3f}"


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Held-out accuracy of both sides over the steps: mean and range over seeds, an arm a colour."""
    from matplotlib.figure import Figure

    groups = [("image", "text", "joint"), ("joint", "curriculum"), ("selected", "random"), ("image", "jigsaw")]
    figure = Figure(figsize=(13, 6), layout="constrained")
    for axes, (side, arms) in zip(
        figure.subplots(2, len(groups), sharex=True, sharey="row").flat,
        [(side, arms) for side in ("image", "text") for arms in groups],
        strict=True,
    ):
        for arm in arms:
            if arm not in results:
                continue
            steps = [point["step"] for point in results[arm][0]["curve"]]
            values = np.array([[point[side] for point in run["curve"]] for run in results[arm]])
            (line,) = axes.plot(steps, values.mean(0), label=arm)
            axes.fill_between(steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15)
        axes.set(title=f"held-out {side} rows", xlabel="GRPO step", ylabel="accuracy")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/joint"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sft-steps", type=int, default=150)
    given = parser.parse_args()
    bench = Bench(given.output.resolve(), given.steps, given.sft_steps)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:
        for arm in given.arms:
            results[arm].append(run := bench.run(arm, seed))
            print(f"{arm}, seed {seed}: {run['curve'][0]} -> {run['curve'][-1]}, {run['seconds']:.0f} s", flush=True)
    print("| arm | images, before | images | text, before | text | processor seconds |\n" + "| --- " * 6 + "|")
    for arm, runs in results.items():
        figures = [spread([run["curve"][at][side] for run in runs]) for side in ("image", "text") for at in (0, -1)]
        print("| " + " | ".join([arm, *figures, f"{fmean(run['seconds'] for run in runs):.0f}"]) + " |")
    draw(results, given.output / "joint.png")


if __name__ == "__main__":
    main()
