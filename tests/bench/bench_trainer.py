r"""Stock `GRPOTrainer` and `OneVisionGRPOTrainer` side by side, in one process, on the same rows and completions.

    python tests/bench/bench_trainer.py --shape small --prompt 315 1067 --completion 64 128 --group 8
    python tests/bench/bench_trainer.py --shape 7b --device cuda --dtype bfloat16 --checkpointing --prompt 1480 \
        --completion 300 --group 8

`small` is a model of a few million parameters for a CPU; `3b` and `7b` have the shapes of Qwen2.5-VL with random
weights.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from rich.console import Console
from rich.table import Table
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor
from trl import GRPOConfig, GRPOTrainer

sys.path.append(str(Path(__file__).parents[1] / "grpo"))

import tiny
import zoo

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo import tower_attention

PIXELS = 28  # of a side of an image token
ROPE = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}
TOWER = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "tokens_per_second": 2}
SHAPES = {
    "3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
}


def build(shape: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A model of the shape on the device, and a processor that fits it."""
    small, processor = tiny.build("qwen2_5_vl", hidden=256, layers=4, vocabulary=4096)
    if shape == "small":
        return small.to(device, dtype), processor
    text = {**SHAPES[shape], "rope_parameters": ROPE, "eos_token_id": small.config.text_config.eos_token_id}
    config = Qwen2_5_VLConfig(
        text_config={**text, "pad_token_id": small.config.text_config.pad_token_id, "bos_token_id": None},
        vision_config={**TOWER, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=shape == "3b",
        **zoo.qwen_ids(processor.tokenizer),
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = small.generation_config
    return model, processor


def rows(prompt: int, count: int, processor: Any) -> datasets.Dataset:
    """`count` rows whose prompts have `prompt` tokens, as many of them an image's as make a square."""
    side = max(math.isqrt(max(prompt - 24, 4)), 2)
    overhead = 0
    while True:
        data = tiny.dataset(count, sizes=((side * PIXELS, side * PIXELS),))
        texts = [[{"role": "user", "content": "x" * max(prompt - side**2 - overhead, 1)}] for _ in range(count)]
        data = data.remove_columns("prompt").add_column("prompt", texts)
        if overhead:
            return data
        rendered = processor.apply_chat_template(texts[0], add_generation_prompt=True)
        # All but the text's own characters, and the two tokens that enclose an image.
        overhead = len(processor.tokenizer(rendered)["input_ids"]) - len(texts[0][0]["content"]) + 2


class Saved:
    """Bytes that autograd keeps for the backward pass, parameters not counted: activation memory on any device."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seen = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.bytes = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> Saved:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.hooks.__exit__(*exception)


def trainer(kind: type, options: argparse.Namespace, group: int, data: Any, given: list | None, folder: str) -> Any:
    """A trainer of the class on its own copy of the model, one group a micro-batch."""
    model, processor = build(options.shape, options.device, getattr(torch, options.dtype))
    ours = issubclass(kind, OneVisionGRPOTrainer)
    # What is compared is the same work: no completion is left out.
    own = {"share_prompt": options.share_prompt, "skip_zero_advantages": False, "loss": options.loss}
    args = (OneVisionGRPOConfig if ours else GRPOConfig)(
        output_dir=folder,
        report_to="none",
        use_cpu=options.device == "cpu",
        bf16=False,
        per_device_train_batch_size=group,
        num_generations=group,
        gradient_accumulation_steps=1,
        max_completion_length=options.new_tokens,
        gradient_checkpointing=options.checkpointing,
        generation_kwargs={"min_new_tokens": options.new_tokens},
        **(own if ours else {}),
    )
    kind = kind if given is None else type(kind.__name__, (tiny.Given, kind), {"completions": given})
    built = kind(model, tiny.reward, args, data, processing_class=processor)
    built.model.train()
    if options.same_tower:
        tower_attention.enable(built.model)
    if options.checkpointing:
        built.model.gradient_checkpointing_enable({"use_reentrant": False})
    built.current_gradient_accumulation_steps = 1
    return built


def interleaved(functions: list[Callable[[], Any]], repeats: int, device: str) -> list[float]:
    """The median time of each function, taken in turns; processor time on a CPU, which others may share."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first round is a warm-up
                taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


def peak(function: Callable[[], Any], device: str) -> float:
    """Peak of the device's memory in GB above what is held before the function; nan where the device does not tell."""
    if device != "cuda":
        return math.nan
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def measure(prompt: int, completion: int, group: int, options: argparse.Namespace, folder: str) -> list[list[str]]:
    """One table row for each part: time of stock and ours, their ratio, memory of both."""
    lengths = [max(1, round(completion * (1 - options.spread * i / group))) for i in range(group)]
    given = tiny.completions(lengths)
    processor = build("small", "cpu", torch.float32)[1]
    data = rows(prompt, 1, processor)
    both = [trainer(kind, options, group, data, given, folder) for kind in (GRPOTrainer, OneVisionGRPOTrainer)]
    batches = [t._generate_and_score_completions(next(iter(t.get_train_dataloader()))) for t in both]
    tokens = int(batches[0]["prompt_mask"][0].sum())

    def update(which: int) -> None:
        # Gradients add up in place, so that a peak above them is activations
        both[which].compute_loss(both[which].model, batches[which]).backward()

    def saved(which: int) -> float:
        with Saved(both[which].model) as kept:
            loss = both[which].compute_loss(both[which].model, batches[which])
        loss.backward()
        return kept.bytes / 1e6

    def score(which: int) -> None:
        batch = batches[which]
        keys = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")
        with torch.no_grad():
            both[which]._get_per_token_logps_and_entropies(
                both[which].model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].size(1),
                **{key: batch[key] for key in keys},
            )

    where = [str(tokens), str(completion), str(group)]
    table = []
    if "update" in options.parts:
        stock, ours = interleaved([lambda: update(0), lambda: update(1)], options.repeats, options.device)
        memory = [saved(0), saved(1)]
        peaks = [peak(lambda: update(0), options.device), peak(lambda: update(1), options.device)]
        table.append([*where, "policy update", *_times(stock, ours), *(f"{m:.0f}" for m in memory), *_peaks(peaks)])
    if "scoring" in options.parts:
        stock, ours = interleaved([lambda: score(0), lambda: score(1)], options.repeats, options.device)
        table.append([*where, "scoring", *_times(stock, ours), "", "", "", ""])
    if "rollout" in options.parts:
        rollers = [trainer(kind, options, group, data, None, folder) for kind in (GRPOTrainer, OneVisionGRPOTrainer)]
        loaded = [next(iter(t.get_train_dataloader())) for t in rollers]
        stock, ours = interleaved(
            [lambda: rollers[0]._generate_and_score_completions(loaded[0]),
             lambda: rollers[1]._generate_and_score_completions(loaded[1])],
            options.repeats, options.device,
        )  # fmt: skip
        name = f"rollout of {options.new_tokens} tokens"
        table.append([*where, name, *_times(stock, ours), "", "", "", ""])
    return table


def _times(stock: float, ours: float) -> list[str]:
    return [f"{1000 * stock:.0f}", f"{1000 * ours:.0f}", f"{stock / ours:.2f}"]


def _peaks(peaks: list[float]) -> list[str]:
    return ["" if math.isnan(p) else f"{p:.1f}" for p in peaks]


def count(options: argparse.Namespace, folder: str) -> list[list[str]]:
    """Decodes and preprocesses of one optimizer step: 8 prompts, G=8, 8 rows a micro-batch, 8 micro-batches."""
    seen = {"decoded": 0, "preprocessed": 0}
    decode, preprocess = datasets.Image.decode_example, Qwen2VLImageProcessor.preprocess

    def counted_decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["decoded"] += 1
        return decode(self, *args, **kwargs)

    def counted_preprocess(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen["preprocessed"] += sum(len(row) if isinstance(row, list) else 1 for row in images)
        return preprocess(self, images, *args, **kwargs)

    datasets.Image.decode_example, Qwen2VLImageProcessor.preprocess = counted_decode, counted_preprocess
    table = []
    for kind in (GRPOTrainer, OneVisionGRPOTrainer):
        ours = kind is OneVisionGRPOTrainer
        args = (OneVisionGRPOConfig if ours else GRPOConfig)(
            output_dir=folder, report_to="none", use_cpu=options.device == "cpu", bf16=False, num_generations=8,
            per_device_train_batch_size=8, gradient_accumulation_steps=8, max_completion_length=8, max_steps=1,
            disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        given = tiny.completions([8] * 64)
        model, processor = tiny.build("qwen2_5_vl")
        data = tiny.dataset(8, sizes=((280, 280),))
        seen.update(decoded=0, preprocessed=0)
        start = time.perf_counter()
        type(kind.__name__, (tiny.Given, kind), {"completions": given})(
            model, tiny.reward, args, data, processing_class=processor
        ).train()
        seconds = time.perf_counter() - start
        table.append(["ours" if ours else "TRL", str(seen["decoded"]), str(seen["preprocessed"]), f"{seconds:.1f}"])
    datasets.Image.decode_example, Qwen2VLImageProcessor.preprocess = decode, preprocess
    return table


def show(console: Console, title: str, columns: list[str], table: list[list[str]]) -> None:
    """Print a table, and the same in markdown for `docs/performance.md`."""
    drawn = Table(*columns, title=title)
    for row in table:
        drawn.add_row(*row)
    console.print(drawn)
    for row in [columns, ["---"] * len(columns), *table]:
        console.print("| " + " | ".join(row) + " |", soft_wrap=True, highlight=False)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is measured, from a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["small", *SHAPES], default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompt", type=int, nargs="+", default=[315, 1067])
    parser.add_argument("--completion", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--group", type=int, nargs="+", default=[8])
    parser.add_argument(
        "--spread", type=float, default=0.0, help="how much shorter the shortest completion is, 0 to 1"
    )
    parser.add_argument("--parts", nargs="+", default=["update", "scoring", "rollout", "counts"])
    parser.add_argument("--new-tokens", type=int, default=16, help="tokens a rollout generates")
    parser.add_argument("--share-prompt", default="auto")
    parser.add_argument("--loss", choices=["trl", "liger"], default="trl", help="of this trainer")
    parser.add_argument("--same-tower", action="store_true", help="give TRL's model this trainer's tower attention")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(arguments)


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    console = Console(width=140)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    console.print(
        f"{machine}, {platform.machine()}; TRL {trl.__version__}, transformers {transformers.__version__}, "
        f"torch {torch.__version__}; {options.shape}, {options.dtype}, median of {options.repeats}"
    )
    with tempfile.TemporaryDirectory() as folder:
        table = [
            row
            for prompt in options.prompt
            for completion in options.completion
            for group in options.group
            for row in measure(prompt, completion, group, options, folder)
        ]
        columns = ["prompt", "completion", "G", "part", "TRL ms", "ours ms", "TRL / ours"]
        columns += ["TRL saved MB", "ours saved MB", "TRL peak GB above weights and gradients", "ours"]
        show(console, "Time and memory of one group", columns, table)
        if "counts" in options.parts:
            columns = ["trainer", "images decoded", "images preprocessed", "step s"]
            show(console, "One optimizer step: 8 prompts, G=8, 8 micro-batches", columns, count(options, folder))


if __name__ == "__main__":
    report(options())
