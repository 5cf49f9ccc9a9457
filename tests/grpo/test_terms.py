"""Loss terms: TRL's normaliser, a KL worked by hand, gradients against plain autograd, black patches bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import ONE_BATCH, OURS, update
from PIL import Image
from trl import GRPOTrainer

from trl_onevision import OneVisionGRPOConfig
from trl_onevision.grpo import terms
from trl_onevision.grpo.options import Options

GIVEN = tiny.completions([5, 9, 3, 16, 7, 7, 12, 1])
SETTINGS: dict[str, Any] = {"given": GIVEN, **ONE_BATCH}
LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"]


def odd(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def micro_batch(trainer: Any) -> dict[str, Any]:
    """The first of a trainer's first generation."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def scored(trainer: Any, inputs: dict[str, Any], **images: Any) -> torch.Tensor:
    """Log-probabilities with gradient from TRL's own pass, each completion with its prompt and images."""
    batch = {**inputs, **images}
    logps_BT, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(
        trainer,
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        batch["completion_ids"].size(1),
        **{name: batch.get(name) for name in terms.FIELDS},
    )
    return logps_BT


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_reduced_policy_term_is_trls_loss(make: Callable[..., Any], loss_type: str, accumulation: int) -> None:
    trainer = make(given=GIVEN, loss_type=loss_type, gradient_accumulation_steps=accumulation, num_generations=4)
    inputs = micro_batch(trainer)
    advantages_B1, logps_BT = inputs["advantages"][:, None], scored(trainer, inputs)
    per_token = {  # where the policy has not moved, and every ratio is 1
        "cispo": -0.2 * advantages_B1 * logps_BT,  # a ratio of at most epsilon
        "vespo": -advantages_B1 * logps_BT,
        # its temperature differs by the sign
        "sapo": -advantages_B1 * torch.where(advantages_B1 > 0, 2 / 1.0, 2 / 1.05),
    }.get(loss_type, -advantages_B1.expand_as(logps_BT))
    expected = trainer.compute_loss(trainer.model, inputs)
    assert terms.reduce(trainer, per_token, inputs).item() == pytest.approx(expected.item(), abs=1e-6)


def test_nothing_masked_adds_exactly_nothing(make: Callable[..., Any]) -> None:
    options = {"share_prompt": True, "skip_zero_advantages": False}
    plain = update(make(**{**OURS, "options": options}, **SETTINGS))
    papo = update(
        make(**{**OURS, "options": {**options, "terms": {"papo": {"mask": 0.0, "detach": False}}}}, **SETTINGS)
    )
    assert papo.loss == plain.loss
    assert papo.metrics["papo/kl"] == 0
    for name, gradient in plain.gradients.items():
        assert gradient is None or torch.equal(papo.gradients[name], gradient), name


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    "settings", [{}, {"detach": False, "eta": 0.05, "eta_masked": 0.03}], ids=["as released", "paper"]
)
def test_all_masked_is_the_kl_by_hand_and_its_gradients_those_of_plain_autograd(
    make: Callable[..., Any], family: str, settings: dict[str, Any]
) -> None:
    given = {"gamma": 0.5, "mask": 1.0, **settings}
    ours = make(**{**OURS, "options": {"share_prompt": True, "terms": {"papo": given}}}, family=family, **SETTINGS)
    result = update(ours)

    plain = make(family=family, **SETTINGS)
    inputs = micro_batch(plain)
    dark = torch.zeros_like(inputs["pixel_values"]) + black_of(plain.processing_class, inputs["pixel_values"])
    logps_BT, mask_BT = scored(plain, inputs), inputs["completion_mask"]
    with torch.set_grad_enabled(bool(settings)):
        masked_BT = scored(plain, inputs, pixel_values=dark)
    difference_BT = masked_BT - logps_BT
    kl_BT = difference_BT.exp() - difference_BT - 1
    added_BT = -0.5 * kl_BT - given.get("eta", 0) * logps_BT - given.get("eta_masked", 0) * masked_BT
    loss = plain.compute_loss(plain.model, inputs) + (added_BT * mask_BT).sum() / mask_BT.sum()  # dapo's
    loss.backward()
    assert result.metrics["papo/kl"] == pytest.approx(((kl_BT * mask_BT).sum() / mask_BT.sum()).item(), abs=1e-5)
    assert result.metrics["papo/kl"] > 1e-4  # the pictures are seen
    assert result.loss == pytest.approx(loss.item(), abs=1e-6)
    gradients = {name: p.grad for name, p in plain.model.named_parameters() if p.grad is not None}
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, expected in gradients.items():
        if expected.norm() > 1e-4 * largest:
            assert (result.gradients[name] - expected).norm() < 1e-3 * expected.norm(), name


def black_of(processor: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the processor makes of an image that is black everywhere, in the shape of others."""
    size = {"height": 56, "width": 56}
    fields = processor.image_processor(images=[Image.new("RGB", tuple(size.values()))], return_tensors="pt")
    values = fields["pixel_values"]
    return values[0] if pixels.ndim == 2 else values.flatten(0, -4)[0]


def squares(image: Image.Image, side: int, which: torch.Tensor) -> Image.Image:
    """The image with some of its squares black, counted row by row."""
    copy, columns = image.copy(), image.width // side
    for number in which.nonzero().flatten().tolist():
        left, top = number % columns * side, number // columns * side
        copy.paste((0, 0, 0), (left, top, left + side, top + side))
    return copy


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_black_patches_are_those_of_a_blackened_image_on_rows_of_patches(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, processor = tiny.build(family)
    side = processor.image_processor.patch_size
    image = tiny.picture(3, width=6 * side, height=4 * side)
    which = torch.rand(24, generator=torch.Generator().manual_seed(1)) < 0.5
    # Rows come in blocks of two by two patches
    rows = which.view(2, 2, 3, 2).permute(0, 2, 1, 3).reshape(-1, 1)
    monkeypatch.setattr(terms, "draw", lambda shape, share, device: rows)
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    ours = terms.blacken(pixels, terms.black(processor.image_processor), 0.5, side)
    blackened = processor.image_processor(images=[squares(image, side, which)], return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, blackened)
    assert not torch.equal(ours, pixels)


@pytest.mark.parametrize("family", ["llava_onevision", "internvl"])
def test_black_patches_are_those_of_a_blackened_image_on_tiles(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny.build(family)
    side = model.config.vision_config.patch_size
    side = side if isinstance(side, int) else side[0]
    image = tiny.picture(3, width=56, height=56)  # four tiles of 28, and an overview of all
    per_tile = 28 // side
    which = torch.rand((2 * per_tile) ** 2, generator=torch.Generator().manual_seed(1)) < 0.5
    tiles = which.view(2, per_tile, 2, per_tile).permute(0, 2, 1, 3).reshape(4, 1, per_tile, per_tile)
    # The overview is first in LLaVA-OneVision and last in InternVL; resized, it is left out here
    cut = slice(1, 5) if family == "llava_onevision" else slice(0, 4)
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"].flatten(0, -4)
    blackened = processor.image_processor(images=[squares(image, side, which)], return_tensors="pt")["pixel_values"]
    monkeypatch.setattr(terms, "draw", lambda shape, share, device: tiles)
    ours = terms.blacken(
        pixels[cut], terms.black(processor.image_processor), 0.5, model.config.vision_config.patch_size
    )
    assert torch.equal(ours, blackened.flatten(0, -4)[cut])
    assert not torch.equal(ours, pixels[cut])


def test_a_share_of_the_patches_is_black() -> None:
    torch.manual_seed(0)
    masked = terms.blacken(torch.ones(20_000, 6), torch.zeros(6), 0.6, 14)
    assert 1 - masked.mean().item() == pytest.approx(0.6, abs=3 * math.sqrt(0.24 / 20_000))


def test_the_pull_to_the_reference_is_weaker_where_a_right_answer_is_rare(make: Callable[..., Any]) -> None:
    def run(**options: Any) -> Any:
        settings = {**SETTINGS, "rewards": odd, "beta": 0.5, "loss_type": "grpo", "data": tiny.dataset(2)}
        return make(**{**OURS, "options": {"share_prompt": True, **options}}, **settings)

    trainer = run(terms="dads")
    for name, parameter in trainer.model.named_parameters():  # away from the reference
        torch.manual_seed(len(name))
        parameter.data += 0.01 * torch.randn_like(parameter)
    inputs = micro_batch(trainer)
    logps_BT, mask_BT = scored(trainer, unshared(inputs)), inputs["completion_mask"]
    log_ratio_BT = inputs["ref_per_token_logps"] - logps_BT
    kl_BT = log_ratio_BT.exp() - log_ratio_BT - 1
    # Weights by hand from the rows in the order of the micro-batch
    p_of = {}
    for ids in set(map(tuple, inputs["prompt_ids"].tolist())):
        rows = [row for row, other in enumerate(inputs["prompt_ids"].tolist()) if tuple(other) == ids]
        p_of[ids] = sum((inputs["advantages"][row] > 0).item() for row in rows) / len(rows)
    p_B = torch.tensor([p_of[tuple(ids)] for ids in inputs["prompt_ids"].tolist()])
    assert any(0 < p < 1 for p in p_of.values())
    w_B = torch.where((inputs["advantages"] > 0) & (p_B < 1), 1 - torch.exp(-math.e * p_B), 1.0)
    means_B = ((-inputs["advantages"][:, None] + 0.5 * w_B[:, None] * kl_BT) * mask_BT).sum(1) / mask_BT.sum(1)
    assert trainer.compute_loss(trainer.model, inputs).item() == pytest.approx(means_B.mean().item(), abs=1e-6)


def unshared(inputs: dict[str, Any]) -> dict[str, Any]:
    """A micro-batch of ours with its images on each copy, as TRL's own pass takes it."""
    from trl_onevision.grpo.rows import first_copies, take_rows

    first = first_copies(inputs["prompt_ids"], inputs["prompt_mask"], inputs.get("num_images"))
    batch = {key: value for key, value in inputs.items() if key != "tower_due"}
    return take_rows(batch, list(range(len(first))), first, every_copy=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": "popa"}, "'popa' is not one of dads, papo"),
        ({"terms": {"papo": {"gama": 1}}}, "papo has no 'gama'; it has gamma, mask"),
        ({"terms": {"papo": {"mask": 60}}}, "mask is a share of patches"),
        ({"terms": {"papo": {"eta_masked": 0.1}}}, "needs detach: false"),
        ({"terms": "papo", "loss": "liger"}, "loss: liger cannot honour terms: papo"),
        ({"terms": "dads"}, "needs a beta"),
    ],
)
def test_what_cannot_hold_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneVisionGRPOConfig(output_dir="runs", bf16=False, report_to="none", **options)


@pytest.mark.parametrize(
    ("family", "why"), [("qwen2_5_vl", "the dataset has no column 'images'"), ("qwen2", "the model sees none")]
)
def test_a_run_without_an_image_has_nothing_to_mask(make: Callable[..., Any], family: str, why: str) -> None:
    data = tiny.dataset(2).remove_columns("images")
    with pytest.raises(ValueError, match=f"terms: papo masks patches of images, and {why}"):
        make(**{**OURS, "options": {"terms": "papo"}}, family=family, data=data, **SETTINGS)


def test_a_layout_of_images_that_is_not_known_is_refused_before_a_step(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"papo knows images as rows .* not as pixel values of 3 dimensions"):
        make(**{**OURS, "options": {"terms": "papo"}}, family="lfm2_vl", **SETTINGS)


def test_a_recipe_names_terms_and_their_settings() -> None:
    options = Options.parse("{'terms': {'papo': {'gamma': 0.04}}}")
    assert terms.read(options.terms)["papo"] == terms.Papo(gamma=0.04)
    assert list(terms.read("dads")) == ["dads"]
    assert terms.read(None) == {}


def test_completions_without_advantage_count_in_a_term(make: Callable[..., Any]) -> None:
    rewards = {"rewards": lambda completions, **kwargs: [1.0] * len(completions)}
    trainer = make(
        **{**OURS, "options": {"share_prompt": True, "terms": {"papo": {"mask": 1.0}}}}, **SETTINGS, **rewards
    )
    result = update(trainer)
    assert result.loss < 0
    assert sum(gradient.norm() for gradient in result.gradients.values() if gradient is not None) > 0
