"""The quickstart's stages, in order, each run once and remembered, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trl_onevision.console import fail, progress
from trl_onevision.data.writer import write_dataset
from trl_onevision.json_file import write_json
from trl_onevision.recipes import recipe_path

STATE = "quickstart.json"
RESULTS = "results.json"
PREDICTIONS = "predictions.json"
MAX_NEW_TOKENS = 22
TQDM = re.compile(r"(\d+)/(\d+) \[")


@dataclass(frozen=True)
class Size:
    """How many rows the quickstart renders and how many steps it trains; `steps` None is what the recipes say."""

    sft_rows: int = 3200
    grpo_rows: int = 3200
    held_out_rows: int = 600
    steps: int | None = None


class QuickstartError(RuntimeError):
    """The quickstart cannot go on; the message says why and what to do."""


@dataclass
class Run:
    """One quickstart: its folder, its size and seed, and the seconds that each finished stage took."""

    output: Path
    size: Size
    seed: int
    console: Console
    seconds: dict[str, float]

    def fresh(self, name: str) -> Path:
        """A path in the output folder, emptied of what an interrupted stage left there."""
        shutil.rmtree(self.output / name, ignore_errors=True)
        return self.output / name


def render(run: Run) -> str:
    """Draw the three splits, which share no scan."""
    from trl_onevision.quickstart.digits import SPLITS, rows

    data = run.fresh("data")
    counts = {"sft": run.size.sft_rows, "grpo": run.size.grpo_rows, "held-out": run.size.held_out_rows}
    for split, count in counts.items():
        with progress(run.console) as bars:
            drawn = bars.track(rows(split, count), total=count, description=f"    drawing {split} rows")
            write_dataset(drawn, data / split, purpose="sft" if split == "sft" else "grpo")
    return ", ".join(f"{count} {split} rows of {SPLITS[split]} scans" for split, count in counts.items())


def build(run: Run) -> str:
    """Save a small Qwen2.5-VL with random weights, and its processor."""
    from transformers.utils.logging import disable_progress_bar

    from trl_onevision.quickstart.model import build_model, build_processor

    disable_progress_bar()  # of shards, of which there is one
    processor = build_processor()
    model = build_model(processor, run.seed)
    folder = run.fresh("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"{model.num_parameters() / 1e6:.1f} million parameters, random weights"


def train_sft(run: Run) -> str:
    """`trl sft` on the labelled rows."""
    return _trl(run, "sft")


def train_grpo(run: Run) -> str:
    """`trl grpo` with the three rewards on the rest."""
    return _trl(run, "grpo")


def score(run: Run) -> str:
    """Let both checkpoints answer the held-out rows, and score the answers with the rewards of the training."""
    from trl_onevision.quickstart.digits import rows
    from trl_onevision.quickstart.evaluate import answer, rewards_of

    held_out = list(rows("held-out", run.size.held_out_rows))
    results: dict[str, Any] = {}
    predictions = [{"id": row["id"], "task": row["task"], "solution": row["solution"]} for row in held_out]
    for moment, checkpoint in {"before": "sft", "after": "grpo"}.items():
        with progress(run.console) as bars:
            batches = bars.track(
                answer(run.output / checkpoint, held_out, MAX_NEW_TOKENS), total=None, description=f"    {moment} GRPO"
            )
            completions = [text for batch in batches for text in batch]
        results[moment] = rewards_of(held_out, completions)
        for prediction, completion in zip(predictions, completions, strict=True):
            prediction[moment] = completion
    write_json(run.output / PREDICTIONS, predictions)
    write_json(run.output / RESULTS, results)
    return f"{len(held_out)} held-out rows, twice"


def draw(run: Run) -> str:
    """The reward curves of the GRPO run, and a sheet of held-out rows with what the model said."""
    from trl_onevision.quickstart.digits import rows
    from trl_onevision.quickstart.draw import draw_curves, draw_samples

    held_out = list(rows("held-out", run.size.held_out_rows))
    predictions = json.loads((run.output / PREDICTIONS).read_text())
    draw_curves(_log_history(run.output / "grpo"), run.output / "curves.png")
    draw_samples(held_out, predictions, run.output / "samples.png")
    return f"{run.output / 'curves.png'}, {run.output / 'samples.png'}"


STAGES: dict[str, Callable[[Run], str]] = {
    "Render digits": render,
    "Build the model": build,
    "Supervised fine-tuning": train_sft,
    "GRPO": train_grpo,
    "Score before and after": score,
    "Draw": draw,
}


def quickstart(
    output: Path, *, resume: bool = False, overwrite: bool = False, size: Size | None = None, seed: int = 0
) -> dict[str, Any]:
    """Train a small vision-language model on real digit scans with `trl sft` and `trl grpo`, and show what it learned.

    `output` then holds `data/`, `model/`, the two recipes, the checkpoints `sft/` and `grpo/`, a log of each run,
    `results.json`, `predictions.json`, `curves.png` and `samples.png`. Returns what `results.json` holds: accuracy,
    mean IoU and format on the held-out rows before and after GRPO, all from 0 to 1, and the seconds taken.

    Raises `QuickstartError` when `output` holds something and neither `resume` nor `overwrite` is given, when what it
    holds is no quickstart's, and when a stage fails; `OSError` when `output` cannot be written. What was finished is
    kept.
    """
    missing = [module for module in ("sklearn", "matplotlib") if find_spec(module) is None]
    if missing:
        raise QuickstartError(f"{' and '.join(missing)} not found. Install: pip install 'trl-onevision[quickstart]'")
    run = Run(output, size or Size(), seed, Console(), _open(output, resume=resume, overwrite=overwrite))
    for number, (title, stage) in enumerate(STAGES.items(), 1):
        head = f"[bold]{number}/{len(STAGES)} {title}[/]"
        if title in run.seconds:
            run.console.print(f"{head} · done in an earlier run")
            continue
        run.console.print(head)
        started = time.perf_counter()
        try:
            detail = stage(run)
        except KeyboardInterrupt:
            raise QuickstartError(f"Interrupted in stage {number}, {title}. {_how_to_go_on(run)}") from None
        except OSError as error:  # a full disk
            raise QuickstartError(f"Stage {number}, {title}: {error}. {_how_to_go_on(run)}") from error
        run.seconds[title] = round(time.perf_counter() - started, 1)
        write_json(output / STATE, run.seconds)
        run.console.print(f"    {detail} · {run.seconds[title]:.0f} s", highlight=False, soft_wrap=True)
    results: dict[str, Any] = json.loads((output / RESULTS).read_text())
    results["seconds"] = round(sum(run.seconds.values()), 1)  # once each stage has its time
    write_json(output / RESULTS, results)
    run.console.print(_table(results))
    return results


def quickstart_command(
    output: Annotated[Path, typer.Option(help="A new folder for data, model, checkpoints, table and pictures.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in this folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away the run in this folder.")] = False,
    seed: Annotated[int, typer.Option(help="Of the model's first weights and of both trainings.")] = 0,
) -> None:
    """Train a small vision-language model on real images, end to end, on this machine's CPU in minutes."""
    try:
        quickstart(output, resume=resume, overwrite=overwrite, seed=seed)
    except (QuickstartError, OSError) as error:
        fail(error)


def _open(output: Path, *, resume: bool, overwrite: bool) -> dict[str, float]:
    """The seconds of the stages that are done in `output`; empty for a new folder."""
    if resume and overwrite:
        raise QuickstartError("--resume goes on with a run, --overwrite throws it away: give one of the two.")
    if output.exists() and not output.is_dir():
        raise QuickstartError(f"{output}: found a file, expected a folder. Name another with --output.")
    held = sorted(path.name for path in output.iterdir()) if output.exists() else []
    if held and STATE not in held:
        raise QuickstartError(
            f"{output}: holds {', '.join(held[:5])}, which no quickstart made. Nothing was changed: name a new folder."
        )
    if held and not (resume or overwrite):
        raise QuickstartError(
            f"{output}: holds a quickstart already. Go on with it: --resume; throw it away and start over: --overwrite"
        )
    if resume and not held:
        raise QuickstartError(f"{output}: no quickstart to go on with. Leave --resume out to start one.")
    if overwrite and held:
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / STATE).exists():
        write_json(output / STATE, {})
    try:
        seconds: dict[str, float] = dict(json.loads((output / STATE).read_bytes()))
    except (ValueError, TypeError) as error:
        raise QuickstartError(
            f"{output / STATE}: found no JSON object ({error}), expected the seconds of each finished stage. Start "
            "over with --overwrite, or name a new folder."
        ) from error
    return seconds


def _trl(run: Run, method: str) -> str:
    """Run the literal `trl METHOD` in the output folder: what it prints goes to a log, its steps to the terminal."""
    recipe = recipe_path(f"quickstart-{method}")
    shutil.copyfile(recipe, run.output / recipe.name)
    checkpoint, log = run.fresh(method), run.output / f"{method}.log"
    arguments = [method, "--config", recipe.name]
    if run.seed:
        arguments += ["--seed", str(run.seed)]
    if run.size.steps is not None:
        arguments += ["--max_steps", str(run.size.steps)]
    command = f"cd {shlex.quote(str(run.output))} && {shlex.join(['trl', *arguments])}"
    run.console.print(f"    [cyan]{command}[/]", highlight=False, soft_wrap=True)  # whole, so that it can be copied
    tail: deque[str] = deque(maxlen=20)
    with (
        log.open("w", encoding="utf-8") as sink,
        progress(run.console) as bars,
        subprocess.Popen(
            [sys.executable, "-m", "trl.cli.main", *arguments],
            cwd=run.output,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        task = bars.add_task("    steps", total=None)
        assert process.stdout is not None
        try:
            for line in process.stdout:  # in text mode, the carriage returns of tqdm end a line too
                sink.write(line)
                tail.append(line)
                if step := TQDM.search(line):
                    bars.update(task, completed=int(step[1]), total=int(step[2]))
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # `trl` launches the training as a process of its own
            raise
    if process.returncode:
        raise QuickstartError(
            f"`trl {' '.join(arguments)}` ended with status {process.returncode}; the last lines of {log}:\n"
            f"{''.join(tail)}{_how_to_go_on(run)}"
        )
    return f"checkpoint in {checkpoint}, log in {log}"


def _log_history(checkpoint: Path) -> list[dict[str, Any]]:
    """What the trainer logged, step by step, as it stands in the last state it saved."""
    states = sorted(checkpoint.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    history: list[dict[str, Any]] = json.loads(states[-1].read_text())["log_history"]
    return history


def _how_to_go_on(run: Run) -> str:
    seed = f" --seed {run.seed}" if run.seed else ""
    command = f"trl-onevision quickstart --output {shlex.quote(str(run.output))}{seed} --resume"
    return f"What was finished is kept; go on with: {command}"


def _table(results: dict[str, Any]) -> Table:
    table = Table("held-out rows", "before GRPO", "after GRPO", "change", title="Quickstart")
    for name, label in {"accuracy": "accuracy", "mean_iou": "mean IoU", "format": "format"}.items():
        before, after = results["before"][name], results["after"][name]
        table.add_row(label, f"{before:.2f}", f"[bold]{after:.2f}[/]", f"{after - before:+.2f}")
    table.caption = f"{results['seconds']:.0f} seconds"
    return table
