"""R1-Onevision: 155k worked solutions, for SFT and, by their closing answers, for GRPO.

Raw rows: `id`, `image` (base64), `conversations` (`[{"from": "human", "value": …}, {"from": "gpt", "value": …}]`).
`<image>` is missing from some questions and `<think>` from some solutions.
"""

from trl_onevision.data.rows import Raw, Row, conversation_turns

NAME = "r1-onevision"
SOURCE = "Fancy-MLLM/R1-Onevision"
LICENSE = "apache-2.0"
COLUMNS = frozenset({"id", "image", "conversations"})
PROMPT = {"sft": "plain", "grpo": "r1-onevision"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"id": "7", "image": "iVBORw0KGgo=", "conversations": [
    ...     {"from": "human", "value": "How many cubes?"}, {"from": "gpt", "value": "Two and one.\\n\\nAnswer: 3"}]}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"], row["prompt"][0]["content"][0]
    ('3', 'number', {'type': 'image'})
    """
    question, solution = conversation_turns(raw)
    image = raw.read("image", (str, bytes, dict), "an image in base64")
    return raw.asked(question, [image]).solved(solution, raw.purpose)
