"""Liger's kernels compile for a Hopper GPU with exactly the arguments that the fused loss launches them with.

No GPU is needed: Triton compiles for a target that it is told, and ptxas comes with it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from liger_kernel.ops import grpo_loss as kernels
from problems import CASES, problem, run

from trl_onevision.grpo.loss import liger
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


@pytest.mark.parametrize(
    ("case", "is_ratio", "names"),
    [
        ("dapo", None, ("_grpo_loss_fwd_kernel", "_grpo_loss_bwd_kernel")),
        ("kl", "token", ("_grpo_loss_fwd_kernel", "_grpo_loss_bwd_kernel")),
        ("vespo", "sequence", ("_grpo_loss_fwd_kernel", "_grpo_loss_bwd_kernel")),
        ("sequence, kl corrected", "sequence", ("_grpo_loss_fwd_kernel_seq", "_grpo_loss_bwd_kernel_seq")),
    ],
)
def test_the_kernels_compile(case, is_ratio, names, monkeypatch):
    stand_ins = [CompiledOnly(getattr(kernels, name)) for name in names]
    for name, stand_in in zip(names, stand_ins, strict=True):
        monkeypatch.setattr(kernels, name, stand_in)
    monkeypatch.setattr(liger, "runs_on_triton", lambda device: True)
    options = LossOptions(**CASES[case])
    inputs = problem(options, (5, 0, 3), vocabulary=501, is_ratio=is_ratio, dtype=torch.bfloat16)
    run(liger.grpo_loss, *inputs, options)
    assert [stand_in.launches for stand_in in stand_ins] == [[(1, 5), (1, 3)]] * 2
