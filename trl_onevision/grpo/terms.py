"""Terms that are added to TRL's loss, over the per-token log-probabilities of the same pass.

A term is a number for each token; `reduce` makes of it what TRL makes of its own loss per token, for every loss type.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from trl.trainer.grpo_config import GRPOConfig

from trl_onevision.grpo.groups import Groups, may_hold
from trl_onevision.grpo.loss.head import window_weights
from trl_onevision.grpo.signatures import FIELDS


@dataclass(frozen=True)
class Dads:
    """A weaker pull to the reference where a right completion is rare (APO, arXiv 2506.21655).

    The KL term of a completion with A > 0 counts w = 1 - e^(-e p), p the share of right completions in its group;
    w = 1 where p is 0 or 1, and for A ≤ 0.
    """

    @staticmethod
    def weights(groups: Groups, advantages_N: torch.Tensor) -> torch.Tensor:
        """w for each completion (N,).

        >>> rewards = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
        >>> groups = Groups(rewards, torch.ones(1), torch.ones(4), 2, ["accuracy_reward"], {})
        >>> Dads.weights(groups, torch.tensor([0.5, -0.5, 0.0, 0.0]))
        tensor([0.7431, 1.0000, 1.0000, 1.0000])
        """
        p_N = groups.spread(groups.accuracy_M)
        lowered_N = (advantages_N > 0) & (p_N > 0) & (p_N < 1)
        return torch.where(lowered_N, 1 - torch.exp(-math.e * p_N), 1.0)


@dataclass(frozen=True)
class Papo:
    """Completions are to depend on the image: the KL to the policy that sees it masked is raised (PAPO, 2507.06448).

    Args:
        gamma: Weight of the KL.
        mask: Which share of an image's patches is black.
        eta: Weight of the policy's entropy, which is lowered.
        eta_masked: Weight of the entropy under the masked image, which is lowered too.
        clamp: The most that the KL of a token counts.
        detach: Whether the masked pass is without gradient, as in the released code. Its entropy then is a constant.

    The KL is estimated as there, r - log r - 1 with r = π(o|masked) / π(o|image); the paper writes it with 1 / r.
    """

    gamma: float = 0.02
    mask: float = 0.6
    eta: float = 0.0
    eta_masked: float = 0.0
    clamp: float = 10.0
    detach: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.mask <= 1:
            raise ValueError(f"terms: papo: mask is a share of patches, from 0 to 1, not {self.mask}.")
        if self.clamp <= 0:
            raise ValueError(f"terms: papo: clamp is the most that a KL counts, above 0, not {self.clamp}.")
        if self.eta_masked and self.detach:
            raise ValueError("terms: papo: eta_masked needs detach: false, or nothing of it reaches the weights.")

    def per_token(self, logps_BT: torch.Tensor, masked_logps_BT: torch.Tensor) -> torch.Tensor:
        """What is added to the loss of each token."""
        entropies_BT = -self.eta * logps_BT - self.eta_masked * masked_logps_BT
        return entropies_BT - self.gamma * self.kl(logps_BT, masked_logps_BT)

    def kl(self, logps_BT: torch.Tensor, masked_logps_BT: torch.Tensor) -> torch.Tensor:
        """The estimate for each token, at most `clamp`.

        >>> Papo().kl(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -3.0]))
        tensor([0.0000, 1.1353])
        """
        log_ratio_BT = (masked_logps_BT - logps_BT).clamp(-20.0, 20.0)
        return (log_ratio_BT.exp() - log_ratio_BT - 1).clamp(max=self.clamp)


TERMS: dict[str, type] = {"dads": Dads, "papo": Papo}


def read(given: Any) -> dict[str, Any]:
    """Terms by name from an option: a name, a list of names, or a mapping of names to their settings.

    >>> read({"papo": {"gamma": 0.01}, "dads": None})
    {'papo': Papo(gamma=0.01, mask=0.6, eta=0.0, eta_masked=0.0, clamp=10.0, detach=True), 'dads': Dads()}
    """
    if not isinstance(given, str | list | Mapping | None):
        raise ValueError(f"terms: a name, a list of names, or a mapping of names to settings, not {given!r}.")
    names = given if isinstance(given, Mapping) else dict.fromkeys([given] if isinstance(given, str) else given or [])
    terms = {}
    for name, settings in names.items():
        if name not in TERMS:
            raise ValueError(f"terms: {name!r} is not one of {', '.join(TERMS)}.")
        if not isinstance(settings, Mapping | None):
            raise ValueError(f"terms: {name}: a mapping of settings to values, not {settings!r}.")
        defaults = {f.name: f.default for f in dataclasses.fields(TERMS[name])}
        for setting in settings or {}:
            if setting not in defaults:
                raise ValueError(f"terms: {name} has no {setting!r}; it has {', '.join(defaults) or 'no settings'}.")
        values = {key: _value(f"terms: {name}: {key}", defaults[key], v) for key, v in (settings or {}).items()}
        terms[name] = TERMS[name](**values)
    return terms


def _value(where: str, default: Any, given: Any) -> Any:
    """A setting, of the kind of its default; YAML takes 1e-2, without a full stop, for a text."""
    if isinstance(default, bool):
        if not isinstance(given, bool):
            raise ValueError(f"{where} is true or false, not {given!r}.")
        return given
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} is a number, not {given!r}.")
    return number


def check(names: Mapping[str, Any], args: GRPOConfig) -> None:
    """Raise where a term conflicts with another option."""
    if "dads" in names and args.beta == 0.0:
        raise ValueError("terms: dads weighs the KL to the reference: it needs a beta.")


class Terms:
    """The terms of one trainer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        terms = read(trainer.options.terms)
        self.papo: Papo | None = terms.get("papo")
        self.dads: Dads | None = terms.get("dads")
        if self.papo is not None and not (trainer._is_vlm and may_hold(trainer, "images", "image")):
            why = "the dataset has no column 'images'" if trainer._is_vlm else "the model sees none"
            raise ValueError(f"terms: papo masks patches of images, and {why}.")
        self._black = None if self.papo is None else black(trainer.processing_class.image_processor)

    def prepare(self, scored: dict[str, Any], groups: Groups) -> None:
        """Put into a scored generation what the terms need of its groups."""
        if self.dads is not None:
            # The sign is the same shaped or not, since no factor of ours is below zero
            weights_N = self.dads.weights(groups, self.trainer.accelerator.gather(scored["advantages"]))
            count = len(scored["advantages"])
            start = self.trainer.accelerator.process_index * count
            scored["kl_weight"] = weights_N[start : start + count]
            self._log("dads/kl_weight", weights_N.mean())

    def masked_logps(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Log-probabilities (B, T) of the completions where patches of their images are black."""
        if self.papo is None:
            return None
        trainer = self.trainer
        fields = {name: inputs.get(name) for name in FIELDS}
        if fields["pixel_values"] is not None:
            fields["pixel_values"] = self._blacken(fields["pixel_values"], self.papo.mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.papo.detach):
            logps_BT, _, _ = trainer._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
                **fields,
            )
        return logps_BT

    def loss(
        self, logps_BT: torch.Tensor, masked_logps_BT: torch.Tensor | None, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """What is added to TRL's loss of a micro-batch."""
        added_BT = torch.zeros_like(logps_BT)
        if self.dads is not None:
            left_out_B1 = 1 - inputs["kl_weight"][:, None]
            added_BT = added_BT - self.trainer.beta * left_out_B1 * self._reference_kl(logps_BT, inputs)
        if self.papo is not None and masked_logps_BT is not None:
            added_BT = added_BT + self.papo.per_token(logps_BT, masked_logps_BT)
            kl_BT, mask_BT = self.papo.kl(logps_BT, masked_logps_BT).detach(), loss_mask(inputs)
            sums = self.trainer.accelerator.reduce(torch.stack([(kl_BT * mask_BT).sum(), mask_BT.sum()]), "sum")
            self._log("papo/kl", sums[0] / sums[1].clamp(min=1.0))
        return reduce(self.trainer, added_BT, inputs)

    def _reference_kl(self, logps_BT: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's own KL term, a token."""
        log_ratio_BT = inputs["ref_per_token_logps"] - logps_BT
        kl_BT = log_ratio_BT.exp() - log_ratio_BT - 1
        if not self.trainer.args.use_bias_correction_kl:
            return kl_BT
        moved = logps_BT - inputs.get("old_per_token_logps", logps_BT.detach())
        if self.trainer.importance_sampling_level == "sequence":
            mask_BT = loss_mask(inputs)
            moved = (moved * mask_BT).sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1.0)
        return kl_BT * moved.exp()

    def _log(self, name: str, value: torch.Tensor) -> None:
        self.trainer._metrics["train"][name].append(value.item())

    def _blacken(self, pixels: torch.Tensor, share: float) -> torch.Tensor:
        assert self._black is not None
        patch_size = self.trainer._base_model(self.trainer.model).config.vision_config.patch_size
        return blacken(pixels, self._black.to(pixels), share, patch_size)


def reduce(trainer: Any, per_token_BT: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """The loss of a micro-batch from a loss per token, with TRL's normaliser of the trainer's loss type."""
    mask_BT = loss_mask(inputs)
    weights_B = window_weights(trainer, mask_BT.sum(1), inputs["num_items_in_batch"])
    return ((per_token_BT * mask_BT).sum(1) * weights_B).sum()


def loss_mask(inputs: dict[str, Any]) -> torch.Tensor:
    """The tokens of a micro-batch that are trained on (B, T)."""
    mask_BT = inputs["completion_mask"]
    return mask_BT * inputs["tool_mask"] if "tool_mask" in inputs else mask_BT


def black(image_processor: Any) -> torch.Tensor:
    """What a processor makes of a black patch: its whole row (D,) in a flat layout, its channels (C,) in tiles."""
    pixels = image_processor(images=[Image.new("RGB", (112, 112))], return_tensors="pt")["pixel_values"]
    if pixels.ndim == 2:
        return pixels[0]
    if pixels.ndim in (4, 5):
        return pixels.flatten(0, -4)[0, :, 0, 0]
    raise ValueError(
        f"terms: papo knows images as rows of patches (Qwen) and as tiles (LLaVA-OneVision, InternVL), not as pixel "
        f"values of {pixels.ndim} dimensions."
    )


def blacken(pixels: torch.Tensor, black: torch.Tensor, share: float, patch_size: Any) -> torch.Tensor:
    """Images of which each patch is black with a chance of `share`, as if it had been so before the processor.

    >>> blacken(torch.ones(2, 6), torch.full((6,), -1.8), share=1.0, patch_size=14)[0, 0].item()
    -1.7999999523162842
    """
    if pixels.ndim == 2:  # a row a patch
        return torch.where(draw((len(pixels), 1), share, pixels.device), black, pixels)
    side = patch_size[0] if isinstance(patch_size, list | tuple) else patch_size
    *tiles, _, height, width = pixels.shape
    grid = draw((*tiles, 1, -(-height // side), -(-width // side)), share, pixels.device)
    masked = grid.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., :height, :width]
    return torch.where(masked, black[:, None, None], pixels)


def draw(shape: tuple[int, ...], share: float, device: torch.device) -> torch.Tensor:
    """Which patches are black."""
    return torch.rand(shape, device=device) < share
