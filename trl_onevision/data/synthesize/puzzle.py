"""What a made task is: a question about images whose answer is known, before it becomes a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from trl_onevision.data.prompts import PROMPTS, Prompt, with_choices
from trl_onevision.data.rows import Asked
from trl_onevision.data.schema import Task as RowTask

# Where a task takes its pictures from: a folder of photographs, or scenes that are drawn.
Pictures = Callable[[np.random.Generator], Image.Image]

TRIES = 50


@dataclass(frozen=True)
class Puzzle:
    """A question about images, and its answer. `facts` says what was drawn, for whoever checks the answer."""

    question: str
    images: list[Image.Image]
    solution: str
    task: RowTask
    choices: list[str] | None = None
    facts: Any = None


@dataclass(frozen=True)
class Task:
    """A made task: equal random states and pictures make equal puzzles.

    `levels` has what each level is, from 1 on, each harder than the one before, and what answers at random earn.
    """

    make: Callable[[np.random.Generator, Pictures, int], Puzzle]
    levels: dict[str, float]


class NoPuzzle(ValueError):
    """No puzzle can be made from these pictures: what was asked of them, and what to do."""


def row(puzzle: Puzzle, name: str, source: str, prompt: Prompt = PROMPTS["think-answer"]) -> dict[str, Any]:
    """The puzzle as a row of the contract.

    >>> made = row(Puzzle("Which way?", [], "A", "choice", ["up", "down"]), "jigsaw-1", "synthesize/jigsaw")
    >>> made["task"], made["id"], made["choices"]
    ('choice', 'jigsaw-1', ['up', 'down'])
    """
    asked = Asked(name, prompt, source, with_choices(puzzle.question, puzzle.choices), puzzle.images)
    return asked.grpo(puzzle.solution, puzzle.task, puzzle.choices)


def all_differ(pieces: list[Image.Image]) -> bool:
    """Whether any two pieces of one size can be told apart, by 4 of 255 on average: what is more alike is not asked.

    >>> all_differ([Image.new("RGB", (8, 8), colour) for colour in ("white", "snow", "red")])
    False
    """
    arrays = [np.asarray(piece, np.int16) for piece in pieces]
    return all(np.abs(a - b).mean() >= 4 for a, b in combinations(arrays, 2))
