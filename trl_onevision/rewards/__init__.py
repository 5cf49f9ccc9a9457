"""Verifiable rewards: plain callables that turn completions into numbers. Never imports torch, trl or datasets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trl_onevision.rewards.accuracy import AccuracyReward, accuracy_reward
from trl_onevision.rewards.compose import Clip, First, Gate, Product, Scheduled, hard_format_accuracy_reward
from trl_onevision.rewards.format import FormatReward, format_reward
from trl_onevision.rewards.length import (
    BudgetReward,
    ConciseReward,
    DynamicLengthReward,
    budget_reward,
    concise_reward,
    dynamic_length_reward,
)
from trl_onevision.rewards.order import OrderReward, order_reward
from trl_onevision.rewards.steps import (
    StepAccuracyReward,
    StepValidityReward,
    step_accuracy_reward,
    step_validity_reward,
)

if TYPE_CHECKING:
    from trl_onevision.rewards.actions import ActionReward, action_reward
    from trl_onevision.rewards.boxes import DetectionReward, IoUReward, detection_reward, iou_reward
    from trl_onevision.rewards.masks import MaskReward, mask_reward
    from trl_onevision.rewards.points import PointReward, point_reward
    from trl_onevision.rewards.render import RenderReward, render_reward
    from trl_onevision.rewards.spans import SpanReward, span_reward

# `__all__` names the rewards a recipe can use as they are; the contract test and the table in the docs go through it.
__all__ = [
    "AccuracyReward",
    "ActionReward",
    "BudgetReward",
    "Clip",
    "ConciseReward",
    "DetectionReward",
    "DynamicLengthReward",
    "First",
    "FormatReward",
    "Gate",
    "IoUReward",
    "MaskReward",
    "OrderReward",
    "PointReward",
    "Product",
    "RenderReward",
    "Scheduled",
    "SpanReward",
    "StepAccuracyReward",
    "StepValidityReward",
    "accuracy_reward",
    "action_reward",
    "budget_reward",
    "concise_reward",
    "detection_reward",
    "dynamic_length_reward",
    "format_reward",
    "hard_format_accuracy_reward",
    "iou_reward",
    "mask_reward",
    "order_reward",
    "point_reward",
    "render_reward",
    "span_reward",
    "step_accuracy_reward",
    "step_validity_reward",
]

_LATER = ("actions", "boxes", "masks", "points", "render", "spans")  # need numpy, which no other reward waits for


def __getattr__(name: str) -> Any:
    for module in _LATER if name in __all__ else ():
        if hasattr(found := import_module(f"{__name__}.{module}"), name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
