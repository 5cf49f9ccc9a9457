"""Rows with and without images train beside each other on TRL's own path too, each scored as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import OURS, logps, update
from peft import LoraConfig
from tiny import completions, mixed
from trl.data_utils import prepare_multimodal_messages

LENGTHS = [5, 9, 3, 12, 7, 1, 2, 16, 4, 4, 8, 6]
TRLS_PATH = {**OURS, "options": {"share_prompt": "false"}}


def alone(trainer: Any, row: dict[str, Any], completion: list[int]) -> torch.Tensor:
    """Log-probabilities of a completion by the model's own forward on its row alone."""
    processor, images = trainer.processing_class, row["images"]
    text = processor.apply_chat_template(
        [prepare_multimodal_messages(row["prompt"], images=images)], add_generation_prompt=True
    )
    inputs = dict(processor(text=text, images=[images] if images else None, return_tensors="pt"))
    tail = torch.tensor([completion])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tail], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(tail.shape)], dim=1)
    with torch.no_grad():
        scores = trainer.model(**inputs).logits[0, -len(completion) - 1 : -1].float().log_softmax(-1)
    return scores.gather(1, tail.T)[:, 0]


@pytest.mark.parametrize("settings", [TRLS_PATH, OURS], ids=["TRL's path", "shared"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("images", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_each_row_is_scored_as_if_it_were_alone(
    make: Callable[..., Any], settings: dict[str, Any], family: str, images: tuple[int, ...]
) -> None:
    data, given = mixed(*images), completions(LENGTHS)
    batch = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "shuffle_dataset": False}
    trainer = make(**settings, family=family, given=given, data=data, **batch)
    scores_BT, _ = logps(trainer)
    for n, completion in enumerate(given):
        expected = alone(trainer, data[n // 4], completion)
        assert (scores_BT[n, : len(completion)] - expected).abs().max() < 1e-5, n


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_old_and_policy_passes_in_chunks_and_micro_batches_without_an_image(
    make: Callable[..., Any], family: str
) -> None:
    """Two of four micro-batches have no image, and so have chunks of the reference pass."""
    settings = {"data": mixed(0, 1, 0, 2), "given": completions(LENGTHS + LENGTHS[:4])}
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "beta": 0.1}
    results = [update(make(**kind, family=family, **settings, **batch)) for kind in (TRLS_PATH, OURS)]
    assert results[0].loss == pytest.approx(results[1].loss, abs=1e-6)
    for name, expected in results[1].gradients.items():
        if expected is not None and expected.norm() > 1e-6:
            assert (results[0].gradients[name] - expected).norm() < 1e-4 * expected.norm(), name


def test_the_dropout_that_trl_gives_lora_trains_mixed_rows(make: Callable[..., Any]) -> None:
    adapter = LoraConfig(r=4, lora_dropout=0.05, target_modules=["q_proj"], init_lora_weights=False)
    trainer = make(**{**OURS, "options": {}}, peft_config=adapter, data=mixed(0, 1, 2, 0), max_steps=2)
    trainer.train()
    assert all(log["grad_norm"] > 0 for log in trainer.state.log_history[:-1])
