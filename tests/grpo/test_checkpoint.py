"""A run that was stopped goes on from its checkpoint, and not from the weights that it started with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers.trainer_utils import load_sharded_checkpoint

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.checkpoint import accept_published_names


@pytest.mark.parametrize(
    "setting",
    [{}, {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"])}],
    ids=["whole model", "lora"],
)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(
    make: Callable[..., Any], tmp_path: Path, setting: dict[str, Any]
) -> None:
    settings = {"kind": OneVisionGRPOTrainer, "config": OneVisionGRPOConfig, "options": {"share_prompt": True}}
    settings |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "data": tiny.dataset(4), **setting}
    whole, resumed = make(**settings), make(**settings)
    start = {name: parameter.detach().clone() for name, parameter in whole.model.named_parameters()}
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    moved = 0
    for (name, parameter), expected in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(parameter, expected), name
        moved += not torch.equal(expected, start[name])
    assert moved, "a comparison of nothing"


@pytest.mark.parametrize("shard_size", ["1GB", "100KB"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_saved_is_loaded(family: str, shard_size: str, tmp_path: Path) -> None:
    model, _ = tiny.build(family)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data.zero_()
    accept_published_names(model)
    files = list(tmp_path.glob("*.safetensors"))
    if len(files) > 1:
        load_sharded_checkpoint(model, tmp_path, strict=False)
    else:
        model.load_state_dict(load_file(files[0]), strict=False)
    model.tie_weights()
    assert (len(files) > 1) == (shard_size == "100KB")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_names_of_modules_are_taken_as_before() -> None:
    model, _ = tiny.build("qwen2_5_vl")
    accept_published_names(model)
    result = model.load_state_dict({"lm_head.weight": model.lm_head.weight, "unknown": torch.ones(1)}, strict=False)
    assert result.unexpected_keys == ["unknown"]
    assert "lm_head.weight" not in result.missing_keys
    assert "model.visual.patch_embed.proj.weight" in result.missing_keys
