"""Trains cases of rows with and without images on the processes it is given, and prints what the main one logs."""

from __future__ import annotations

import json
import sys
from typing import Any

import tiny
import torch
from accelerate.state import AcceleratorState
from ranks import leave, say
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from two_ranks import zero

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer

# On two ranks: a step with text beside images, one without an image, one with images alone, and the reverse
TEXT_ROWS = (0, 2, 3, 7)

# What a rank's batch of two rows may be made of, as images a row
COMPOSITIONS = {"text": (0, 0), "images": (1, 1), "several": (2, 3), "mixed": (0, 2)}


def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """Equal for completions of seven tokens: a group of those has no gradient."""
    return [1.0 if len(ids) == 7 else sum(ids) % 17 / 17 for ids in completion_ids]


def by_place(completions: list[Any], **kwargs: Any) -> list[float]:
    """Advantages for completions that are generated greedily, and so equal within a group: they cancel out."""
    return [float(place % 4) for place in range(len(completions))]


def asking(
    completions: list[Any], images: list[Any], ask_policy: list[Any], log_extra: Any, **kwargs: Any
) -> list[float]:
    """Asks again about rows with an image: of two ranks on one, on none, on both, and on the other."""

    def about(place: int, image: Any) -> list[dict[str, Any]]:
        text = {"type": "text", "text": f"What is at {place % 4}?"}
        return [{"role": "user", "content": [{"type": "image", "image": image}, text]}]

    replies = ask_policy[0]([about(place, row[0]) if row else None for place, row in enumerate(images)])
    log_extra("reply", replies)
    return [len(reply or "") / 10 for reply in replies]


class GivenInTurn:
    """Completions that are given, others at each generation; a rank takes its share."""

    with_image_token: tuple[int, ...] = ()  # which of the first sixteen hold one

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        turn = self.state.global_step * len(prompt_ids) * ranks
        lengths = [5, 9, 3, 16, 7, 7, 7, 7, 12, 1, 4, 6, 2, 7, 8, 3]
        start = turn + rank * len(prompt_ids)
        taken = [tiny.completions([lengths[n % 16]], seed=n)[0] for n in range(start, start + len(prompt_ids))]
        for n in {*range(start, start + len(prompt_ids))} & {*self.with_image_token}:
            taken[n - start][0] = tiny.SPECIAL.index("<|image_pad|>")
        return taken, None


def train(
    folder: str,
    stage: int = 0,
    fsdp: bool = False,
    generate: bool = False,
    asks: bool = False,
    with_image_token: tuple[int, ...] = (),
    compositions: tuple[str, ...] = (),
    **args: Any,
) -> Any:
    """The trainer of one case, trained; with SGD, to which a gradient of zero is the same as none.

    `compositions` are those of the batches, of one rank and the other in turn.
    """
    # A wider one, of which the greedy completion depends on the prompt
    model, processor = tiny.build("qwen2_5_vl", std=0.3 if generate else 0.08)
    settings = {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "num_generations": 4,
        "max_completion_length": 4 if generate else 16,
        "max_steps": 2 if generate and not asks else 4,
        "logging_steps": 1,
        "learning_rate": 0.1,
        "optim": "sgd",
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "deepspeed": zero(stage) if stage else None,
    }
    kind, rewards, given = (
        OneVisionGRPOTrainer,
        [by_place, *[asking] * asks],
        {"with_image_token": tuple(with_image_token)},
    )
    if not generate:
        kind, rewards = type("OneVisionGRPOTrainer", (GivenInTurn, OneVisionGRPOTrainer), given), [reward]
    images = [count for name in compositions for count in COMPOSITIONS[name]]
    data = tiny.mixed(*images) if images else tiny.dataset(8, text_rows=TEXT_ROWS)
    trainer = kind(model, rewards, OneVisionGRPOConfig(**settings | args), data, processing_class=processor)
    if fsdp:
        update_sharded(trainer)
    else:
        trainer.train()
    return trainer


def update_sharded(trainer: Any, steps: int = 4) -> None:
    """Losses and gradients of a model that FSDP2 shards over the ranks, which accelerate does not do on a CPU."""
    model, accelerator = trainer.model, trainer.accelerator
    if accelerator.num_processes > 1:
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        for block in [*model.get_decoder().layers, *model.base_model.visual.blocks, model]:
            fully_shard(block, mesh=mesh)
    model.train()
    trainer.current_gradient_accumulation_steps = 1
    batches = iter(trainer.get_train_dataloader())
    for trainer.state.global_step in range(steps):
        model.zero_grad()
        loss = trainer.compute_loss(model, trainer._prepare_inputs(next(batches)))
        loss.backward()
        trainer._step += 1
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        whole = [gradient.full_tensor() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        norm = torch.nn.utils.get_total_norm(whole).item()
        log = {"loss": accelerator.reduce(loss.detach(), "mean").item(), "grad_norm": norm}
        trainer.state.log_history.append({**log, "step": trainer.state.global_step})
    trainer.state.log_history.append({})  # where training ends with its summary


def summary(trainer: Any) -> dict[str, Any]:
    """What is compared: the log, and the table of completions."""
    return {
        "log": trainer.state.log_history[:-1],
        "images": [len(row or []) for row in trainer._logs["images"]],
        "completions": [completion[0]["content"] for completion in trainer._logs["completion"]],
        "replies": list(trainer._logs["extra"]["reply"]),
    }


if __name__ == "__main__":
    for case in json.loads(sys.argv[2]):
        trainer = train(sys.argv[1], **case)
        say(summary(trainer))
        del trainer
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=False)
    leave()
