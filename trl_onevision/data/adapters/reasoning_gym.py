"""Puzzles in text from reasoning-gym, made on this machine: `pip install "trl-onevision[reasoning-gym]"`.

    python -c "import json, reasoning_gym as gym
    for row in gym.create_dataset('leg_counting', size=1000, seed=0): print(json.dumps(row))" > legs.jsonl
    trl-onevision prepare reasoning-gym --for grpo --source legs.jsonl --output data/legs

Raw rows: `question`, `answer`, `metadata` with the generator as `source_dataset`. Of its hundred generators those are
taken whose question has one right answer, which the rewards of this package read. Its own scorers pay no row: several
hand the completion to `eval` or to SymPy's parser, which runs it as code, and the default pays a share to any text
that holds the answer somewhere.
"""

from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import require

NAME = "reasoning-gym"
SOURCE = None
LICENSE = "Apache-2.0"
COLUMNS = frozenset({"question", "answer", "metadata"})
PROMPT = {"grpo": "think-answer"}
ONE_ANSWER = (
    "acre", "aiw", "basic_arithmetic", "binary_alternation", "chain_sum", "count_bits", "count_primes",
    "course_schedule", "gcd", "gsm_symbolic", "isomorphic_strings", "largest_island", "lcm", "leg_counting",
    "letter_counting", "maze", "number_sequence", "products", "ransom_note", "rotten_oranges", "simple_equations",
    "simple_geometry", "string_manipulation", "syllogism",
)  # fmt: skip


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> metadata = {"source_dataset": "leg_counting"}
    >>> example = {"question": "How many legs have 2 cats?", "answer": "8", "metadata": metadata}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["images"]
    ('8', [])
    """
    made_by = raw.read("metadata", dict, "what the generator says of the row").get("source_dataset")
    expected = f"a generator whose questions have one right answer in a line: {', '.join(ONE_ANSWER)}"
    require(made_by in ONE_ANSWER, "metadata", "no single answer", made_by, expected)
    question = raw.read("question", str, "the question as text")
    answer = raw.read("answer", str, "the answer as text")
    return raw.asked(question, images=[]).gold(answer)
