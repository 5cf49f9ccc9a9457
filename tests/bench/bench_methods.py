"""What each method between rewards and loss does on the quickstart's digits, beside the plain run, over seeds.

    trl-onevision quickstart --output runs/quickstart
    python tests/bench/bench_methods.py runs/quickstart --seeds 0 1 2

Every run starts from the quickstart's supervised checkpoint and takes its GRPO recipe with one option changed. The
table has the held-out figures after as many steps (equal samples), the seconds that they took, and the accuracy that
the plain run's time buys (equal time): that of the last step within it, from its own log of the training rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import yaml

from trl_onevision.quickstart.digits import rows
from trl_onevision.quickstart.evaluate import answer, rewards_of
from trl_onevision.quickstart.run import Size
from trl_onevision.recipes import recipe_path

RIGHT = {"correct": "accuracy_reward"}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    **{name: {"advantage": name, **RIGHT} for name in ("odsw-easy", "odsw-medium", "odsw-hard", "observe", "stcr")},
    "ema": {"advantage": "ema"},
    "resample": {"resample": 2},
    "papo": {"terms": {"papo": {"gamma": 0.02, "mask": 0.6}}},
}


def train(start: Path, output: Path, name: str, seed: int, steps: int) -> dict[str, float]:
    """One run of the recipe with a method's options: held-out figures, seconds, and its log."""
    folder = output / f"{name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = yaml.safe_load(recipe_path("quickstart-grpo").read_text())
    recipe["env"]["TRL_ONEVISION"] |= METHODS[name]
    recipe |= {"model_name_or_path": str(start / "sft"), "dataset_name": str(start / "data" / "grpo")}
    recipe |= {"output_dir": str(folder), "seed": seed, "max_steps": steps}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "trl.cli.main", "grpo", "--config", str(folder / "recipe.yaml")],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}: {done.stderr[-2000:]}")
    seconds = time.perf_counter() - began
    held_out = list(rows("held-out", Size().held_out_rows))
    completions = [text for batch in answer(folder, held_out, recipe["max_completion_length"]) for text in batch]
    state = json.loads(sorted(folder.glob("checkpoint-*/trainer_state.json"))[-1].read_text())
    log = [entry for entry in state["log_history"] if "step_time" in entry]
    (folder / "log.json").write_text(json.dumps(log))
    return {**rewards_of(held_out, completions), "seconds": seconds}


def within(output: Path, name: str, seed: int, seconds: float) -> float:
    """Training accuracy of the last ten steps that fit into so many seconds of steps."""
    spent, accuracies = 0.0, []
    for entry in json.loads((output / f"{name}-{seed}" / "log.json").read_text()):
        spent += entry["step_time"]
        if spent > seconds:
            break
        accuracies.append(entry["rewards/accuracy_reward/mean"])
    return fmean(accuracies[-10:]) if accuracies else float("nan")


def spread(values: list[float]) -> str:
    """Mean and deviation."""
    return f"{fmean(values):.3f} ± {pstdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="The folder of a quickstart that is done.")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    output = given.output.resolve()
    budget: dict[int, float] = {}
    print("| method | accuracy | mean IoU | format | training accuracy at equal time | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in given.methods:
        runs = [train(given.start.resolve(), output, name, seed, given.steps) for seed in given.seeds]
        for seed in given.seeds:
            log = json.loads((output / f"{name}-{seed}" / "log.json").read_text())
            budget.setdefault(seed, sum(entry["step_time"] for entry in log))
        equal_time = [within(output, name, seed, budget[seed]) for seed in given.seeds]
        figures = [spread([run[key] for run in runs]) for key in ("accuracy", "mean_iou", "format")]
        seconds = f"{fmean(run['seconds'] for run in runs):.0f}"
        print("| " + " | ".join([name, *figures, spread(equal_time), seconds]) + " |", flush=True)


if __name__ == "__main__":
    main()
