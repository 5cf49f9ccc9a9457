"""Floating-point operations of a policy update, stock's beside ours, as torch counts them and as arithmetic has them.

    python tests/bench/bench_flops.py --shape 3b 7b --prompt 1480 --completion 300 1024 --group 8

The models are of the shapes of Qwen2.5-VL, on the meta device: tensors without data, so that nothing is computed and
no GPU is needed. Counted is the language model, forward and backward, without gradient checkpointing;
TRL's head over the completions, which the meta device cannot run, is arithmetic. torch counts causal
attention as if it were full, for both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parent))

from bench_trainer import SHAPES, build, show

from trl_onevision.grpo import shared_prompt


def counted(run: Callable[[], torch.Tensor]) -> int:
    """Operations of a pass and of its backward pass."""
    with FlopCounterMode(display=False) as counter:
        output = run()
        output.backward(torch.empty_like(output))
    return counter.get_total_flops()


def language(model: Any, rows: int, length: int, groups: list[shared_prompt.Group] | None) -> int:
    """The language model over rows of a length, or over one packed row."""
    decoder = model.get_decoder()
    embeds = torch.empty(rows, length, decoder.config.hidden_size, device="meta", dtype=model.dtype)
    mask: Any = {"full_attention": None} if groups is None else torch.empty(1, 1, 1, 1, device="meta")
    return counted(
        lambda: (
            decoder(
                inputs_embeds=embeds.requires_grad_(),  # of the embedding and the tower
                attention_mask=mask,
                position_ids=torch.empty(3, rows, length, device="meta", dtype=torch.long),
                use_cache=False,
                **({} if groups is None else {"shared_prompt": groups}),
            ).last_hidden_state
        )
    )


def head(model: Any, tokens: int) -> int:
    """TRL's head over the tokens of completions, all that it projects on a GPU: forward, again, and two backward."""
    return 8 * tokens * model.get_output_embeddings().weight.numel()


def linear(module: torch.nn.Module) -> int:
    """Weights of the module's matrix products."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear))


def language_formula(model: Any, tokens: int, pairs: int) -> int:
    """Three products a weight and token; of a pair of query and key: two products forward, four backward."""
    config = model.get_decoder().config
    return 6 * tokens * linear(model.get_decoder()) + 12 * pairs * config.hidden_size * config.num_hidden_layers


def pairs(prompt: int, completion: int, group: int) -> tuple[int, int]:
    """Queries times keys, of TRL's copies and of a packed row."""
    return group * (prompt + completion) ** 2, (prompt - 1) ** 2 + group * completion * (prompt - 1 + completion)


def packed_groups(prompt: int, completion: int, group: int) -> list[shared_prompt.Group]:
    row = shared_prompt.pack([prompt] * group, [completion] * group, [0] * group, prompt, completion)
    return shared_prompt.to_device(row, torch.device("meta")).groups


def update(model: Any, prompt: int, completion: int, group: int) -> list[dict[str, int]]:
    """What torch counts for the parts of a policy update, and what arithmetic has for it: TRL's, and ours."""
    shared_prompt.enable(model)
    scored = head(model, group * completion)
    lengths = group * (prompt + completion), prompt - 1 + group * completion
    counts = (
        language(model, group, prompt + completion, None),
        language(model, 1, lengths[1], packed_groups(prompt, completion, group)),
    )
    found = []
    for tokens, seen, count in zip(lengths, pairs(prompt, completion, group), counts, strict=True):
        formula = language_formula(model, tokens, seen)
        found.append({"language": count, "formula": formula, "head": scored})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), nargs="+", default=list(SHAPES))
    parser.add_argument("--prompt", type=int, nargs="+", default=[1480])
    parser.add_argument("--completion", type=int, nargs="+", default=[300, 1024])
    parser.add_argument("--group", type=int, nargs="+", default=[8])
    options = parser.parse_args()
    table = []
    for shape in options.shape:
        model, _ = build(shape, "meta", torch.bfloat16)
        for prompt in options.prompt:
            for completion in options.completion:
                for group in options.group:
                    stock, ours = update(model, prompt, completion, group)
                    totals = [part["language"] + part["head"] for part in (stock, ours)]
                    where = [shape, str(prompt), str(completion), str(group)]
                    for name, part, total in zip(("TRL", "ours"), (stock, ours), totals, strict=True):
                        numbers = [part["language"], part["formula"], part["head"], total]
                        ratio = "" if name == "TRL" else f"{totals[0] / totals[1]:.2f}"
                        table.append([*where, name, *(f"{number / 1e12:.1f}" for number in numbers), ratio])
    columns = ["shape", "prompt", "completion", "G", "trainer", "language model", "by the formula"]
    columns += ["head", "sum", "TRL / ours"]
    show(Console(width=140), "TFLOPs of a policy update", columns, table)


if __name__ == "__main__":
    main()
