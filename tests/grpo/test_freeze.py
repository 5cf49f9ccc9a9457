"""One half rests, the other learns what it learns in TRL when that half's gradients are turned off by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import assert_same, update
from peft import LoraConfig
from tiny import completions
from transformers import Qwen3Config, Qwen3ForCausalLM

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.freeze import freeze
from trl_onevision.grpo.options import Options

GIVEN = completions([5, 9, 3, 16, 7, 7, 12, 1])


def ours(**options: Any) -> dict[str, Any]:
    return {"kind": OneVisionGRPOTrainer, "config": OneVisionGRPOConfig, "options": {"share_prompt": True, **options}}


def is_vision(name: str) -> bool:
    return any(part in name for part in (".visual.", ".vision_tower.", ".multi_modal_projector.", ".image_newline"))


@pytest.mark.parametrize("part", ["vision", "language"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_two_halves_are_all_of_a_model(family: str, part: str) -> None:
    model, _ = tiny.build(family)
    freeze(model, part)
    resting = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    names = {f".{name}" for name, _ in model.named_parameters()}
    assert {f".{name}" for name in resting} == {name for name in names if is_vision(name) == (part == "vision")}


@pytest.mark.parametrize("loss", ["trl", "liger"])
@pytest.mark.parametrize("part", ["vision", "language"])
def test_the_rest_gets_trls_gradients(make: Callable[..., Any], part: str, loss: str) -> None:
    def by_hand(model: Any) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_vision(f".{name}") != (part == "vision"))

    # Liger's loss clips as TRL's own default does; all else is the same for both.
    stock = make(given=GIVEN, prepare=by_hand)
    frozen = make(**ours(freeze=part, loss=loss), given=GIVEN)
    expected = update(stock)
    assert_same(update(frozen), expected, but=("entropy",))
    assert all(is_vision(f".{name}") == (part == "language") for name in expected.gradients)


def test_a_run_moves_one_half_only(make: Callable[..., Any]) -> None:
    trainer = make(**ours(freeze="vision"), given=GIVEN, max_steps=1)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and not any(is_vision(f".{name}") for name in moved)


def test_adapters_of_a_resting_half_rest_and_nothing_to_train_is_refused(make: Callable[..., Any]) -> None:
    everywhere = LoraConfig(r=2, target_modules=["qkv", "q_proj"])
    trainer = make(**ours(freeze="vision"), given=GIVEN, peft_config=everywhere)
    learning = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert learning and all("lora" in name and "q_proj" in name for name in learning)
    with pytest.raises(ValueError, match="leaves nothing to train"):
        make(**ours(freeze="language"), given=GIVEN, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))


def test_a_model_without_eyes_is_named() -> None:
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    with pytest.raises(ValueError, match="Qwen3ForCausalLM is a language model alone"):
        freeze(Qwen3ForCausalLM(config), "vision")


def test_the_option_is_read_and_checked() -> None:
    assert Options.parse("{freeze: vision}").freeze == "vision"
    with pytest.raises(ValueError, match="freeze must be 'vision' or 'language', not 'visual'"):
        Options.parse("{freeze: visual}")
