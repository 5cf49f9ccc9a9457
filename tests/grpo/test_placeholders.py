"""The token that stands for an image in a completion: not sampled, and where it is, not trained on and not fatal."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from compare import ONE_BATCH, OURS, assert_same, sampled, update
from tiny import SPECIAL, completions
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from trl_onevision.grpo.placeholders import METRIC

IMAGE = SPECIAL.index("<|image_pad|>")
LENGTHS = [5, 9, 3, 16, 7, 7, 12, 4]
PATHS = {
    "packed": {"share_prompt": True},
    "TRL's path": {"share_prompt": "false"},
    "fused loss": {"share_prompt": True, "loss": "liger"},
}


def in_love(model: Any) -> None:
    """Make a model say the token always."""
    tiny.incline(model, IMAGE, 20.0)


@pytest.mark.parametrize("kwargs", [None, {"suppress_tokens": [20]}, {"suppress_tokens": None}], ids=str)
def test_transformers_samples_none_whatever_generation_kwargs_say(make: Callable[..., Any], kwargs: Any) -> None:
    stock = make(prepare=in_love, generation_kwargs={"suppress_tokens": [20]}, **ONE_BATCH)
    assert IMAGE in sampled(stock)
    tokens = sampled(make(**OURS, prepare=in_love, generation_kwargs=kwargs, **ONE_BATCH))
    assert IMAGE not in tokens
    assert 20 not in tokens or kwargs != {"suppress_tokens": [20]}


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_vllm_is_told_beside_what_generation_kwargs_say(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    class Engine(VLLMGeneration):
        def _init_vllm(self) -> None:
            server = SimpleNamespace(get_server_info=lambda: {"model_config": {"logprobs_mode": "processed_logprobs"}})
            self.vllm_client, self.llm = server, SimpleNamespace(generate=None)

    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", Engine)
    given = {"seed": 3, "logit_bias": {20: 1.0, IMAGE: 5.0}}
    trainer = make(**OURS, use_vllm=True, vllm_mode=mode, generation_kwargs=given)
    assert trainer.vllm_generation.generation_kwargs == {"seed": 3, "logit_bias": {20: 1.0, IMAGE: -100.0}}
    assert given["logit_bias"] == {20: 1.0, IMAGE: 5.0}


def by_row(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [row * 3 % 5 / 5 for row in range(len(completion_ids))]


@pytest.mark.parametrize("options", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_a_completion_with_one_is_left_out_as_trl_leaves_out_a_truncated_one(
    make: Callable[..., Any], options: dict[str, Any], place: str, family: str
) -> None:
    token = tiny.build(family)[0].config.image_token_id
    with_token, truncated = completions(LENGTHS), completions(LENGTHS)
    for row in (1, 6):
        with_token[row][0 if place == "start" else -1] = token
        truncated[row][-1] = 40  # any text: TRL masks what does not end
    settings = {**ONE_BATCH, "family": family, "rewards": by_row, "shuffle_dataset": False}
    expected = update(make(**settings, given=truncated, mask_truncated_completions=True))
    found = update(
        make(**{**OURS, "options": {**options, "skip_zero_advantages": False}}, **settings, given=with_token)
    )
    assert found.metrics.pop(METRIC) == 2.0
    lengths = [name for name in expected.metrics if "terminated" in name or "clipped" in name]
    assert_same(found, expected, but=tuple(lengths))


@pytest.mark.parametrize("options", PATHS.values(), ids=PATHS)
def test_a_micro_batch_of_nothing_else_trains_nothing(make: Callable[..., Any], options: dict[str, Any]) -> None:
    given = [[IMAGE, *row] for row in completions(LENGTHS)]
    trainer = make(**{**OURS, "options": options}, **ONE_BATCH, given=given, beta=0.1)
    found = update(trainer)
    assert found.loss == 0.0
    assert found.metrics[METRIC] == 8.0
    assert not any(gradient is not None and gradient.any() for gradient in found.gradients.values())


def test_one_that_a_tool_wrote_has_its_image_and_stays(make: Callable[..., Any]) -> None:
    trainer = make(**OURS, given=completions(LENGTHS), **ONE_BATCH)
    ids, mask = [[20, IMAGE, 21], [IMAGE, 20]], [[1, 0, 1], [1, 1]]
    _, kept, masked, *_ = trainer._placeholders.leave_out((None, ids, mask))
    assert kept == [[20, IMAGE, 21], [trainer._tokenizer.pad_token_id, 20]]
    assert masked == [[1, 0, 1], [0, 0]]
