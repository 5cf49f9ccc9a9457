"""Video-R1-260k (GRPO) and Video-R1-COT-165k (SFT): questions about videos and images, of five kinds.

Raw rows: `problem_id`, `problem`, `data_type` (`video` or `image`), `problem_type` (`multiple choice`, `numerical`,
`OCR`, `free-form`, `regression`), `options` (`["A. …", …]`), `solution` (`<answer>A</answer>`), `path` (into the
unpacked folders: give theirs as `--images` where it is not the file's), `data_source`; for SFT also `process`
(`<think>…</think>`). With the schema's own prompt, a question ends with the released hint of its kind.
"""

from collections.abc import Iterable
from dataclasses import replace

from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.questions import bare_choices
from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import Task, require
from trl_onevision.data.solutions import tagged_completion
from trl_onevision.data.videos import Video

NAME = "video-r1"
SOURCE = "Video-R1/Video-R1-data"
LICENSE = "apache-2.0"
COLUMNS = frozenset({"problem_id", "problem", "data_type", "problem_type", "options", "solution", "path"})
PROMPT = {"sft": "video-r1", "grpo": "video-r1"}

KINDS: dict[str, tuple[Task, str]] = {  # of questions: the task of their rows, and the released hint
    "multiple choice": ("choice", "provide only the single option letter (e.g., A, B, C, D, etc.)"),
    "numerical": ("number", "provide the numerical value (e.g., 42 or 3.14)"),
    "OCR": ("text", "transcribe text from the image/video clearly and provide your text answer"),
    "free-form": ("text", "provide your text answer"),
    "regression": ("number", "provide the numerical value (e.g., 42 or 3.14)"),
}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"problem_id": 2, "problem": "What does it hit?", "data_type": "video", "path": "./CLEVRER/1.mp4",
    ...     "problem_type": "multiple choice", "options": ["A. a cube", "B. a cone"], "solution": "<answer>B</answer>"}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["choices"], row["images"]
    ('B', ['a cube', 'a cone'], [Video(value='./CLEVRER/1.mp4')])
    """
    question = raw.read("problem", str, "the question as text")
    kind = _one_of(raw, "problem_type", KINDS)
    path = raw.read("path", str, "the path of a video or an image")
    visual = Video(path) if _one_of(raw, "data_type", ("video", "image")) == "video" else path
    options = raw.read("options", list, "a list of options") if kind == "multiple choice" else []
    if options:
        question = "\n".join([f"{question.rstrip()}\nOptions:", *map(str, options)])
    asked = raw.asked(question, [visual], id=raw.get("problem_id"))
    if raw.prompt is PROMPTS["video-r1"]:
        hint = f" Please {KINDS[kind][1]} within the <answer> </answer> tags."
        asked = replace(asked, prompt=replace(raw.prompt, template=raw.prompt.template + hint))
    gold = raw.read("solution", str, "the gold answer, as in '<answer>A</answer>'")
    if raw.purpose == "sft":
        process = raw.read("process", str, "the reasoning, as in '<think>…</think>'")
        return asked.sft(tagged_completion(f"{process}\n{gold}"))
    return asked.gold(gold, KINDS[kind][0], bare_choices([str(option) for option in options]) or None)


def _one_of(raw: Raw, column: str, known: Iterable[str]) -> str:
    value: str = raw.read(column, str, " or ".join(known))
    require(value in known, column, "unknown kind", value, ", ".join(known))
    return value
