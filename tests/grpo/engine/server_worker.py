"""What the server's worker is given on a CPU: weights that a push reaches, and a push that needs no NCCL."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from vllm.model_executor.layers import utils


def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    """vLLM packs a layer's weight away when it loads it on a CPU; here it stays where `load_weights` puts others."""
    layer.cpu_linear = torch.nn.functional.linear


utils.dispatch_cpu_unquantized_gemm = keep_weight


class Push:
    """A method more for the worker, which `/collective_rpc` calls."""

    def push(self, path: str) -> None:
        """Load the weights of a file of safetensors."""
        self.model_runner.model.load_weights(list(load_file(path).items()))
