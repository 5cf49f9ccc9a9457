"""What is said of Liger's layer kernels, against what happens when they are applied."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from trl_onevision.grpo import layer_kernels
from trl_onevision.grpo.trainer import OneVisionGRPOTrainer


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    script = Path(__file__).with_name("apply_layer_kernels.py")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_family_is_refused_exactly_where_liger_fails(family, failures):
    if family in failures:
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
