"""What the trainer leaves out, and what it says when it cannot share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import zoo
from compare import ONE_BATCH, OURS, assert_same, update
from peft import LoraConfig
from tiny import completions
from transformers import StableLmConfig, StableLmForCausalLM

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer


def first_group_only(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """A reward that tells the first group's completions apart, and not the second's."""
    return [sum(ids) % 17 / 17 if i < 4 else 1.0 for i, ids in enumerate(completion_ids)]


def lengths_scored(trainer: Any) -> list[int]:
    """The number of tokens that each policy pass puts through the language model."""
    lengths: list[int] = []
    trainer.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    return lengths


@pytest.mark.parametrize("share", [True, "auto"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo"])
def test_completions_without_advantage_leave_the_pass_and_nothing_changes(
    make: Callable[..., Any], loss_type: str, share: bool | str
) -> None:
    settings = {"given": completions([5, 9, 3, 16, 7, 7, 12, 1]), "loss_type": loss_type, "rewards": first_group_only}
    ours = make(**{**OURS, "options": {"share_prompt": share}}, **settings, **ONE_BATCH)
    stock = make(**settings, **ONE_BATCH)
    lengths = lengths_scored(ours)
    expected = update(stock)
    assert_same(update(ours), expected, but=("entropy",))
    assert len(lengths) == 1
    keep = make(**{**OURS, "options": {"share_prompt": share, "skip_zero_advantages": False}}, **settings, **ONE_BATCH)
    all_lengths = lengths_scored(keep)
    assert_same(update(keep), expected)
    assert lengths[0] < all_lengths[0]


def test_the_entropy_metric_is_then_that_of_the_scored_completions(make: Callable[..., Any]) -> None:
    given = completions([5, 9, 3, 16, 7, 7, 12, 1])
    ours = make(**OURS, given=given, rewards=first_group_only, **ONE_BATCH, shuffle_dataset=False)
    first = make(given=given[:4], per_device_train_batch_size=4, gradient_accumulation_steps=1, shuffle_dataset=False)
    assert update(ours).metrics["entropy"] == pytest.approx(update(first).metrics["entropy"], abs=1e-5)


def test_no_advantage_at_all_still_makes_one_pass_with_zero_gradient(make: Callable[..., Any]) -> None:
    given = completions([5, 9, 3, 16, 7, 7, 12, 1])
    ours = make(**OURS, given=given, rewards=lambda completions, **kwargs: [1.0] * len(completions), **ONE_BATCH)
    lengths = lengths_scored(ours)
    result = update(ours)
    assert len(lengths) == 1
    assert result.loss == 0
    assert all(gradient is not None and not gradient.any() for gradient in result.gradients.values())


@pytest.mark.parametrize(
    "setting",
    [{"beta": 0.1}, {"entropy_coef": 0.1}, {"top_entropy_quantile": 0.5}],
    ids=lambda setting: next(iter(setting)),
)
def test_nothing_is_left_out_where_it_would_count(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    settings = {"given": completions([5, 9, 3, 16, 7, 7, 12, 1]), "rewards": first_group_only, **setting, **ONE_BATCH}
    ours = make(**OURS, **settings)
    assert not ours._skips_zero_advantages
    assert_same(update(ours), update(make(**settings)))


def drop(model: Any) -> None:
    model.get_decoder().config.attention_dropout = 0.1


def eager(model: Any) -> None:
    model.set_attn_implementation("eager")


DROPOUT = "dropout is active, and the copies of a prompt would share one mask; share_prompt: true allows it"


@pytest.mark.parametrize(
    "settings, own",
    [
        ({"options": {"share_prompt": False}}, "scoring (share_prompt is false)"),
        ({"options": {"share_prompt": "auto"}, "prepare": drop}, f"prefill and scoring ({DROPOUT})"),
        (
            {
                "options": {"share_prompt": "auto"},
                "peft_config": LoraConfig(lora_dropout=0.1, target_modules=["q_proj"]),
            },
            f"prefill and scoring ({DROPOUT})",
        ),
        (
            {"prepare": eager},
            "scoring (attn_implementation is 'eager', and only 'sdpa' understands packed rows)",
        ),
    ],
    ids=["asked for", "dropout", "dropout of an adapter", "eager"],
)
def test_what_cannot_be_shared_is_said_once(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture, settings: dict[str, Any], own: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="trl_onevision"):
        ours = make(**{**OURS, **settings}, given=completions([5] * 8))
        torch.manual_seed(0)
        update(ours)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("trl_onevision")]
    assert said == [f"As in TRL, each completion has its own {own}."]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "llava_onevision"])
def test_rows_that_are_not_packed_update_as_under_trl(make: Callable[..., Any], family: str) -> None:
    settings = {"family": family, "given": completions([5, 9, 3, 16, 7, 7, 12, 1]), **ONE_BATCH}
    ours = make(**{**OURS, "options": {"share_prompt": False}}, **settings)
    assert_same(update(ours), update(make(**settings)))


def test_a_family_not_known_takes_trls_path(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokens = tiny.tokenizer()
    model = StableLmForCausalLM(StableLmConfig(**zoo.text(32, 2, 384, tokens)))
    data = tiny.dataset(2, text_rows=(0, 1)).remove_columns("images")
    arguments = OneVisionGRPOConfig(
        output_dir=str(tmp_path),
        bf16=False,
        use_cpu=True,
        report_to="none",
        num_generations=4,
        per_device_train_batch_size=4,
        max_steps=1,
        max_completion_length=4,
        save_strategy="no",
    )
    tokens.chat_template = zoo.TEMPLATE
    with caplog.at_level(logging.WARNING, logger="trl_onevision"):
        trainer = OneVisionGRPOTrainer(model, first_group_only, arguments, data, processing_class=tokens)
    assert "prefill and scoring ('stablelm' is not among the language models tested for it)" in caplog.text
    trainer.train()
    assert trainer.state.global_step == 1


def test_evaluation_gives_what_trl_gives(make: Callable[..., Any]) -> None:
    settings = {"given": completions([5, 9, 3, 16, 7, 7, 12, 1]), "per_device_eval_batch_size": 8, **ONE_BATCH}
    results = []
    for kind in (OURS, {}):
        trainer = make(**kind, **settings)
        results.append(trainer.evaluate(trainer.train_dataset))
    for name in ("eval_loss", "eval_reward", "eval_entropy"):
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"options": {"loss": "liger", "share_prompt": False}},
        {"options": {"loss": "liger", "share_prompt": "auto"}, "loss_type": "grpo", "rewards": first_group_only},
        {"mask_truncated_completions": True, "given": completions([5, 9, 3, 16, 7, 7, 12, 1], truncated=(0, 6))},
        {"beta": 0.1},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ],
    ids=["packed", "TRL's path", "zero advantages", "truncated", "beta", "two micro-batches"],
)
def test_the_liger_loss_updates_as_trl_does(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    settings = {"given": completions([5, 9, 3, 16, 7, 7, 12, 1]), **ONE_BATCH, **setting}
    options = settings.pop("options", {"loss": "liger", "share_prompt": True})
    ours = make(**{**OURS, "options": options}, **settings)
    skips = ("entropy",) if "rewards" in setting else ()
    assert_same(update(ours), update(make(**settings)), but=skips)


def test_the_liger_loss_of_a_second_iteration_is_trls(make: Callable[..., Any]) -> None:
    settings = {"given": completions([5, 9, 3, 16, 7, 7, 12, 1]), "num_iterations": 2, "max_steps": 4, **ONE_BATCH}
    ours = make(**{**OURS, "options": {"loss": "liger", "share_prompt": True}}, **settings)
    stock = make(**settings)
    for trainer in (ours, stock):
        trainer.train()
    for log, expected in zip(ours.state.log_history[:-1], stock.state.log_history[:-1], strict=True):
        for name in ("loss", "grad_norm", "clip_ratio/region_mean"):
            assert log[name] == pytest.approx(expected[name], abs=2e-5), (name, log["step"])
