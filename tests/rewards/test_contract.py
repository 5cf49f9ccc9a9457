"""What holds for every reward in `trl_onevision.rewards.__all__`."""

import inspect
import json
import math
import os
import pickle
import random
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from trl_onevision import rewards

BOXES = '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}]'
POLYGON = '[{"polygon": [[0, 0], [10, 0], [10, 10], [0, 10]]}]'
DISC = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
SECTIONS = (
    "### Image Description: a disc\n### Rationales: its area\n### Step 1: r = 3\n### The final answer is: 9",
    "### Step 1: r = 3\n### The final answer is: 8",
)
IDS = {"completion_ids": [0] * 200}


class Sample(NamedTuple):
    """A row, a completion that deserves the most, one that deserves less, and what the most is."""

    columns: dict[str, Any]
    best: str
    worse: str
    high: float = 1.0


SAMPLES = {
    "accuracy_reward": Sample({"solution": "42", "task": "math"}, "<answer>42</answer>", "<answer>41</answer>"),
    "format_reward": Sample({}, "<think>a</think><answer>b</answer>", "<answer>b</answer>"),
    "hard_format_accuracy_reward": Sample(
        {"solution": "42"}, "<think>a</think><answer>42</answer>", "<answer>42</answer>"
    ),
    "step_accuracy_reward": Sample({"solution": "9", "key_steps": [["r = 3"]]}, *SECTIONS, high=1.1),
    "step_validity_reward": Sample({}, *SECTIONS),
    "concise_reward": Sample({"solution": "9", **IDS}, "Answer: 9", "Answer: 8", high=0.2),
    "dynamic_length_reward": Sample({"solution": "9", **IDS}, "Answer: 9", "Answer: 8"),
    "budget_reward": Sample({"completion_ids": [0] * 90, "difficulty": 1}, "short", ""),
    "iou_reward": Sample({"solution": BOXES, "task": "boxes"}, BOXES, "[5, 0, 15, 10]"),
    "detection_reward": Sample({"solution": BOXES, "task": "boxes"}, BOXES, "[50, 0, 60, 10]"),
    "point_reward": Sample({"solution": BOXES, "task": "points"}, "[5, 5]", "[50, 5]"),
    "span_reward": Sample({"solution": '{"start": 0, "end": 10}', "task": "span"}, "0:00 - 0:10", "5 to 15"),
    "mask_reward": Sample(
        {"solution": POLYGON, "task": "masks", "images": [Image.new("RGB", (20, 20))]},
        POLYGON,
        POLYGON.replace("[10, 10], [0, 10]", "[10, 5], [0, 5]"),
    ),
    "order_reward": Sample({"solution": "[2, 3, 1]", "task": "order"}, "[2, 3, 1]", "<answer>[2, 1, 3]</answer>"),
    "render_reward": Sample(
        {"solution": json.dumps({"language": "svg", "source": DISC}), "task": "render"},
        DISC,
        DISC.replace('"4"', '"2"'),
    ),
    "action_reward": Sample(
        {"solution": '{"action": "click", "bbox_2d": [0, 0, 10, 10]}', "task": "action"},
        '{"action": "click", "coordinate": [5, 5]}',
        '{"action": "wait"}',
    ),
}
LENGTH_ALONE = ("budget_reward", "dynamic_length_reward")  # what a completion says makes no difference to them alone
EXPORTED = [name for name in rewards.__all__ if not inspect.isclass(getattr(rewards, name))]
HOSTILE = [
    "",
    "\x00",
    "\ud800<answer>\udfff</answer>",
    "\u202e<answer>24</answer>",
    "<think>" * 50,
    "</think>" * 50,
    "<answer>" * 50 + "</answer>" * 50,
    r"\boxed{" * 100,
    "[" * 5000,
    "{" * 5000,
    "<answer>" + "[[1, 2, 3, 4]]" * 500 + "</answer>",
    "<answer>[NaN, Infinity, -Infinity, 1e999]</answer>",
    "<answer>" + "9" * 5000 + "</answer>",
    "<answer>__import__('os').system('true')</answer>",
    '<answer>{"bbox_2d": null, "label": {}}</answer>',
    '<answer>[{"bbox_2d": [1, 2, 3, 4], "label": ["a"]}]</answer>',
    None,
    7,
    {},
    [],
    [None],
    [{"role": "assistant", "content": None}],
    [{"role": "assistant", "content": [{"type": "text"}]}],
    [{"role": "tool", "content": "<answer>42</answer>"}],
]


def call(name, completions, columns=None, reward=None):
    """Call a reward as TRL does: every column by name, one entry a completion."""
    sample = SAMPLES[name]
    rows = {column: [value] * len(completions) for column, value in sample.columns.items()} | (columns or {})
    rows["id"] = [f"row-{index}" for index in range(len(completions))]
    return (reward or getattr(rewards, name))(completions=completions, prompts=["?"] * len(completions), **rows)


def batch(name):
    sample = SAMPLES[name]
    return [sample.best, sample.worse, *HOSTILE]


def test_every_reward_has_a_sample():
    assert set(EXPORTED) <= set(SAMPLES), "add a row to SAMPLES"
    assert set(dir(rewards)) >= set(rewards.__all__)


@pytest.mark.parametrize("name", EXPORTED)
class TestEveryReward:
    def test_returns_one_number_a_completion_within_its_range(self, name):
        scores = call(name, batch(name))
        assert len(scores) == len(batch(name))
        assert all(type(score) is float and -1e-9 <= score <= SAMPLES[name].high + 1e-9 for score in scores), scores
        assert call(name, []) == []

    def test_the_gold_scores_the_maximum_and_less_is_less(self, name):
        best, worse = call(name, [SAMPLES[name].best, SAMPLES[name].worse])
        assert math.isclose(best, SAMPLES[name].high)
        assert worse < best or name in LENGTH_ALONE

    def test_follows_its_rows_in_any_order(self, name):
        completions = batch(name)
        order = random.Random(0).sample(range(len(completions)), len(completions))
        scores = call(name, completions)
        assert call(name, [completions[index] for index in order]) == [scores[index] for index in order]

    def test_says_the_same_twice_in_a_thread_and_after_pickling(self, name):
        expected, found = call(name, batch(name)), []
        copy = pickle.loads(pickle.dumps(getattr(rewards, name)))
        thread = threading.Thread(target=lambda: found.extend(call(name, batch(name))))
        thread.start()
        thread.join()
        assert call(name, batch(name)) == found == call(name, batch(name), reward=copy) == expected
        assert copy.__name__ == name

    def test_reads_every_form_of_a_completion(self, name):
        text = SAMPLES[name].best
        thinking, tag, content = text.rpartition("</think>")
        forms = [
            text,
            [{"role": "assistant", "content": text}],
            [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
            [{"role": "assistant", "content": content, **({"reasoning_content": thinking[7:]} if tag else {})}],
        ]
        assert [score for form in forms for score in call(name, [form])] == [SAMPLES[name].high] * len(forms)

    def test_says_what_it_is(self, name):
        reward = getattr(rewards, name)
        assert reward.__name__ == name
        assert ">>>" in inspect.getdoc(type(reward))
        assert all(
            parameter.kind is not parameter.POSITIONAL_ONLY
            for parameter in inspect.signature(reward).parameters.values()
        )
        assert any(p.kind is p.VAR_KEYWORD for p in inspect.signature(reward).parameters.values())


@pytest.mark.parametrize("name", EXPORTED)
def test_a_column_of_the_table_has_a_value_a_completion_and_the_name_of_its_reward(name):
    columns = defaultdict(list)
    call(name, batch(name), {"log_extra": lambda column, values: columns[column].extend(values)})
    assert {column: len(values) for column, values in columns.items()} == (
        {"accuracy_reward/answer": len(batch(name))} if name == "accuracy_reward" else {}
    )


@pytest.mark.parametrize("name", [name for name in EXPORTED if "task" in SAMPLES[name].columns])
@pytest.mark.parametrize("column", [tuple, np.array, lambda values: Dataset.from_dict({"task": values})["task"]])
def test_the_task_is_read_from_any_kind_of_column(name, column):
    sample = SAMPLES[name]
    assert call(name, [sample.best] * 2, {"task": column(["essay"] * 2)}) == [None] * 2
    assert call(name, [sample.best] * 2, {"task": column([sample.columns["task"]] * 2)}) == [sample.high] * 2


READ_A_GOLD = [name for name in EXPORTED if "solution" in SAMPLES[name].columns]


@pytest.mark.parametrize("name", READ_A_GOLD)
@pytest.mark.parametrize("gold", [None, "", [], {}, 1.5, "\x00", "[" * 5000, "[[1, 2], [3]]", '{"bbox_2d": "no"}'])
def test_a_gold_of_any_kind_never_raises_and_none_depends_on_it_alone(name, gold):
    completions = batch(name)
    scores = call(name, completions, {"solution": [gold] * len(completions)})
    assert len({score is None for score in scores}) == 1


def test_importing_the_rewards_is_light():
    code = (
        "import sys, trl_onevision.rewards\n"
        "print(*sorted({'torch', 'trl', 'datasets', 'transformers', 'sympy', 'math_verify', 'numpy', 'scipy', 'PIL'}"
        " & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout.split() == []


def test_the_docs_hold_the_table_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()
    shown = subprocess.run(
        [sys.executable, "-m", "trl_onevision.rewards"], capture_output=True, text=True, check=True
    ).stdout
    assert shown in page, "python -m trl_onevision.rewards prints the table for docs/rewards.md"
    read = {line.split("`")[1]: line.rpartition("|")[0].rpartition("|")[2] for line in shown.splitlines()[2:]}
    for name in EXPORTED:
        if name != "hard_format_accuracy_reward":  # its parts read them
            listed = read[name]
            assert all(f"`{column}`" in listed for column in SAMPLES[name].columns.keys() - IDS.keys()), name
