"""Completions per second of each reward, and how many answers are decided without algebra.

    python tests/bench/bench_rewards.py [--completions 2000]

The mix is what policies write early and late in training: right and wrong answers in tags, boxes and sentences, plain
numbers, LaTeX, letters, text, truncated and repeated output. What others do: TRL, ms-swift and lmm-r1 parse and verify
every completion with math-verify, one at a time; R1-V and VLM-R1 do and then compare strings; EasyR1 calls mathruler;
Unsloth compares strings. TRL's reward and ms-swift's, where it is installed, score the same distinct pairs; the share
right is of the verdicts that the pairs were made with.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from trl.rewards import accuracy_reward as trl_accuracy

from trl_onevision import rewards
from trl_onevision.answers import compare, parse
from trl_onevision.answers.extract import answer_text
from trl_onevision.rewards import AccuracyReward, verify

BOXES = '[{"bbox_2d": [10, 10, 90, 90], "label": "cat"}, {"bbox_2d": [100, 10, 190, 90], "label": "dog"}]'
THINKING = "<think>" + "The two sides are equal, so the angle at the top is what remains of 180. " * 12 + "</think>"
MATH = [  # (gold, answer as written)
    ("145", "<answer>145</answer>"), ("145", "<answer>145°</answer>"), ("145", "<answer>35</answer>"),
    ("145°", r"<answer>$145^\circ$</answer>"), (r"\frac{1}{2}", r"\boxed{0.5}"), (r"\frac{1}{2}", r"\boxed{\frac12}"),
    (r"\frac{1}{2}", r"\boxed{\frac{2}{3}}"), ("1000", "The answer is 1,000."), ("12", "<answer>12, 13</answer>"),
    (r"2\sqrt{3}", r"<answer>2\sqrt{3}</answer>"), (r"2\sqrt{3}", r"<answer>\sqrt{12}</answer>"),
    (r"2\sqrt{3}", "<answer>3.46</answer>"), ("x=5", "<answer>5</answer>"), ("12", "the area is 12 but"),
    ("12", "<answer>twelve cats</answer>"), ("B", "<answer>B</answer>"), ("B", "<answer>(C) red</answer>"),
    ("red", "<answer>Red.</answer>"), ("3.5", "<answer>7/2</answer>"), ("50%", "<answer>0.5</answer>"),
]  # fmt: skip
ON_TEXT = (
    "format_reward",
    "accuracy_reward",
    "step_accuracy_reward",
    "step_validity_reward",
    "concise_reward",
    "dynamic_length_reward",
    "budget_reward",
    "hard_format_accuracy_reward",
)


def rate(name: str, run: Callable[[], Any], completions: int) -> None:
    run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    print(f"| {name} | {completions / seconds:,.0f} |")


def peers() -> dict[str, Callable[[list[str], list[str]], list[float | None]]]:
    """The accuracy rewards of others, by name: each takes completions as text, and solutions."""
    found = {"TRL": lambda said, golds: trl_accuracy([[{"content": text}] for text in said], golds)}
    try:
        from swift.rewards.orm import MathAccuracy
    except ImportError as error:
        print(f"ms-swift is left out: {error}\n")
        return found
    return {**found, "ms-swift": MathAccuracy()}


def score_all(said: list[str], golds: list[str]) -> list[float | None]:
    """All pairs by the reward, with nothing that an earlier call left behind."""
    parse.read.cache_clear()
    verify._remembered.clear()
    return rewards.accuracy_reward(said, solution=golds, task=["math"] * len(golds))


def beside_peers() -> None:
    """Distinct pairs by this reward and by others: how many a second of processor time, and how many are right."""
    symbols = [(f"{n}x + 1", f"1 + {n}x") for n in range(1, 201)]
    equal = [
        (rf"\sqrt{{{n}}} + \frac{{\pi}}{{{n + 1}}}", rf"\frac{{\pi}}{{{n + 1}}} + {n}^{{1/2}}") for n in range(2, 202)
    ]
    unequal = [(gold, said.replace("1/2", "1/3")) for gold, said in equal]
    kinds = {"symbols": (symbols, 1), "equal constants": (equal, 1), "unequal constants": (unequal, 0)}
    print("| distinct pairs of | reward | pairs per second of processor time | right |\n|---|---|---|---|")
    for kind, (pairs, expected) in kinds.items():
        golds = [f"${gold}$" for gold, _ in pairs]
        said = [rf"<answer>$\boxed{{{answer}}}$</answer>" for _, answer in pairs]
        for name, score in {"trl_onevision": score_all, **peers()}.items():
            score(said[:2], golds[:2])
            start = time.process_time()
            scores = score(said, golds)
            seconds = time.process_time() - start
            right = sum(value == expected for value in scores) / len(scores)
            print(f"| {kind} | {name} | {len(pairs) / seconds:,.0f} | {right:.0%} |")


def is_decided(gold: str, said: str) -> bool:
    """Whether text and numbers decide a pair, without algebra in another process."""
    wanted, given = parse.read(gold), parse.read(said)
    return wanted is None or given is None or compare.same(wanted, given) is not None


def main(completions: int) -> None:
    rows = [MATH[index % len(MATH)] for index in range(completions)]
    golds, said = [gold for gold, _ in rows], [THINKING + answer for _, answer in rows]
    pairs = [(gold, answer_text(text) or "") for gold, text in zip(golds, said, strict=True)]
    columns = {"solution": golds, "key_steps": [[["the angle at the top", "apex"]]] * completions}
    columns |= {"completion_ids": [[0] * 250] * completions, "difficulty": [2.0] * completions, "prompts": golds}
    boxes = {"completions": [f"{THINKING}<answer>{BOXES}</answer>"] * completions, "solution": [BOXES] * completions}

    print(f"{platform.machine()}, Python {platform.python_version()}, {completions} completions\n")
    print("| reward | completions per second |\n|---|---|")
    for name in ON_TEXT:
        rate(name, partial(getattr(rewards, name), completions=said, **columns), completions)
    for name in ("iou_reward", "detection_reward"):
        rate(name, partial(getattr(rewards, name), task=["boxes"] * completions, **boxes), completions)
    anls = AccuracyReward(task="text", text="anls")
    rate("accuracy_reward, anls", lambda: anls(completions=said, **columns), completions)

    print()
    beside_peers()
    decided = sum(is_decided(*pair) for pair in set(pairs)) / len(set(pairs))
    print(
        f"\nDecided without algebra: {decided:.0%} of the answers; {len(set(pairs))} distinct pairs in {len(pairs)}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=2000)
    main(parser.parse_args().completions)
