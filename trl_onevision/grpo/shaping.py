"""Advantages that a paper scales: a factor for each completion, from what its group was paid.

A function here takes the table of a generation (`Groups`) and returns a factor a completion (N,); several multiply. A
recipe may name one of its own by dotted path. `steps` alone gives a token its own (`credit.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trl_onevision import dotted
from trl_onevision.grpo.credit import key_step_credit
from trl_onevision.grpo.groups import Groups, may_hold

Shape = Callable[[Groups], torch.Tensor]

STATE_FILE = "advantage_state.json"


def odsw_easy(groups: Groups) -> torch.Tensor:
    """sin(πp) below half, 1 from there on (VL-Cogito, arXiv 2507.22607): what is hard counts less.

    p is the group's share of right completions. 1 where nothing was said of a group; so in all functions here.
    """
    p_M = groups.accuracy_M
    return _spread(groups, torch.where(p_M < 0.5, _sine(p_M), 1.0))


def odsw_medium(groups: Groups) -> torch.Tensor:
    """sin(πp): most where half is right, nothing where all or none is (VL-Cogito)."""
    return _spread(groups, _sine(groups.accuracy_M))


def odsw_hard(groups: Groups) -> torch.Tensor:
    """1 up to half, sin(πp) above: what is easy counts less (VL-Cogito, the paper)."""
    p_M = groups.accuracy_M
    return _spread(groups, torch.where(p_M > 0.5, _sine(p_M), 1.0))


def odsw_hard_code(groups: Groups) -> torch.Tensor:
    """`odsw_hard`, but a quarter where none is right, as in the script of VL-Cogito's last stage."""
    factor_N = odsw_hard(groups)
    return torch.where(groups.spread(groups.accuracy_M) == 0, 0.25, factor_N)


def observe(groups: Groups) -> torch.Tensor:
    """4σp(1 - p) with σ = 1.8 (Observe-R1, arXiv 2505.12432)."""
    p_M = groups.accuracy_M
    return _spread(groups, 4 * 1.8 * p_M * (1 - p_M))


def univg(groups: Groups) -> torch.Tensor:
    """e^(1 - m), m the group's mean reward, there the IoU (UniVG-R1, arXiv 2505.14231, its default)."""
    return _spread(groups, torch.exp(1 - groups.split(groups.correct_N).nanmean(1)))


def stcr(groups: Groups) -> torch.Tensor:
    """2 - 1.00001^-d for a wrong completion d tokens longer than the mean right one (APO, arXiv 2506.21655).

    1 for the others, and for all of a group in which none is right.
    """
    right_MG = groups.split(groups.right_N)
    lengths_MG = groups.split(groups.lengths_N).double()
    is_right_MG = right_MG == 1
    target_M1 = (lengths_MG * is_right_MG).sum(1, keepdim=True) / is_right_MG.sum(1, keepdim=True)  # NaN for none
    longer_MG = (lengths_MG - target_M1).clamp(min=0).masked_fill(right_MG != 0, 0).nan_to_num(nan=0.0)
    return (2 - torch.pow(torch.tensor(1.00001, dtype=torch.float64), -longer_MG)).flatten().float()


class EMAScale:
    """1 / σ of the task, the root of moving first and second moments of its rewards (EMA-GRPO, arXiv 2512.03043).

    >>> rewards = torch.tensor([[1.0], [0.0]])
    >>> groups = Groups(rewards, torch.ones(1), torch.ones(2), 2, ["accuracy_reward"], {"task": ["math", "math"]})
    >>> EMAScale()(replace(groups, advantages_N=torch.tensor([0.5, -0.5]))).round(decimals=3).tolist()
    [2.0, 2.0]

    As in the released code: the moments take in the batch before they scale it, σ is at least 0.001, and a group that
    would get an advantage beyond 5 is divided by its own (population) deviation. It divides advantages that are
    centred only, so TRL's own division has to be off (`scale_rewards: none`).
    """

    decay, smallest, limit, eps = 0.99, 1e-3, 5.0, 1e-6

    def __init__(self) -> None:
        self.moments: dict[str, list[float]] = {}

    def __call__(self, groups: Groups) -> torch.Tensor:
        assert groups.advantages_N is not None
        tasks = [str(task) for task in groups.labels.get("task") or [None] * len(groups.lengths_N)]
        total_N = groups.total_N.double()
        scale_N = torch.ones_like(total_N)
        for task in sorted(set(tasks)):
            rows = torch.tensor([other == task for other in tasks], device=total_N.device)
            self._update(task, total_N[rows & ~total_N.isnan()])
            scale_N[rows] = self._deviation(task) + self.eps
        total_MG = groups.split(total_N)
        own_M = (total_MG - total_MG.nanmean(1, keepdim=True)).square().nanmean(1).sqrt().nan_to_num(nan=1.0)
        beyond_M = (groups.split(groups.advantages_N / scale_N).abs() > self.limit).any(1)
        return (1 / torch.where(groups.spread(beyond_M), groups.spread(own_M) + self.eps, scale_N)).float()

    def _update(self, task: str, rewards: torch.Tensor) -> None:
        if rewards.numel():
            batch = [rewards.mean().item(), rewards.square().mean().item()]
            kept = self.moments.get(task, batch)
            self.moments[task] = [
                self.decay * old + (1 - self.decay) * new for old, new in zip(kept, batch, strict=True)
            ]

    def _deviation(self, task: str) -> float:
        first, second = self.moments.get(task, (0.0, 0.0))
        return math.sqrt(max(second - first * first, self.smallest**2))


SHAPES: dict[str, Any] = {
    "odsw-easy": odsw_easy,
    "odsw-medium": odsw_medium,
    "odsw-hard": odsw_hard,
    "odsw-hard-code": odsw_hard_code,
    "observe": observe,
    "univg": univg,
    "stcr": stcr,
    "ema": EMAScale,
}
STEPS = "steps"
OF_CORRECT = set(SHAPES) - {"ema"}  # what reads which completions are right


def read(given: Any) -> dict[str, Shape]:
    """Functions by name from an option: a name, a dotted path, or a list of them.

    >>> list(read(["observe", "math.sqrt"])), read(None)
    (['observe', 'math.sqrt'], {})
    """
    names = [given] if isinstance(given, str) else given or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"advantage: a name, a dotted path, or a list of them, not {given!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"advantage: {names} names one twice.")
    return {name: find(name) for name in names}


def find(name: str) -> Shape:
    """The function of a name, or of a dotted path of yours.

    >>> find("observe") is observe
    True
    >>> find("obsreve")
    Traceback (most recent call last):
    ValueError: advantage: 'obsreve' is neither one of odsw-easy, odsw-medium, odsw-hard, odsw-hard-code, observe,
        univg, stcr, ema, steps nor a dotted path such as my_module.my_function.
    """
    if name == STEPS:  # a factor a token, for `Shaping` to apply
        return lambda groups: torch.ones_like(groups.total_N)
    if name not in SHAPES and "." not in name:
        raise ValueError(
            f"advantage: {name!r} is neither one of {', '.join([*SHAPES, STEPS])} nor a dotted path such as "
            "my_module.my_function."
        )
    shape = SHAPES.get(name) or dotted.find("advantage", name)
    return shape() if isinstance(shape, type) else shape


class Shaping:
    """The shaping of one trainer, and what it remembers from one generation to the next."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.shapes = read(trainer.options.advantage)
        self.credits_steps = STEPS in self.shapes
        if self.credits_steps and not may_hold(trainer, "key_steps"):
            raise ValueError("advantage: steps credits key steps, and the dataset has no column 'key_steps'.")

    def apply(self, scored: dict[str, Any], groups: Groups, rows: list[dict[str, Any]]) -> None:
        """Shape the advantages of a scored generation and of TRL's table of completions; `rows` are this rank's."""
        accelerator, logged = self.trainer.accelerator, self.trainer._logs["advantages"]
        advantages_N = accelerator.gather(scored["advantages"])
        factor_N = self.factor(replace(groups, advantages_N=advantages_N))
        start = accelerator.process_index * len(rows)
        shaped = (advantages_N * factor_N)[start : start + len(rows)]
        if self.credits_steps:
            credit_BT = key_step_credit(scored["completion_ids"], rows, self.trainer._tokenizer)
            mask_BT = scored["completion_mask"]
            shaped = shaped[:, None] + shaped.abs()[:, None] * credit_BT
            mean_B = (shaped * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)
        scored["advantages"] = shaped
        shown = accelerator.gather(mean_B if self.credits_steps else shaped).tolist()
        for _ in range(min(len(shown), len(logged))):
            logged.pop()
        logged.extend(shown)

    def factor(self, groups: Groups) -> torch.Tensor:
        """The product of all factors (N,)."""
        factor_N = torch.ones_like(groups.total_N)
        for name, shape in self.shapes.items():
            given = shape(groups)
            if not isinstance(given, torch.Tensor) or given.shape != factor_N.shape or not given.isfinite().all():
                raise ValueError(
                    f"advantage: {name} returned {_described(given)}, expected a tensor with a finite factor for each "
                    f"of the {len(factor_N)} completions."
                )
            factor_N = factor_N * given.to(factor_N)
        return factor_N

    def save(self, folder: Path) -> None:
        """Write beside a checkpoint what a run has to remember."""
        if moments := self._moments():
            (folder / STATE_FILE).write_text(json.dumps(moments))

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        if (folder / STATE_FILE).exists():
            self._moments().update(json.loads((folder / STATE_FILE).read_text()))

    def _moments(self) -> dict[str, list[float]]:
        return next((shape.moments for shape in self.shapes.values() if isinstance(shape, EMAScale)), {})


def _sine(p_M: torch.Tensor) -> torch.Tensor:
    return torch.sin(torch.pi * torch.minimum(p_M, 1 - p_M))  # exactly 0 at 1, too


def _spread(groups: Groups, factor_M: torch.Tensor) -> torch.Tensor:
    return groups.spread(factor_M.nan_to_num(nan=1.0))


def _described(given: Any) -> str:
    if not isinstance(given, torch.Tensor):
        return f"a {type(given).__name__}"
    return f"shape {tuple(given.shape)}" if given.isfinite().all() else f"{given.tolist()}"
