"""What each method between rewards and loss does on the quickstart's digits, beside the plain run, over seeds.

    trl-onevision quickstart --output runs/quickstart
    python tests/bench/bench_methods.py runs/quickstart --seeds 0 1 2 --picture docs/methods.png

A run starts from a supervised checkpoint and takes the quickstart's GRPO recipe with one thing changed. It is short,
so the language half is frozen and the learning rate twice as high, which learns most in few steps; and that rate is
constant, so that a curve may be cut at any time. All runs are made by one process, on one thread. Held-out rows are
answered greedily every few steps. Time is processor time, of this process and of what it started, evaluation left out.

Methods that need reasoning which says what is seen start from the quickstart's checkpoint after some more supervised
steps, and stand beside a plain run from there. A finished run is kept in `runs.json` and not made again.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import datasets
import matplotlib.axes
import numpy as np
import psutil
import torch
import yaml
from matplotlib.figure import Figure
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.data.writer import write_dataset
from trl_onevision.quickstart.digits import row, rows, sample
from trl_onevision.quickstart.evaluate import COLUMNS, rewards_of
from trl_onevision.quickstart.run import MAX_NEW_TOKENS, Size
from trl_onevision.recipes import recipe_path
from trl_onevision.rewards import accuracy_reward, format_reward, iou_reward
from trl_onevision.rewards.second_pass import CaptionAnswerReward

RIGHT = {"correct": "accuracy_reward"}
LAUNCH = ["env", "num_cpu_threads_per_process", "dtype", "model_name_or_path", "dataset_name", "reward_funcs"]
"""Keys of a recipe that are not the trainer's."""
SHORT = {"learning_rate": 8e-4, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 10}
SHORT_OPTIONS = {"freeze": "language"}
"""What a run of a few steps learns most with."""
BATCH = 150
"""Held-out rows that are answered at a time, sorted by task, so that a batch ends with its task's short answers."""


@dataclass(frozen=True)
class Method:
    """What a run has that the plain one has not: options of `TRL_ONEVISION`, keys of TRL's, another reward."""

    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    rewards: tuple[Any, ...] = ()
    beside: str = "plain"


METHODS = {
    "plain": Method(),
    **{
        name: Method({"advantage": name, **RIGHT})
        for name in ("odsw-easy", "odsw-medium", "odsw-hard", "observe", "univg", "stcr")
    },
    "ema": Method({"advantage": "ema"}),
    "resample": Method({"resample": 2}),
    "papo": Method({"terms": {"papo": {"gamma": 0.02, "mask": 0.6}}}),
    "plain, KL": Method(recipe={"beta": 0.04}, beside="plain, KL"),
    "dads": Method({"terms": "dads", **RIGHT}, {"beta": 0.04}, beside="plain, KL"),
    "plain, says what it sees": Method(beside="plain, says what it sees"),
    "steps": Method({"advantage": "steps"}, beside="plain, says what it sees"),
    "caption reward": Method(
        rewards=(CaptionAnswerReward(tag="think", prompt="{caption} {question}"),), beside="plain, says what it sees"
    ),
}


def seeing(split: str, index: int) -> dict[str, Any]:
    """A row of the digits whose reasoning names them, which are its key steps too."""
    rng = np.random.default_rng([len(split), index])
    task, _, labels, _, _ = sample(rng, split, index)
    made = row(np.random.default_rng([len(split), index]), split, index)
    if task == "boxes":
        return made | {"key_steps": None}
    seen = " ".join(f"a {label}" for label in labels)
    completion = f"<think>{seen}.</think><answer>{made['solution']}</answer>"
    return made | {
        "completion": [{"role": "assistant", "content": completion}],
        "key_steps": [[f"a {label}"] for label in labels],
    }


def told(split: str, index: int) -> dict[str, Any]:
    """The same without the image: the question after what is seen, as `CaptionAnswerReward` asks it."""
    made = seeing(split, index)
    if made["task"] == "boxes":
        return made
    thought = made["completion"][0]["content"].removeprefix("<think>").partition("</think>")[0]
    question = made["prompt"][0]["content"]
    return made | {"prompt": [{"role": "user", "content": f"{thought} {question}"}], "images": []}


def teach_to_see(start: Path, output: Path, steps: int) -> None:
    """Go on with the supervised training, on rows of both kinds."""
    settings = {"max_steps": steps, "per_device_train_batch_size": 64, "warmup_steps": 10, "learning_rate": 1e-3}
    taught = [told("sft", i) if i % 3 == 0 else seeing("sft", i) for i in range(64 * steps)]
    write_dataset(taught, output / "data" / "sft", purpose="sft")
    write_dataset((seeing("grpo", i) for i in range(Size().grpo_rows)), output / "data" / "grpo")
    recipe = yaml.safe_load(recipe_path("quickstart-sft").read_text())
    kept = {key: value for key, value in recipe.items() if key not in LAUNCH}
    model, processor = load(start / "sft")
    trainer = SFTTrainer(
        model,
        SFTConfig(**kept | settings | {"output_dir": str(output / "sft")}),
        train_dataset=datasets.load_dataset(str(output / "data" / "sft"), split="train"),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(str(output / "sft"))


def load(checkpoint: Path) -> tuple[Any, Any]:
    """A model and its processor."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(checkpoint, padding_side="left")


def seconds() -> float:
    """Processor time of this process and of those that it started."""
    children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return time.process_time() + sum(times.user + times.system for times in children)


class HeldOut(TrainerCallback):
    """Held-out accuracy over the steps of a run and the seconds that they took."""

    def __init__(self, processor: Any, every: int) -> None:
        self.every, self.processor = every, processor
        held_out = sorted(rows("held-out", Size().held_out_rows), key=lambda row: str(row["task"]))
        self.boxes = [row for row in held_out if row["task"] == "boxes"]
        self.answers = [row for row in held_out if row["task"] != "boxes"]
        self.inputs = [list(self._encode(part)) for part in (self.answers, self.boxes)]
        self.began = 0.0
        self.points: list[dict[str, float]] = []

    def start(self) -> HeldOut:
        """Forget the run before."""
        self.began, self.points = seconds(), []
        return self

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            now = seconds()
            point = self.score(model, last=state.global_step == state.max_steps)
            self.points.append({"step": state.global_step, "seconds": now - self.began, **point})
            self.began += seconds() - now

    def score(self, model: Any, last: bool = False) -> dict[str, float]:
        """Accuracy, and of a run's last step what the quickstart reports."""
        was_training, texts = model.training, []
        model.eval()
        for inputs in [batch for part in (self.inputs if last else self.inputs[:1]) for batch in part]:
            with torch.inference_mode():
                ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
            answered = ids[:, inputs["input_ids"].shape[1] :]
            texts += self.processor.batch_decode(answered, skip_special_tokens=True)
        model.train(was_training)
        if last:
            return rewards_of(self.answers + self.boxes, texts)
        columns: dict[str, Any] = {name: [row[name] for row in self.answers] for name in COLUMNS}
        return {"accuracy": fmean(score or 0.0 for score in accuracy_reward(completions=texts, **columns))}

    def _encode(self, part: list[dict[str, Any]]) -> Iterator[Any]:
        """Once for all runs: a quarter of the work of an answer."""
        for start in range(0, len(part), BATCH):
            rows_of_batch = part[start : start + BATCH]
            yield self.processor.apply_chat_template(
                [prepare_multimodal_messages(row["prompt"], row["images"]) for row in rows_of_batch],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True, "return_tensors": "pt"},
            )


def train(method: Method, start: Path, held_out: HeldOut, seed: int, steps: int) -> dict[str, Any]:
    """One run: its held-out points, and what the trainer logged."""
    recipe = yaml.safe_load(recipe_path("quickstart-grpo").read_text())
    options = recipe["env"]["TRL_ONEVISION"] | SHORT_OPTIONS | method.options
    settings = {key: value for key, value in recipe.items() if key not in LAUNCH} | SHORT | method.recipe
    settings |= {
        "seed": seed,
        "max_steps": steps,
        "save_strategy": "no",
        "disable_tqdm": True,
        "reward_weights": [*recipe["reward_weights"], *(1.0 for _ in method.rewards)],
    }
    model, processor = load(start / "sft")
    with tempfile.TemporaryDirectory() as folder:
        trainer = OneVisionGRPOTrainer(
            model,
            [accuracy_reward, iou_reward, format_reward, *method.rewards],
            OneVisionGRPOConfig(**settings | {"output_dir": folder}, **options),
            datasets.load_dataset(str(start / "data" / "grpo"), split="train"),
            processing_class=processor,
            callbacks=[held_out.start()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {"points": held_out.points, "log": [entry for entry in trainer.state.log_history if "reward" in entry]}


def over(run: dict[str, Any], axis: str, until: float) -> float:
    """Mean held-out accuracy from the start `until` so many `step` or `seconds`: a curve wavers less than its end."""
    points = [{"step": 0.0, "seconds": 0.0, "accuracy": run["start"]}, *run["points"]]
    places = np.linspace(0.0, until, 200)
    return float(np.interp(places, [p[axis] for p in points], [p["accuracy"] for p in points]).mean())


def table(runs: dict[str, dict[str, Any]], seeds: list[int]) -> Iterator[str]:
    """The held-out figures of every method, mean and deviation over seeds, and the differences by seed.

    Equal time is the time of the fastest run of the same seed from the same start.
    """
    heads = ["method", "at the end", "less plain", "over equal samples", "less plain", "over equal time", "less plain"]
    heads += ["mean IoU", "seconds"]
    yield "| " + " | ".join(heads) + " |"
    yield "| --- " * len(heads) + "|"
    done = [name for name in METHODS if all(f"{name}/{seed}" in runs for seed in seeds)]
    for name in done:
        beside, figures = METHODS[name].beside, []
        mine, plain = ([runs[f"{which}/{seed}"] for seed in seeds] for which in (name, beside))
        peers = [[runs[f"{peer}/{seed}"] for peer in done if METHODS[peer].beside == beside] for seed in seeds]
        time_of_all = [min(run["points"][-1]["seconds"] for run in of_seed) for of_seed in peers]
        steps = [run["points"][-1]["step"] for run in plain]
        for measured in (
            [[run["points"][-1]["accuracy"] for run in which] for which in (mine, plain)],
            [[over(run, "step", end) for run, end in zip(which, steps, strict=True)] for which in (mine, plain)],
            [[over(run, "seconds", t) for run, t in zip(which, time_of_all, strict=True)] for which in (mine, plain)],
        ):
            figures.append(spread(measured[0]))
            differences = [a - b for a, b in zip(*measured, strict=True)]
            figures.append("" if name == beside else spread(differences, "+"))
        for key in ("mean_iou", "seconds"):
            figures.append(f"{fmean(run['points'][-1][key] for run in mine):.{2 if key == 'mean_iou' else 0}f}")
        yield "| " + " | ".join([name if name == beside else f"`{name}`", *figures]) + " |"


def spread(values: list[float], sign: str = "") -> str:
    """Mean and deviation."""
    return f"{fmean(values):{sign}.3f} ± {pstdev(values):.3f}"


def draw(runs: dict[str, dict[str, Any]], seeds: list[int], path: Path) -> None:
    """A panel a method: its held-out accuracy over seconds, its seeds as thin lines, and its plain run in grey."""
    names = [n for n, method in METHODS.items() if method.beside != n and all(f"{n}/{seed}" in runs for seed in seeds)]
    columns = 4
    height = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * height), layout="constrained")
    panels = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        _curve(axes, [runs[f"{METHODS[name].beside}/{seed}"] for seed in seeds], "0.5", METHODS[name].beside)
        _curve(axes, [runs[f"{name}/{seed}"] for seed in seeds], "tab:blue", name)
        axes.set_title(
            name if METHODS[name].beside == "plain" else f"{name} (grey: {METHODS[name].beside})", fontsize=9
        )
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("processor seconds of training", fontsize=10)
    figure.supylabel("held-out accuracy", fontsize=10)
    figure.savefig(path, dpi=130)


def _curve(axes: matplotlib.axes.Axes, of_seeds: list[dict[str, Any]], colour: str, label: str) -> None:
    lines = []
    for run in of_seeds:
        times = [0.0, *(point["seconds"] for point in run["points"])]
        accuracies = [run["start"], *(point["accuracy"] for point in run["points"])]
        axes.plot(times, accuracies, color=colour, alpha=0.35, linewidth=0.8)
        lines.append((times, accuracies))
    axes.plot(*np.mean(lines, axis=0), color=colour, linewidth=2, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="The folder of a quickstart whose supervised stage is done.")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=8, help="Steps between two looks at the held-out rows.")
    parser.add_argument(
        "--seeing-steps", type=int, default=40, help="Supervised steps that teach to say what is seen."
    )
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    file = given.output / "runs.json"
    runs: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    starts: dict[bool, Path] = {False: given.start, True: given.output / "seeing"}
    held_out = HeldOut(load(given.start / "sft")[1], given.every)
    before: dict[Path, float] = {}
    for seed in given.seeds:
        for name in given.methods:
            if f"{name}/{seed}" in runs:
                continue
            sees = METHODS[name].beside == "plain, says what it sees"
            start = starts[sees]
            if sees and not (start / "sft" / "config.json").exists():
                teach_to_see(given.start, start, given.seeing_steps)
            if start not in before:
                before[start] = held_out.score(load(start / "sft")[0])["accuracy"]
            runs[f"{name}/{seed}"] = {
                "start": before[start],
                **train(METHODS[name], start, held_out, seed, given.steps),
            }
            file.write_text(json.dumps(runs))
            last = held_out.points[-1]
            print(
                f"{name}, seed {seed}: {before[start]:.3f} -> {last['accuracy']:.3f}, {last['seconds']:.0f} s",
                flush=True,
            )
            gc.collect()
    print("\n".join(table(runs, given.seeds)))
    if given.picture:
        draw(runs, given.seeds, given.picture)


if __name__ == "__main__":
    main()
