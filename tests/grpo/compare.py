"""What two trainers are compared by: one update of each, their gradients and metrics, and their log-probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from trl.data_utils import prepare_multimodal_messages

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.rollout import PER_TOKEN_FIELDS
from trl_onevision.grpo.rows import IMAGE_FIELDS

OURS: dict[str, Any] = {
    "kind": OneVisionGRPOTrainer,
    "config": OneVisionGRPOConfig,
    "options": {"share_prompt": True},
}
ONE_BATCH: dict[str, Any] = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
ROUNDING = 1e-7  # of the largest gradient, in fp32


def update(trainer: Any, repeats: int = 1) -> SimpleNamespace:
    """One accumulation window on the trainer's first generation batch: losses, gradients and metrics."""
    trainer.model.train()
    if trainer.args.gradient_checkpointing:  # `train` would do so
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    batches = iter(trainer.get_train_dataloader())
    loss = 0.0
    for _ in range(trainer.args.gradient_accumulation_steps * repeats):
        inputs = trainer._prepare_inputs(next(batches))
        step_loss = trainer.compute_loss(trainer.model, inputs)
        step_loss.backward()
        loss += step_loss.item()
        trainer._step += 1
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
    metrics = {name: sum(v) / len(v) for name, v in trainer._metrics["train"].items()}
    # TRL averages some metrics over micro-batches, and which rows meet in one is where its shuffle and ours differ.
    if trainer.args.gradient_accumulation_steps > 1:
        metrics = {name: value for name, value in metrics.items() if name.startswith(("reward", "completions"))}
    return SimpleNamespace(loss=loss, gradients=gradients, metrics=metrics)


def assert_same(ours: SimpleNamespace, stock: SimpleNamespace, but: tuple[str, ...] = ()) -> None:
    """Loss within 1e-6, each gradient within 1e-4 relative, and the metrics of TRL."""
    assert abs(ours.loss - stock.loss) < 1e-6
    assert ours.gradients.keys() == stock.gradients.keys()
    reached = [name for name, gradient in stock.gradients.items() if gradient is not None and gradient.norm() > 0]
    assert reached, "a comparison of nothing"
    largest = max(stock.gradients[name].norm() for name in reached)
    for name, expected in stock.gradients.items():
        if expected is None:
            assert ours.gradients[name] is None or not ours.gradients[name].any(), name
            continue
        if expected.norm() < ROUNDING * largest:  # of an exact zero, such as that of a bias the softmax cancels
            assert ours.gradients[name].norm() < ROUNDING * largest, name
            continue
        error = (ours.gradients[name] - expected).norm() / expected.norm()
        assert error < 1e-4, f"{name}: {error}"
    assert ours.metrics.keys() == stock.metrics.keys()
    for name, expected in stock.metrics.items():
        if name not in but and "time" not in name:
            assert ours.metrics[name] == pytest.approx(expected, abs=1e-5, nan_ok=True), name


def logps(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of the trainer's first generation batch, in the loader's order."""
    trainer.model.train()
    batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    fields = (*IMAGE_FIELDS, *PER_TOKEN_FIELDS, "num_images", "num_tiles")
    with torch.no_grad():
        scores = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].size(1),
            compute_entropy=True,
            **{key: batch[key] for key in fields if key in batch},
        )
    return scores[0], scores[1]


def sampled(trainer: Any) -> list[int]:
    """Every token of a first generation, on pictures."""
    trainer.model.train()
    rows = next(iter(trainer.get_train_dataloader()))
    ids, images, fields = trainer._tokenize_prompts(
        [prepare_multimodal_messages(row["prompt"], images=[tiny.picture(0)]) for row in rows]
    )
    completion_ids, _ = trainer._generate_single_turn(ids, images, fields, trainer.num_generations)
    return [token for row in completion_ids for token in row]
