"""Liger's kernel compiles for a Hopper GPU with exactly the arguments that the fused loss launches it with.

No GPU is needed: Triton compiles for a target that it is told, and ptxas comes with it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from liger_kernel.ops import grpo_loss as kernels
from problems import problem, run

from trl_onevision.grpo.loss import liger, tiles
from trl_onevision.grpo.loss.reference import LossOptions

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}


class CompiledOnly:
    """Stands in for a kernel, and compiles it where it would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launches: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **arguments: self.launch(grid, arguments)

    def launch(self, grid: tuple[int, ...], arguments: dict[str, Any]) -> None:
        options = {name: arguments.pop(name) for name in ("num_warps", "num_stages")}
        assert arguments.keys() == set(self.kernel.arg_names)
        signature, constants = {}, {}
        for position, parameter in enumerate(self.kernel.params):
            value = arguments[parameter.name]
            if parameter.is_constexpr or value is None:
                signature[parameter.name], constants[(position,)] = "constexpr", value
            else:
                signature[parameter.name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        source = triton.compiler.ASTSource(self.kernel, signature, constants)
        compiled = triton.compile(source, triton.backends.compiler.GPUTarget("cuda", 90, 32), options)
        assert compiled.asm["cubin"]
        self.launches.append(grid)


def test_the_kernel_compiles(monkeypatch):
    stand_in = CompiledOnly(kernels._grpo_loss_bwd_kernel)
    monkeypatch.setattr(kernels, "_grpo_loss_bwd_kernel", stand_in)
    monkeypatch.setattr(tiles, "runs_on_triton", lambda device: True)
    options = LossOptions(temperature=0.7)
    run(liger.grpo_loss, *problem(options, (5, 0, 3), vocabulary=501, dtype=torch.bfloat16), options)
    assert stand_in.launches == [(1, 8)]
