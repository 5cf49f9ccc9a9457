"""The loss of TRL and the fused one on two processes, under DDP or FSDP2; `test_ranks.py` runs it and reads its files.

two_ranks.py DDP|FSDP2 FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
from ranks import leave
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trl_onevision.grpo.options import OneVisionGRPOConfig
from trl_onevision.grpo.trainer import OneVisionGRPOTrainer

RANK = int(os.environ.get("RANK", 0))


class Trainer(OneVisionGRPOTrainer):
    """Trains on completions of unequal lengths that differ between the processes."""

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        generator = torch.Generator().manual_seed(RANK)
        lengths = [3 + 4 * row + RANK for row in range(len(prompt_ids))]
        return [torch.randint(20, 260, (length,), generator=generator).tolist() for length in lengths], None


def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [sum(ids) % 17 / 17 for ids in completion_ids]


def build(loss: str, folder: Path) -> Trainer:
    model, processor = tiny.build("qwen2_5_vl")
    args = OneVisionGRPOConfig(
        output_dir=str(folder / "out"),
        loss=loss,
        share_prompt=True,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return Trainer(model, reward, args, tiny.dataset(4), processing_class=processor)


def step(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What one optimizer step under DDP, with a learning rate of one, takes off the weights."""
    model = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


def sharded_gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The gradients of one micro-batch with every parameter sharded, gathered again."""
    model = trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    trainer.compute_loss(model, inputs).backward()
    return {name: p.grad.full_tensor() for name, p in model.named_parameters()}


if __name__ == "__main__":
    work, folder = {"DDP": step, "FSDP2": sharded_gradients}[sys.argv[1]], Path(sys.argv[2])
    torch.save({loss: work(build(loss, folder)) for loss in ("trl", "liger")}, folder / f"rank{RANK}.pt")
    leave()
