"""Trains a few steps on two CPU processes and prints the main process's log; run by `test_distributed.py`."""

from __future__ import annotations

import sys
from typing import Any

import tiny
from ranks import leave, say
from trl import GRPOConfig, GRPOTrainer

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer


def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """Zero advantage for a whole group now and then: its rank still has to make its pass."""
    return [1.0 if len(ids) == 7 else sum(ids) % 17 / 17 for ids in completion_ids]


class Given(tiny.Given):
    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        start = self.accelerator.process_index * len(prompt_ids)
        return self.completions[start : start + len(prompt_ids)], None


def zero(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a stage of ZeRO, as `--accelerate_config zero2` or `zero3` makes it."""
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {"zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True} | dict.fromkeys(auto, "auto")


def main(which: str, group: int, folder: str, stage: int) -> None:
    model, processor = tiny.build("qwen2_5_vl")
    ours = which != "stock"
    options = {"share_prompt": True, "loss": which} if ours else {}
    args = (OneVisionGRPOConfig if ours else GRPOConfig)(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_generations=group,
        max_completion_length=16,
        max_steps=3,
        logging_steps=1,
        learning_rate=1e-3,
        save_strategy="no",
        disable_tqdm=True,
        deepspeed=zero(stage) if stage else None,
        **options,
    )
    kind = OneVisionGRPOTrainer if ours else GRPOTrainer
    if not stage:  # ZeRO generates, for the weights have to be gathered for it
        given = tiny.completions([5, 9, 3, 16, 7, 7, 7, 7, 12, 1, 4, 6, 7, 7, 7, 7])
        kind = type(kind.__name__, (Given, kind), {"completions": given})
    trainer = kind(model, reward, args, tiny.dataset(16), processing_class=processor)
    trainer.train()
    say(trainer.state.log_history[:-1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    leave()
