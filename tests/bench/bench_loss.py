"""The loss path alone: head projection, GRPO loss and their gradients, four ways side by side in one process.

    python tests/bench/bench_loss.py --tokens 2400 8192 --vocabulary 151936 152064 --hidden 3584 --device cuda

Every way gets the same hidden states, head and batch. Time is the median over rounds in which all ways take turns.
Memory is the peak of what torch allocates from the call on, gradients included; on a CPU it comes of one profiled run.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
from rich.console import Console
from rich.table import Table
from trl.kernels import ChunkedLogProbFunction

from trl_onevision.grpo.loss import liger, reference
from trl_onevision.grpo.loss.reference import LossOptions, TokenBatch, sequence_weights, weighted_loss
from trl_onevision.grpo.loss.tiles import runs_on_triton


@dataclass
class Inputs:
    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor
    labels_N: torch.Tensor
    batch: TokenBatch
    options: LossOptions
    tile_tokens: int | None

    def clear(self) -> None:
        self.hidden_NH.grad = self.weight_VH.grad = None


def full_logits(x: Inputs) -> torch.Tensor:
    return reference.grpo_loss(x.hidden_NH, x.weight_VH, None, x.labels_N, x.batch, x.options).loss


def trl_chunked(x: Inputs) -> torch.Tensor:
    """TRL's chunked log-probabilities and entropies, with its chunk of the vocabulary, and its loss on top."""
    logps_N, *_ = ChunkedLogProbFunction.apply(
        x.hidden_NH, x.weight_VH, None, x.labels_N, x.options.temperature, 32768, None, 1.0, ("entropy",)
    )
    return weighted_loss(logps_N, x.batch, x.options)


def liger_fused_linear(x: Inputs) -> torch.Tensor:
    """Liger's fused loss as it comes, on sequences of equal length; it computes no entropies."""
    B = x.batch.lengths_B.numel()
    compute = LigerFusedLinearGRPOLoss(
        beta=0.0, loss_type="bnpo", temperature=x.options.temperature, compiled=False, use_ref_model=False
    )
    labels_BT = x.labels_N.view(B, -1)
    assert x.batch.old_logps_N is not None
    loss, _ = compute(
        x.hidden_NH.view(B, labels_BT.size(1), -1),
        x.weight_VH,
        labels_BT,
        torch.ones_like(labels_BT, dtype=torch.float32),
        x.batch.advantages_B,
        old_per_token_logps=x.batch.old_logps_N.view(B, -1),
    )
    return loss


def fused(x: Inputs) -> torch.Tensor:
    return liger.grpo_loss(
        x.hidden_NH, x.weight_VH, None, x.labels_N, x.batch, x.options, tile_tokens=x.tile_tokens
    ).loss


def make(tokens: int, vocabulary: int, args: argparse.Namespace) -> Inputs:
    generator = torch.Generator(args.device).manual_seed(0)
    normal = functools.partial(torch.randn, generator=generator, device=args.device)
    lengths_B = torch.full((args.sequences,), tokens // args.sequences, device=args.device)
    total = int(lengths_B.sum())
    labels_N = torch.randint(vocabulary, (total,), generator=generator, device=args.device)
    hidden_NH = normal(total, args.hidden).to(args.dtype)
    weight_VH = (normal(vocabulary, args.hidden) / args.hidden**0.5).to(args.dtype)
    with torch.no_grad():
        logps_N, *_ = ChunkedLogProbFunction.apply(hidden_NH, weight_VH, None, labels_N, 1.0, 32768, None, 1.0, ())
    batch = TokenBatch(
        lengths_B=lengths_B,
        advantages_B=normal(args.sequences),
        weights_B=sequence_weights("bnpo", lengths_B),
        old_logps_N=logps_N + 0.1 * normal(total),
    )
    weight_VH.requires_grad_(not args.frozen_head)
    return Inputs(hidden_NH.requires_grad_(), weight_VH, labels_N, batch, LossOptions("bnpo"), args.tile_tokens)


def seconds_of(loss: Callable[[Inputs], torch.Tensor], x: Inputs) -> float:
    """Seconds of one forward and backward."""
    synchronize(x)
    start = time.perf_counter()
    loss(x).backward()
    synchronize(x)
    seconds = time.perf_counter() - start
    x.clear()
    return seconds


def peak_and_loss(loss: Callable[[Inputs], torch.Tensor], x: Inputs) -> tuple[int, float]:
    """The peak of the bytes allocated in one forward and backward, and the loss."""
    if x.hidden_NH.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = loss(x)
        value.backward()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            value = loss(x)
            value.backward()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        peak = max(itertools.accumulate(changes))
    x.clear()
    return peak, value.item()


def synchronize(x: Inputs) -> None:
    if x.hidden_NH.is_cuda:
        torch.cuda.synchronize()


def compare(tokens: int, vocabulary: int, args: argparse.Namespace, table: Table) -> None:
    x = make(tokens, vocabulary, args)
    kernel = "Liger's kernel" if runs_on_triton(args.device) else "without Triton"
    ways: dict[str, Callable[[Inputs], torch.Tensor]] = {
        "TRL chunked": trl_chunked,
        "Liger fused-linear": liger_fused_linear,
        f"loss: liger, {kernel}": fused,
        "full logits": full_logits,
    }
    peaks, losses = {}, {}
    for name, loss in ways.items():  # compiles and warms up as well
        peaks[name], losses[name] = peak_and_loss(loss, x)
    rounds = [{name: seconds_of(loss, x) for name, loss in ways.items()} for _ in range(args.rounds)]
    for name in ways:
        ratios = [seconds[name] / seconds["TRL chunked"] for seconds in rounds]
        table.add_row(
            f"{x.labels_N.numel()} x {vocabulary}",
            name,
            f"{statistics.median(seconds[name] for seconds in rounds) * 1e3:.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{peaks[name] / 1e9:.3f}",
            f"{peaks[name] / peaks['TRL chunked']:.2f}",
            f"{losses[name]:.5f}",
        )
    table.add_section()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32000, 151936])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--frozen-head", action="store_true", help="as under LoRA")
    parser.add_argument("--tile-tokens", type=int, help="other tiles than those of the trainer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default=None, help="default: bfloat16 on CUDA")
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype or ("bfloat16" if args.device.type == "cuda" else "float32"))
    return args


def main() -> None:
    args = parse()
    name = torch.cuda.get_device_name() if args.device.type == "cuda" else platform.processor() or platform.machine()
    head = "frozen" if args.frozen_head else "trainable"
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "trl", "liger-kernel", "transformers")
    )
    table = Table(
        title=f"{args.sequences} sequences, hidden size {args.hidden}, {args.dtype}, {head} head, "
        f"{torch.get_num_threads()} threads, {name}\n{versions}"
    )
    columns = ("tokens x vocabulary", "loss path", "ms", "of TRL", "peak GB", "of TRL", "loss")
    for column in columns:
        table.add_column(column, justify="left" if column == "loss path" else "right", no_wrap=True)
    for vocabulary in args.vocabulary:
        for tokens in args.tokens:
            compare(tokens, vocabulary, args, table)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
