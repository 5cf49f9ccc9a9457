"""Video-R1-260k (GRPO) and Video-R1-COT-165k (SFT): questions about videos and images, of five kinds.

Raw rows: `problem_id`, `problem`, `data_type` (`video` or `image`), `problem_type` (`multiple choice`, `numerical`,
`OCR`, `free-form`, `regression`), `options` (`["A. …", …]`), `solution` (`<answer>A</answer>`), `path` (into the
unpacked folders: give theirs as `--images` where it is not the file's), `data_source`; for SFT also `process`
(`<think>…</think>`). With the schema's own prompt, a question ends with the released hint of its kind.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trl_onevision.data.prompts import PROMPTS, Prompt
from trl_onevision.data.questions import bare_choices
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, RowError, Task, read, shown
from trl_onevision.data.solutions import tagged_completion
from trl_onevision.data.videos import Video

NAME = "video-r1"
SOURCE = "Video-R1/Video-R1-data"
LICENSE = "apache-2.0"
COLUMNS = frozenset({"problem_id", "problem", "data_type", "problem_type", "options", "solution", "path"})
PROMPT: dict[Purpose, str] = {"sft": "video-r1", "grpo": "video-r1"}

_NUMBER = " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."
HINTS = {
    "multiple choice": " Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> "
    "</answer> tags.",
    "numerical": _NUMBER,
    "OCR": " Please transcribe text from the image/video clearly and provide your text answer within the <answer> "
    "</answer> tags.",
    "free-form": " Please provide your text answer within the <answer> </answer> tags.",
    "regression": _NUMBER,
}
TASKS: dict[str, Task] = {
    "multiple choice": "choice",
    "numerical": "number",
    "OCR": "text",
    "free-form": "text",
    "regression": "number",
}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"problem_id": 2, "problem": "What does it hit?", "data_type": "video", "path": "./CLEVRER/1.mp4",
    ...     "problem_type": "multiple choice", "options": ["A. a cube", "B. a cone"], "solution": "<answer>B</answer>"}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["choices"], row["images"]
    ('B', ['a cube', 'a cone'], [Video(value='./CLEVRER/1.mp4')])
    """
    question = read(example, "problem", str, "the question as text")
    kind = _one_of(example, "problem_type", HINTS)
    path = read(example, "path", str, "the path of a video or an image")
    visual = Video(path) if _one_of(example, "data_type", ("video", "image")) == "video" else path
    options = read(example, "options", list, "a list of options") if kind == "multiple choice" else []
    if options:
        question = "\n".join([f"{question.rstrip()}\nOptions:", *map(str, options)])
    if prompt is PROMPTS["video-r1"]:
        prompt = replace(prompt, template=prompt.template + HINTS[kind])
    name = str(example["problem_id"]) if "problem_id" in example else row_id(example)
    asked = Asked(name, prompt, NAME, question, [visual])
    gold = read(example, "solution", str, "the gold answer, as in '<answer>A</answer>'")
    if purpose == "sft":
        process = read(example, "process", str, "the reasoning, as in '<think>…</think>'")
        return asked.sft(tagged_completion(f"{process}\n{gold}"))
    return asked.gold(gold, TASKS[kind], bare_choices([str(option) for option in options]) or None)


def _one_of(example: Mapping[str, Any], column: str, known: Any) -> str:
    value: str = read(example, column, str, " or ".join(known))
    if value not in known:
        raise RowError(column, "unknown kind", found=shown(value), expected=", ".join(known))
    return value
