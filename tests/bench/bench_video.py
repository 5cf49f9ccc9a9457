"""When is the square red? A tiny model learns it from clips: temporal IoU before and after GRPO, over seeds.

    OMP_NUM_THREADS=1 python tests/bench/bench_video.py --seeds 0 1 2

Clips are written by PyAV and made rows by `prepare`: a square of some colour and place turns red for two seconds.
Some come with worked answers, for one supervised fine-tuning of the quickstart's model from random weights, from which
every seed of GRPO starts; the others with golds alone, for GRPO with `span_reward`; the last are held out. Seconds are
of the processor, imports left out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from datasets import load_dataset
from PIL import Image, ImageDraw
from rich.console import Console
from trl import SFTConfig, SFTTrainer

sys.path.append(str(Path(__file__).parents[1]))

import clips

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.data import Conversion, PixelGrid, Sampling
from trl_onevision.data.prepare import prepare
from trl_onevision.quickstart.evaluate import answer
from trl_onevision.quickstart.model import build_model, build_processor, build_tokenizer
from trl_onevision.rewards import format_reward, span_reward

QUESTION = "When is the square red?"
SAID = "<think>I look for red.</think><answer>{start}.0 to {end}.0</answer>"
SECONDS, RED = 8, 2  # of a clip, and of the square in it
SIDE = 28  # of a frame in pixels: a visual token
SPLITS = {"sft": 96, "grpo": 384, "held-out": 128}
COLOURS = ["blue", "green", "black", "orange", "purple", "cyan", "gold", "gray"]
NEW_TOKENS = 32


def painter(rng: random.Random, start: int, end: int) -> Any:
    """Frames of a square of a colour and a place of its own, on a ground of its own, that is red for a while."""
    colour, ground = (
        rng.choice(COLOURS),
        tuple(rng.randrange(170, 256) for _ in range(3)),
    )
    left, top, side = rng.randrange(2, 12), rng.randrange(2, 12), rng.randrange(10, 14)

    def paint(index: int, at: float) -> Image.Image:
        image = Image.new("RGB", (SIDE, SIDE), ground)
        fill = "red" if start <= at < end else colour
        ImageDraw.Draw(image).rectangle([left, top, left + side, top + side], fill=fill)
        return image

    return paint


def write_rows(folder: Path) -> None:
    """The clips of each split, and the rows that `prepare` makes of them."""
    rng = random.Random(0)
    (folder / "clips").mkdir(parents=True)
    for split, count in SPLITS.items():
        raw = []
        for number in range(count):
            start = rng.randrange(SECONDS - RED + 1)
            end = start + RED
            path = folder / "clips" / f"{split}-{number}.mp4"
            clips.write(path, [n / 4 for n in range(4 * SECONDS)], painter(rng, start, end))
            said = SAID.format(start=start, end=end)
            raw.append(
                {
                    "id": path.stem,
                    "file": path.name,
                    "q": QUESTION,
                    "when": [start, end],
                    "said": said,
                }
            )
        source = folder / f"{split}.jsonl"
        source.write_text("\n".join(map(json.dumps, raw)))
        prepare(
            "red",
            folder / split,
            source=str(source),
            columns="id=id,prompt=q,video=file,solution=when,completion=said",
            task="span",
            conversion=Conversion(
                purpose="sft" if split == "sft" else "grpo",
                prompt="plain",
                grid=PixelGrid.of(28, SIDE**2, SIDE**2),
                image_root=folder / "clips",
                sampling=Sampling(1, SECONDS),
            ),
            console=Console(quiet=True),
        )


def settings(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "seed": seed,
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
    }


def train_sft(rows: Any, folder: Path, seed: int, steps: int) -> None:
    """The quickstart's model of a seed, with a tokenizer of these sentences, on clips with a worked answer."""
    processor = build_processor()
    times = [f"<{n}.0 seconds>" for n in range(SECONDS)]
    processor.tokenizer = build_tokenizer([*times, QUESTION, SAID.format(start=1, end=2), "user\nassistant\n"] * 8)
    arguments = SFTConfig(
        **settings(folder, seed, steps),
        per_device_train_batch_size=24,
        learning_rate=2e-3,
        max_length=None,
    )
    trainer = SFTTrainer(
        build_model(processor, seed),
        arguments,
        train_dataset=rows,
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(str(folder))


def train_grpo(rows: Any, start: Path, folder: Path, seed: int, steps: int) -> None:
    """GRPO from the supervised checkpoint, on clips with golds alone."""
    arguments = OneVisionGRPOConfig(
        **settings(folder, seed, steps),
        per_device_train_batch_size=128,
        num_generations=8,
        max_completion_length=NEW_TOKENS,
        learning_rate=1e-4,
        adam_beta2=0.99,
        loss_type="grpo",
        scale_rewards="none",
        reward_weights=[1.0, 0.25],
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = OneVisionGRPOTrainer(str(start), [span_reward, format_reward], arguments, rows)
    trainer.train()
    trainer.save_model(str(folder))


def best_constant(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of the one answer that is best for all of these rows, had somebody known them."""
    spans = [(start, end) for end in range(1, SECONDS + 1) for start in range(end)]
    return max((figures(rows, [SAID.format(start=a, end=b)] * len(rows)) for a, b in spans), key=lambda f: f["tIoU"])


def score(rows: list[dict[str, Any]], checkpoint: Path) -> dict[str, float]:
    """Mean tIoU, the share of at least a half, and format, of greedy answers to the held-out clips."""
    return figures(rows, [text for batch in answer(checkpoint, rows, NEW_TOKENS) for text in batch])


def figures(rows: list[dict[str, Any]], said: list[str]) -> dict[str, float]:
    columns = {name: [row[name] for row in rows] for name in ("solution", "task", "duration", "id")}
    overlaps = [value or 0.0 for value in span_reward(said, **columns)]
    halves = fmean(value >= 0.5 for value in overlaps)
    return {
        "tIoU": fmean(overlaps),
        "half": halves,
        "format": fmean(format_reward(said)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/video"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs=2, default=[100, 24], help="Supervised, and of GRPO.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, start = given.output / "data", given.output / "sft"
    if not (data / "held-out").exists():
        write_rows(data)
    splits = {name: load_dataset(str(data / name), split="train", cache_dir=str(data / "cache")) for name in SPLITS}
    held_out = list(splits["held-out"])
    print("| | held-out tIoU | tIoU of a half and more | format | seconds |")
    print("| --- | --- | --- | --- | --- |")
    show("best constant", best_constant(held_out), 0.0)
    began = time.process_time()
    if not start.exists():
        train_sft(splits["sft"], start, 0, given.steps[0])
    show("supervised", score(held_out, start), time.process_time() - began)
    overlaps = []
    for seed in given.seeds:
        began, folder = time.process_time(), given.output / f"grpo-{seed}"
        train_grpo(splits["grpo"], start, folder, seed, given.steps[1])
        found = score(held_out, folder)
        show(f"GRPO, seed {seed}", found, time.process_time() - began)
        overlaps.append(found["tIoU"])
    print(f"| GRPO, mean | {fmean(overlaps):.3f} ± {pstdev(overlaps):.3f} | | | |")


def show(name: str, found: dict[str, float], seconds: float) -> None:
    cells = [f"{found[key]:.3f}" for key in ("tIoU", "half", "format")]
    print("| " + " | ".join([name, *cells, f"{seconds:.0f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
