"""In bf16, a packed row is no further from the truth than TRL's copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import OURS, logps, update
from tiny import completions


def ours_on(loss: str) -> dict[str, Any]:
    return OURS | {"options": {"share_prompt": True, "loss": loss}}


def in_bf16(model: Any) -> None:
    model.to(torch.bfloat16)


def rounded(model: Any) -> None:
    """The weights that bf16 can hold, in fp32: the truth of what the bf16 models compute."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()


# As in a recipe with `dtype: bfloat16`, and as in TRL's default, fp32 weights under autocast.
WEIGHTS = {"prepare": in_bf16}
AUTOCAST = {"prepare": rounded, "bf16": True}


# Rounding is noise: on one draw of completions either may be further by a tenth, on the sum of several neither is
DRAWS = 6

ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: its kernels, in the whole trainer"),
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_CUDA)])
@pytest.mark.parametrize("loss", ["trl", "liger"])
@pytest.mark.parametrize("precision", [WEIGHTS, AUTOCAST], ids=["weights", "autocast"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_bf16_is_no_further_from_fp32_than_trl(
    make: Callable[..., Any], family: str, precision: Any, loss: str, device: str
) -> None:
    settings: dict[str, Any] = {"family": family, "use_cpu": device == "cpu"}
    settings |= {"build": {"hidden": 64, "layers": 4}, "gradient_accumulation_steps": 1, "max_completion_length": 24}
    settings |= {"per_device_train_batch_size": 8}
    errors, distances = torch.zeros(2), torch.zeros(2)
    for seed in range(DRAWS):
        given = completions([24, 16, 20, 24, 9, 24, 24, 13], seed)
        truth = make(**settings, given=given, prepare=rounded)
        stock, ours = (make(**kind, **settings, given=given, **precision) for kind in ({}, ours_on(loss)))
        expected = logps(truth)[0]
        errors += torch.stack([(logps(trainer)[0] - expected).square().mean().cpu() for trainer in (ours, stock)])
        gradients = [update(trainer).gradients for trainer in (ours, stock, truth)]
        for index, found in enumerate(gradients[:2]):
            for name, value in gradients[2].items():
                if value is not None:
                    distances[index] += (found[name].float() - value).square().sum().cpu()
    assert 0 < errors[0] < 1.1**2 * errors[1]
    assert 0 < distances[0] < 1.1 * distances[1]
