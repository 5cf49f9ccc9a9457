"""Puzzles in text from reasoning-gym, made on this machine: `pip install "trl-onevision[reasoning-gym]"`.

    python -c "import json, reasoning_gym as gym
    for row in gym.create_dataset('leg_counting', size=1000, seed=0): print(json.dumps(row))" > legs.jsonl
    trl-onevision prepare reasoning-gym --for grpo --source legs.jsonl --output data/legs

Raw rows: `question`, `answer`, `metadata` with the generator as `source_dataset`. Of its hundred generators those are
taken whose question has one right answer, which the rewards of this package read. Its own scorers pay no row: several
hand the completion to `eval` or to SymPy's parser, which runs it as code, and the default pays a share to any text
that holds the answer somewhere.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, RowError, read, shown

NAME = "reasoning-gym"
SOURCE = None
LICENSE = "Apache-2.0"
COLUMNS = frozenset({"question", "answer", "metadata"})
PROMPT: dict[Purpose, str] = {"grpo": "think-answer"}
ONE_ANSWER = (
    "acre",
    "aiw",
    "basic_arithmetic",
    "binary_alternation",
    "chain_sum",
    "count_bits",
    "count_primes",
    "course_schedule",
    "gcd",
    "gsm_symbolic",
    "isomorphic_strings",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "maze",
    "number_sequence",
    "products",
    "ransom_note",
    "rotten_oranges",
    "simple_equations",
    "simple_geometry",
    "string_manipulation",
    "syllogism",
)


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> metadata = {"source_dataset": "leg_counting"}
    >>> example = {"question": "How many legs have 2 cats?", "answer": "8", "metadata": metadata}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["images"]
    ('8', [])
    """
    made_by = read(example, "metadata", Mapping, "what the generator says of the row").get("source_dataset")
    if made_by not in ONE_ANSWER:
        expected = f"a generator whose questions have one right answer in a line: {', '.join(ONE_ANSWER)}"
        raise RowError("metadata", "no single answer", found=shown(made_by), expected=expected)
    question = read(example, "question", str, "the question as text")
    answer = read(example, "answer", str, "the answer as text")
    return Asked(row_id(example), prompt, NAME, question, images=[]).gold(answer)
