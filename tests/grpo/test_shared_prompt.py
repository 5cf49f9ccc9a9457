"""A group scored as one sequence gives what TRL's copies give: log-probabilities, loss, every gradient, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import ONE_BATCH, OURS, assert_same, logps, update
from peft import LoraConfig
from tiny import completions

LENGTHS = [5, 9, 3, 16, 7, 7, 12, 1]


def pair(make: Callable[..., Any], **settings: Any) -> tuple[Any, Any]:
    settings = {"given": completions(LENGTHS), **settings}
    ours = make(**OURS, **settings)
    assert ours._sharing.scoring is None
    return ours, make(**settings)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_scores_as_trl_does(make: Callable[..., Any], family: str) -> None:
    ours, stock = pair(make, family=family)
    (our_logps, our_entropies), (their_logps, their_entropies) = logps(ours), logps(stock)
    assert their_logps.any()
    assert (our_logps - their_logps).abs().max() < 1e-5
    mask = their_logps != 0
    assert ((our_entropies - their_entropies) * mask).abs().max() < 1e-5


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_updates_as_trl_does(make: Callable[..., Any], family: str) -> None:
    ours, stock = pair(make, family=family, **ONE_BATCH)
    assert_same(update(ours), update(stock))


def freeze_tower(model: Any) -> None:
    model.base_model.visual.requires_grad_(False)


LORA = LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "qkv"], init_lora_weights=False)

CASES: dict[str, dict[str, Any]] = {
    "gradient checkpointing": {"gradient_checkpointing": True},
    "reentrant checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "frozen tower": {"prepare": freeze_tower},
    "truncated": {"given": completions(LENGTHS, truncated=(1, 3)), "mask_truncated_completions": True},
    "group truncated": {"given": completions(LENGTHS, truncated=(0, 1, 2, 3)), "mask_truncated_completions": True},
    "split group": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "group a micro-batch": {},
    "several images": {"data": tiny.dataset(2, per_row=3)},
    "text only": {"data": tiny.dataset(2, text_rows=(0, 1))},
    "beta": {"beta": 0.1},
    "lora": {"peft_config": LORA},
    "lora and beta": {"peft_config": LORA, "beta": 0.1},
    "lora and checkpointing": {"peft_config": LORA, "gradient_checkpointing": True},
    "grpo loss": {"loss_type": "grpo"},
    "top entropy": {"top_entropy_quantile": 0.5, **ONE_BATCH},
    "entropy bonus": {"entropy_coef": 0.1, **ONE_BATCH},
    "sequence level": {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "padded to a multiple": {"pad_to_multiple_of": 8},
}


@pytest.mark.parametrize("case", CASES)
def test_every_case_updates_as_trl_does(make: Callable[..., Any], case: str) -> None:
    ours, stock = pair(make, **CASES[case])
    assert_same(update(ours), update(stock))
    assert ours.model.is_gradient_checkpointing == ("checkpointing" in case)


@pytest.mark.parametrize("setting", [{"beta": 0.1}, {"steps_per_generation": 2}], ids=str)
def test_llava_onevision_has_reference_and_old_passes(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    """TRL's own trainer hands those passes a field that the model's processor adds, and fails on it."""
    settings = {"family": "llava_onevision", "given": completions(LENGTHS), **ONE_BATCH, **setting}
    if "steps_per_generation" in setting:
        settings |= {"per_device_train_batch_size": 4}
    ours, stock = make(**OURS, **settings), make(**settings)
    score = type(stock)._get_per_token_logps_and_entropies
    stock._get_per_token_logps_and_entropies = lambda *args, batch_num_images=None, **kwargs: score(
        stock, *args, **kwargs
    )
    for trainer in (ours, stock):
        trainer.model.train()
    first, second = (t._generate_and_score_completions(next(iter(t.get_train_dataloader()))) for t in (ours, stock))
    name = "ref_per_token_logps" if "beta" in setting else "old_per_token_logps"
    assert (first[name] - second[name]).abs().max() < 1e-5


@pytest.mark.parametrize("share", ["true", "auto"])
def test_llava_onevision_takes_several_images_a_row(make: Callable[..., Any], share: str) -> None:
    data = tiny.dataset(1, per_row=2)
    settings = {"family": "llava_onevision", "data": data, **ONE_BATCH, "num_generations": 8}
    ours = make(**{**OURS, "options": {"share_prompt": share}}, given=completions([30] * 8), **settings)
    found, _ = logps(ours)
    batch = ours._generate_and_score_completions(next(iter(ours.get_train_dataloader())))
    with torch.no_grad():  # each copy with its own images, by the model itself
        count = len(batch["completion_ids"])
        images = {
            key: batch[key].repeat(count, *[1] * (batch[key].ndim - 1)) for key in ("pixel_values", "image_sizes")
        }
        logits = ours.model(
            input_ids=torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            attention_mask=torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch_num_images=torch.tensor([2] * count),
            **images,
        ).logits[:, batch["prompt_ids"].size(1) - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
    assert ((found - expected) * batch["completion_mask"]).abs().max() < 1e-5


def test_a_window_of_the_old_pass_is_bounded_by_the_rows_of_a_training_pass(make: Callable[..., Any]) -> None:
    rows = []
    for batch_size in (1, 2, 4):
        settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 8 // batch_size}
        settings |= {"num_generations": 8, "beta": 0.1, "data": tiny.dataset(1)}
        trainer = make(**OURS, given=completions([5] * 8), **settings)
        widths: list[int] = []
        trainer.ref_model.get_decoder().register_forward_pre_hook(
            lambda module, args, kwargs, widths=widths: widths.append(1), with_kwargs=True
        )
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        rows.append(8 // len(widths))
    assert rows == [2, 4, 8]


def test_text_rows_stand_beside_image_rows(make: Callable[..., Any]) -> None:
    # TRL's second preprocess fails on a batch that mixes them, so each half is compared with a batch of its own.
    given = completions(LENGTHS)
    ours = make(**OURS, given=given, data=tiny.dataset(2, text_rows=(1,)), shuffle_dataset=False)
    with_image = make(given=given[:4], data=tiny.dataset(2), shuffle_dataset=False, gradient_accumulation_steps=1)
    mixed, _ = logps(ours)
    alone, _ = logps(with_image)
    assert (mixed[:4] - alone).abs().max() < 1e-5
    text = make(given=given[4:], data=tiny.dataset(2, text_rows=(0, 1)).select([1]), gradient_accumulation_steps=1)
    alone, _ = logps(text)
    assert (mixed[4:, : alone.size(1)] - alone).abs().max() < 1e-5


@pytest.mark.parametrize(
    "setting", [{"num_iterations": 2}, {"steps_per_generation": 4}, {"num_iterations": 3, "beta": 0.1}]
)
def test_generations_used_more_than_once_train_as_in_trl(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    settings = {"data": tiny.dataset(4), "given": completions(LENGTHS * 2), "max_steps": 6, **setting}
    ours, stock = pair(make, lr_scheduler_type="constant", **settings)
    for trainer in (ours, stock):
        trainer.train()
    # With several steps a generation, which rows make which step is where TRL's shuffle and ours differ.
    compare = ("reward", "loss", "grad_norm") if "steps_per_generation" not in setting else ("reward",)
    for log, expected in zip(ours.state.log_history[:-1], stock.state.log_history[:-1], strict=True):
        for name in compare:
            assert log.get(name) == pytest.approx(expected.get(name), abs=2e-5), (name, log["step"])


def test_the_old_pass_is_dropped_where_weights_have_not_moved(make: Callable[..., Any]) -> None:
    ours, stock = pair(make, num_iterations=2)
    assert "old_per_token_logps" in stock._generate_and_score_completions(next(iter(stock.get_train_dataloader())))
    assert "old_per_token_logps" not in ours._generate_and_score_completions(next(iter(ours.get_train_dataloader())))
    ours = make(**OURS, given=completions(LENGTHS * 2), data=tiny.dataset(4), steps_per_generation=4)
    assert "old_per_token_logps" in ours._generate_and_score_completions(next(iter(ours.get_train_dataloader())))
