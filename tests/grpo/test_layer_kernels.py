"""What is said of Liger's layer kernels, against what happens when they are applied."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import tiny
from liger_kernel.transformers import _apply_liger_kernel_to_instance

from trl_onevision.grpo import layer_kernels
from trl_onevision.grpo.trainer import OneVisionGRPOTrainer


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Liger replaces names in transformers' modules for good; put back what the next test needs."""
    modules = [m for name, m in sys.modules.items() if name.startswith("transformers.models.") and "modeling_" in name]
    before = [dict(vars(module)) for module in modules]
    yield
    for module, names in zip(modules, before, strict=True):
        vars(module).update(names)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_family_is_refused_exactly_where_liger_fails(family, monkeypatch):
    model, _ = tiny.build(family)
    try:
        # No kernel is asked for: what fails, fails for any
        _apply_liger_kernel_to_instance(model=model, rope=False, rms_norm=False, swiglu=False)
    except ImportError:
        with pytest.raises(
            ValueError, match=f"for '{family}' do not fit transformers .* loss: liger does not need it"
        ):
            layer_kernels.check(family)
    else:
        layer_kernels.check(family)


def test_a_family_without_kernels_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        layer_kernels.check("llava_onevision")
    assert "changes nothing: Liger has no layer kernels for 'llava_onevision'" in caplog.text


def test_the_trainer_says_so_at_its_start(make, caplog):
    with caplog.at_level(logging.WARNING):
        make(OneVisionGRPOTrainer, family="llava_onevision", use_liger_kernel=True)
    assert "Liger has no layer kernels" in caplog.text
