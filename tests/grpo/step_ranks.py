"""Trains a few steps on one or two CPU processes and prints the main process's log; run by `test_step_ranks.py`.

Completions follow from the prompt alone, so that what a run does with them is the same however it is split.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import tiny
from accelerate.utils import gather_object
from ranks import leave, say

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer

calls: list[int] = []


def accuracy(completion_ids: list[list[int]], pays: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
    """What a row pays: nothing, a whole, or one to completions of odd length, which each group has."""
    calls.append(trainer_state.global_step)
    if os.environ.get("KILLED_AT") == f"{calls[-1]} {calls.count(calls[-1])}":
        os.kill(os.getpid(), signal.SIGKILL)
    fixed = {"none": 0.0, "all": 1.0}
    return [fixed.get(pay, float(len(ids) % 2)) for ids, pay in zip(completion_ids, pays, strict=True)]


class Scripted(OneVisionGRPOTrainer):
    """The member of a group decides its completion, with its prompt; nothing is sampled."""

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        start = self.accelerator.process_index * len(prompt_ids)
        completions = []
        for i, ids in enumerate(prompt_ids, start):
            member = i % self.num_generations
            completions.append(tiny.completions([3 + (sum(ids) + 5 * member) % 9], seed=sum(ids) + member)[0])
        return completions, None


def dataset(pays: list[str]) -> Any:
    data = tiny.dataset(len(pays)).add_column("pays", pays).add_column("row", list(range(len(pays))))
    data = data.add_column("task", ["math" if i % 2 else "boxes" for i in range(len(pays))])
    return data.add_column("source", ["clevr" if i % 3 else "refcoco" for i in range(len(pays))])


def main(folder: str, pays: list[str], options: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """A run's log, and the rows and advantages of each micro-batch."""
    calls.clear()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    settings = {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": 8 // ranks,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 16,
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
    }
    settings |= arguments
    resume = settings.pop("resume", None)
    model, processor = tiny.build("qwen2_5_vl")
    if settings.get("beta"):  # TRL loads the reference from where the model lies
        lies = Path(folder, f"model-{os.environ.get('RANK', '0')}")
        model.save_pretrained(lies)
        model.config._name_or_path = str(lies)
    args = OneVisionGRPOConfig(**settings, **options)
    trainer = Scripted(model, accuracy, args, dataset(pays), processing_class=processor)
    trained: list[list[float]] = []
    compute_loss = trainer._compute_loss

    def noted(model: Any, inputs: dict[str, Any]) -> Any:
        rows = list(zip(inputs["prompt_ids"].sum(1).tolist(), inputs["advantages"].tolist(), strict=True))
        trained.append(sorted(gather_object(rows)))
        return compute_loss(model, inputs)

    trainer._compute_loss = noted
    trainer.train(resume_from_checkpoint=resume)
    log = [{k: v for k, v in step.items() if "time" not in k} for step in trainer.state.log_history[:-1]]
    return {"log": log, "trained": trained}


if __name__ == "__main__":
    say(main(sys.argv[1], *map(json.loads, sys.argv[2:])))
    leave()
