"""The private kernels that are launched are told apart from others by the names of their arguments."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from liger_kernel.ops import grpo_loss
from trl.kernels import chunked_logprob

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.loss import kernels

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")


def test_the_installed_kernels_are_those_that_are_launched():
    assert kernels.mismatch() is None


@pytest.mark.parametrize(("module", "name"), [*kernels.BY_NAME, *kernels.BY_POSITION])
@pytest.mark.parametrize("change", ["renamed", "one more", "one less", "gone"])
def test_another_kernel_is_named_with_its_version(module, name, change, monkeypatch):
    owner = grpo_loss if module.startswith("liger") else chunked_logprob
    names = list((kernels.BY_NAME | kernels.BY_POSITION)[module, name].split())
    changed = {"renamed": ["OTHER", *names[1:]], "one more": [*names, "OTHER"], "one less": names[1:]}
    monkeypatch.setattr(owner, name, SimpleNamespace(arg_names=changed[change]) if change in changed else None)
    assert re.search(rf"{name} of (trl|liger-kernel) \d.* but it takes ", kernels.mismatch())


def test_a_trainer_with_the_fused_loss_asks_at_its_start(make, monkeypatch):
    monkeypatch.setattr(grpo_loss, "_grpo_loss_bwd_kernel", None)
    with pytest.raises(ValueError, match=r"_grpo_loss_bwd_kernel .* it is gone.*set loss: trl"):
        make(OneVisionGRPOTrainer, config=OneVisionGRPOConfig, options={"loss": "liger"})
