"""Trains a few steps on one or two CPU processes and prints the main process's log; run by `test_step_ranks.py`.

Completions follow from the prompt alone, so that what a run does with them is the same however it is split.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import tiny
import torch.distributed
from accelerate.utils import gather_object

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer


def accuracy(completion_ids: list[list[int]], pays: list[str], **kwargs: Any) -> list[float]:
    """What a row pays: nothing, a whole, or one to completions of even sum."""
    fixed = {"none": 0.0, "all": 1.0}
    return [fixed.get(pay, float(sum(ids) % 2)) for ids, pay in zip(completion_ids, pays, strict=True)]


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


def main(folder: str, pays: str, options: str, arguments: str) -> None:
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
    settings |= json.loads(arguments)
    resume = settings.pop("resume", None)
    model, processor = tiny.build("qwen2_5_vl")
    args = OneVisionGRPOConfig(**settings, **json.loads(options))
    trainer = Scripted(model, accuracy, args, dataset(json.loads(pays)), processing_class=processor)
    trained: list[list[float]] = []
    compute_loss = trainer._compute_loss

    def noted(model: Any, inputs: dict[str, Any]) -> Any:
        rows = list(zip(inputs["prompt_ids"].sum(1).tolist(), inputs["advantages"].tolist(), strict=True))
        trained.append(sorted(gather_object(rows)))
        return compute_loss(model, inputs)

    trainer._compute_loss = noted
    trainer.train(resume_from_checkpoint=resume)
    if trainer.accelerator.is_main_process:
        log = [{k: v for k, v in step.items() if "time" not in k} for step in trainer.state.log_history[:-1]]
        sys.stdout.write(f"LOG{json.dumps({'log': log, 'trained': trained})}\n")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
