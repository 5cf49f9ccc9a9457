"""Every rank makes the same collectives and passes, whatever its rows are: two processes train as one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import mixed_ranks
import pytest
import tiny
import torch
from compare import OURS
from ranks import launch

from trl_onevision import OneVisionGRPOTrainer
from trl_onevision.grpo.placeholders import METRIC

WHOLE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
SPLIT = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
GREEDY = {"generate": True, "generation_kwargs": {"do_sample": False}}
TRLS_PATH = {"share_prompt": "false", "log_multimodal": False}
# Two batches of a step after each other: each pair of unlike compositions meets, and each rank has each of them.
IN_TURN = ("text", "images", "images", "several", "several", "mixed")
IN_TURN += ("mixed", "text", "text", "several", "images", "mixed")
COMPOSED = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "compositions": IN_TURN,
    "max_steps": len(IN_TURN) // 2,
}
CASES: dict[str, dict[str, Any]] = {
    "DDP": WHOLE,
    "DDP, TRL's path": {**WHOLE, **TRLS_PATH},
    "DDP, an image token in a completion of one rank": {**WHOLE, "with_image_token": (5, 11)},
    "DDP, groups split over ranks and micro-batches": SPLIT,
    "DDP, asking on one rank": {**WHOLE, **GREEDY, "asks": True},
    "DDP, every composition of a batch beside every other": COMPOSED,
    "FSDP2": {**WHOLE, "fsdp": True, "gradient_checkpointing": False},
}
if find_spec("deepspeed") is not None:
    CASES |= {
        "ZeRO-2": {**WHOLE, "stage": 2},
        "ZeRO-3": {**WHOLE, "stage": 3},
        "ZeRO-3, TRL's path": {**WHOLE, **TRLS_PATH, "stage": 3},
        "ZeRO-3, every composition of a batch beside every other": {**COMPOSED, "stage": 3},
        "ZeRO-3, generating from sharded weights": {
            **WHOLE,
            **GREEDY,
            "stage": 3,
            "ds3_gather_for_generation": False,
        },
        "ZeRO-3, asking on one rank": {
            **WHOLE,
            **GREEDY,
            "stage": 3,
            "ds3_gather_for_generation": False,
            "asks": True,
        },
    }


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("two"))
    return dict(zip(CASES, launch("mixed_ranks.py", folder, json.dumps(list(CASES.values()))), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_text_on_one_rank_and_images_on_the_other_train_as_on_one_process(
    name: str, on_two_ranks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRL_ONEVISION", raising=False)
    case, two = {"generate": False, "asks": False, **CASES[name], "stage": 0}, on_two_ranks[name]
    case["per_device_train_batch_size"] *= 2
    one = mixed_ranks.summary(mixed_ranks.train(str(tmp_path), **case))
    assert len(two["log"]) == len(one["log"]) == case.get("max_steps", 2 if "generating" in name else 4)
    assert two["completions"] == one["completions"] and two["replies"] == one["replies"]
    assert [reply is not None for reply in one["replies"]] == ([True] * 4 + [False] * 4) * case["asks"]  # at the last
    assert case["generate"] or max(step["grad_norm"] for step in one["log"]) > 0.1
    assert len(set(one["completions"])) > 1
    for ours, expected in zip(two["log"], one["log"], strict=True):
        assert ours.keys() == expected.keys()
        for metric in {"loss", "grad_norm", "reward", "completions/mean_length", METRIC} & expected.keys():
            assert ours[metric] == pytest.approx(expected[metric], abs=2e-5), (metric, expected["step"])
    counts = [step.get(METRIC, 0.0) for step in one["log"]]
    assert counts == ([1.0, 1.0, 0.0, 0.0] if "image token" in name else [0.0] * len(counts))
    assert len(two["images"]) == len(one["images"])
    assert two["images"] == one["images"] or "split" in name  # each part of a group shows its images


def test_the_composed_run_has_every_composition_on_each_rank_and_beside_every_other() -> None:
    first, second = IN_TURN[::2], IN_TURN[1::2]
    assert {*first} == {*second} == {*mixed_ranks.COMPOSITIONS}
    pairs = {frozenset(pair) for pair in zip(first, second, strict=True)}
    assert pairs == {frozenset(pair) for pair in combinations(mixed_ranks.COMPOSITIONS, 2)}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_blank_image_changes_nothing_and_reaches_all_that_an_image_reaches(
    make: Callable[..., Any], family: str
) -> None:
    trainer = make(**OURS, family=family)
    model, processor = trainer.model, trainer.processing_class

    def run(images: list[Any] | None, due: bool) -> tuple[torch.Tensor, list[str], dict[str, Any]]:
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": [*[{"type": "image"}] * len(images or []), {"type": "text", "text": "Hi"}]}]
        )
        inputs = processor(text=[prompt], images=images, return_tensors="pt")
        ran: list[str] = []
        hooks = [
            module.register_forward_hook(lambda m, a, o, name=name: ran.append(name))
            for name, module in model.named_modules()
        ]
        model.zero_grad()
        trainer._tower.due = due
        output = trainer._scorer.call(model, [len(images or [])], **inputs).logits
        output.sum().backward()
        for hook in hooks:
            hook.remove()
        return output, ran, {name: p.grad for name, p in model.named_parameters()}

    alone, _, gradients = run(None, due=False)
    joined, ran, with_zeros = run(None, due=True)
    _, ran_with_image, of_image = run([tiny.picture(1)], due=True)
    assert torch.equal(joined, alone)
    assert ran == ran_with_image
    for name, gradient in with_zeros.items():
        if gradients[name] is not None:
            assert torch.equal(gradient, gradients[name]), name
        else:
            assert (gradient is None) == (of_image[name] is None), name
            assert gradient is None or not gradient.any(), name


def test_a_tower_that_cannot_be_run_by_itself_is_refused(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: OneVisionGRPOTrainer = make(**OURS)
    monkeypatch.delattr(type(trainer.model.base_model), "get_image_features")
    trainer._tower.due = True
    with pytest.raises(ValueError, match=r"'qwen2_5_vl' cannot be run by itself.* rows of one kind only"):
        trainer._scorer.call(trainer.model, [], input_ids=torch.tensor([[20, 21]]))
