"""Completions per second of each reward, and how many answers are decided without algebra.

    python tests/bench/bench_rewards.py [--completions 2000]

The mix is what policies write early and late in training: right and wrong answers in tags, boxes and sentences, plain
numbers, LaTeX, letters, text, truncated and repeated output. What others do: TRL, swift and lmm-r1 parse and verify
every completion with math-verify, one at a time; R1-V and VLM-R1 do and then compare strings; EasyR1 calls mathruler;
Unsloth compares strings. "math-verify alone" is the first of these, on the main thread.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import math_verify

from trl_onevision import rewards
from trl_onevision.answers import compare, parse
from trl_onevision.answers.expression import Unknown
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


def verify_all(rows: list[tuple[str, str]]) -> None:
    for gold, said in rows:
        math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(f"${said}$"))


def score_all(rows: list[tuple[str, str]]) -> None:
    """All pairs by the reward, with nothing that an earlier call left behind."""
    parse.read.cache_clear()
    verify._remembered.clear()
    said = [f"<answer>{said}</answer>" for _, said in rows]
    rewards.accuracy_reward(said, solution=[gold for gold, _ in rows], task=["math"] * len(rows))


def is_decided(gold: str, said: str) -> bool:
    """Whether text and numbers decide a pair, without algebra in another process."""
    try:
        wanted, given = parse.read(gold), parse.read(said)
    except Unknown:
        return False
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

    symbolic = [(f"{index}x + 1", f"1 + {index}x") for index in range(1, 201)]
    constants = [
        (rf"\sqrt{{{index}}} + \frac{{\pi}}{{{index + 1}}}", rf"\frac{{\pi}}{{{index + 1}}} + {index}^{{1/2}}")
        for index in range(2, 202)
    ]
    unequal = [(gold, said.replace("1/2", "1/3")) for gold, said in constants]
    for named, distinct in (("symbols", symbolic), ("equal constants", constants), ("unequal constants", unequal)):
        rate(f"accuracy_reward, distinct pairs of {named}", partial(score_all, distinct), len(distinct))
        rate(
            f"math-verify alone, distinct pairs of {named}, one at a time",
            partial(verify_all, distinct),
            len(distinct),
        )

    decided = sum(is_decided(*pair) for pair in set(pairs)) / len(set(pairs))
    print(
        f"\nDecided without algebra: {decided:.0%} of the answers; {len(set(pairs))} distinct pairs in {len(pairs)}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=2000)
    main(parser.parse_args().completions)
