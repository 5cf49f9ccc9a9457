"""A tower whose attention is one call a layer gives what transformers' SDPA gives, window by window."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch.nn.attention.varlen import varlen_attn

from trl_onevision.grpo import tower_attention

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm46v")
SIZES = ((56, 140), (168, 112), (28, 28))  # of Qwen2.5-VL's windows of 112, some cut by an edge


def tower_inputs(family: str) -> tuple[Any, dict[str, Any]]:
    """A model of a family with no dropout, and three images for its tower."""
    torch.manual_seed(0)
    model, processor = tiny.build(family)
    pictures = [tiny.picture(seed, *size) for seed, size in enumerate(SIZES)]
    images = processor.image_processor(pictures, return_tensors="pt")
    return model.eval(), {"pixel_values": images["pixel_values"], "image_grid_thw": images["image_grid_thw"]}


def features_and_gradients(model: Any, images: dict[str, Any]) -> list[torch.Tensor]:
    features = torch.cat(list(model.get_image_features(**images).pooler_output)).float()
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(features.device)
    model.zero_grad()
    (features * weights).sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert trained
    # Copies, since moving a model moves its gradients
    return [features.detach().cpu(), *(gradient.float().cpu().clone() for gradient in trained.values())]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_in_fp32_is_what_it_was(family: str) -> None:
    model, images = tower_inputs(family)
    expected = features_and_gradients(model, images)
    tower_attention.enable(model)
    towers = {m.config._attn_implementation for m in model.modules() if type(m).__name__.endswith("VisionAttention")}
    assert towers == {tower_attention.ATTENTION}
    assert model.get_decoder().config._attn_implementation == "sdpa"
    for ours, theirs in zip(features_and_gradients(model, images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernel_is_handed_each_image_and_window(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs on CUDA alone; its definition, sequence by sequence, runs everywhere."""

    def definition(
        query_LHD: torch.Tensor, key_LHD: torch.Tensor, value_LHD: torch.Tensor, *lengths: Any, scale: float
    ) -> torch.Tensor:
        begins_q, begins_k, longest_q, longest_k = lengths
        assert begins_q.dtype == begins_k.dtype == torch.int32
        assert longest_q == longest_k == begins_q.diff().max()
        outputs = []
        for first, last in zip(begins_q.tolist(), begins_q.tolist()[1:], strict=False):
            query, key, value = (states[first:last].transpose(0, 1) for states in (query_LHD, key_LHD, value_LHD))
            outputs.append(((query @ key.transpose(1, 2) * scale).softmax(-1) @ value).transpose(0, 1))
        return torch.cat(outputs)

    model, images = tower_inputs(family)
    expected = features_and_gradients(model, images)
    monkeypatch.setattr(tower_attention, "_has_kernel", lambda *states: True)
    monkeypatch.setattr(tower_attention, "varlen_attn", definition)
    tower_attention.enable(model)
    for ours, theirs in zip(features_and_gradients(model, images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_tower_that_was_set_to_something_else_stays_so() -> None:
    model, _ = tiny.build("qwen2_5_vl")
    model.set_attn_implementation({"vision_config": "eager"})
    tower_attention.enable(model)
    assert model.base_model.visual.config._attn_implementation == "eager"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: its kernel of sequences side by side")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_cuda_it_is_no_further_from_fp32_than_window_by_window(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        tower_attention, "varlen_attn", lambda *args, **kwargs: calls.append(1) or varlen_attn(*args, **kwargs)
    )
    model, images = tower_inputs(family)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    truth = features_and_gradients(model, images)
    model, images = model.to("cuda", torch.bfloat16), {name: value.cuda() for name, value in images.items()}
    by_window = features_and_gradients(model, images)
    assert not calls
    tower_attention.enable(model)
    ours = features_and_gradients(model, images)
    assert len(calls) == sum(type(m).__name__.endswith("VisionAttention") for m in model.modules())

    def error(found: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(
            [(a - b).norm() / b.norm().clamp(min=1e-6) for a, b in zip(found, truth, strict=True)]
        ).mean()

    assert 0 < error(ours) < 1.1 * error(by_window)
