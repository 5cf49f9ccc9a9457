"""Mulberry-SFT: 260k solutions in R1-VL's `###` sections, its warm-up data.

Raw rows: `messages` (`[{"role": "user", …}, {"role": "assistant", …}]`, contents are text), `images` (paths into the
unpacked archive: give its folder as `--images`). Completions are kept in their sections.
"""

from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import require
from trl_onevision.data.solutions import closing_answer

NAME = "mulberry"
SOURCE = "HuanjinYao/Mulberry-SFT"
LICENSE = None
COLUMNS: frozenset[str] = frozenset()  # `messages` and `images` are TRL's own columns: named, never recognised
PROMPT = {"sft": "plain", "grpo": "plain"}  # the questions carry the prompt already


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>How many?"},
    ...     {"role": "assistant", "content": "### Step 1:\\nTwo rows.\\n\\n### The final answer is: 2"}]}
    >>> to_row(Raw(example))["solution"]
    '2'
    """
    messages = raw.read("messages", list, "two messages")
    images = raw.read("images", list, "a list of paths")
    turns = [turn for turn in messages if isinstance(turn, dict) and isinstance(turn.get("content"), str)]
    are_two = [turn.get("role") for turn in turns] == ["user", "assistant"]
    require(are_two, "messages", "not one question and one solution", messages, "user, assistant")
    question, solution = (turn["content"] for turn in turns)
    asked = raw.asked(question, images)
    if raw.purpose == "sft":
        return asked.sft(solution)
    gold = closing_answer(solution)
    return asked.gold(gold.answer if gold else None)
