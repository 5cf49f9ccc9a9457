"""Datasets: what the raw rows of each look like, and what makes rows of the contract of them.

A new dataset is a new function here, and its entry in the table at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.questions import bare_choices
from trl_onevision.data.rows import Raw, Row, conversation_turns, labelled_boxes
from trl_onevision.data.schema import Purpose, Task, require
from trl_onevision.data.solutions import closing_answer, tagged_completion
from trl_onevision.data.videos import Video


@dataclass(frozen=True)
class Adapter:
    """A dataset.

    `to_row` is pure: it leaves images as they are in the raw row, and boxes in their own frame. `prompts` has the one
    that is used when none is chosen, for each purpose that the dataset serves. By all of its `columns` a raw schema is
    recognised; without any it is only named. `source` is its home on the hub, with `@` and a commit to pin one, and
    `None` where only files are published; `license` is what its card states.
    """

    name: str
    to_row: Callable[[Raw], Row]
    prompts: Mapping[Purpose, str]
    columns: frozenset[str] = frozenset()
    source: str | None = None
    license: str | None = None


def clevr(raw: Raw) -> Row:
    """CLEVR counting in the form of R1-V: the data of R1-Onevision's own RL stage, by its published stand-in.

    >>> row = clevr(Raw({"image": b"", "problem": "How many?", "solution": "<answer> 3 </answer>"}))
    >>> row["solution"], row["task"]
    ('3', 'number')

    Raw rows: `image`, `problem`, `solution`. Any set in this form can be read so.
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("solution", (str, int, float), "the gold answer, as in '<answer> 3 </answer>'")
    return raw.asked(question, [raw.get("image")]).gold(gold)


def geometry3k(raw: Raw) -> Row:
    """Geometry3K: plane geometry with a diagram and an exact answer.

    >>> row = geometry3k(Raw({"images": [b""], "problem": "<image>Find $x$.", "answer": "2 \\\\sqrt { 3 }"}))
    >>> row["solution"], row["task"]
    ('2 \\\\sqrt { 3 }', 'math')

    Raw rows: `images` (a list of images), `problem` (with `<image>`), `answer`.
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("answer", (str, int, float), "the gold answer as text")
    return raw.asked(question, raw.read("images", list, "a list of images")).gold(gold)


def mulberry(raw: Raw) -> Row:
    """Mulberry-SFT: 260k solutions in R1-VL's `###` sections, its warm-up data. Completions are kept in them.

    >>> example = {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>How many?"},
    ...     {"role": "assistant", "content": "### Step 1:\\nTwo rows.\\n\\n### The final answer is: 2"}]}
    >>> mulberry(Raw(example))["solution"]
    '2'

    Raw rows: `messages` (`[{"role": "user", …}, {"role": "assistant", …}]`, contents are text), `images` (paths into
    the unpacked archive: give its folder as `--images`). The questions carry their prompt already.
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


def r1_onevision(raw: Raw) -> Row:
    """R1-Onevision: 155k worked solutions, for SFT and, by their closing answers, for GRPO.

    >>> example = {"id": "7", "image": "iVBORw0KGgo=", "conversations": [
    ...     {"from": "human", "value": "How many cubes?"}, {"from": "gpt", "value": "Two and one.\\n\\nAnswer: 3"}]}
    >>> row = r1_onevision(Raw(example))
    >>> row["solution"], row["task"], row["prompt"][0]["content"][0]
    ('3', 'number', {'type': 'image'})

    Raw rows: `id`, `image` (base64), `conversations` (`[{"from": "human", "value": …}, {"from": "gpt", "value": …}]`).
    `<image>` is missing from some questions and `<think>` from some solutions.
    """
    question, solution = conversation_turns(raw)
    image = raw.read("image", (str, bytes, dict), "an image in base64")
    return raw.asked(question, [image]).solved(solution, raw.purpose)


def r1_vl(raw: Raw) -> Row:
    """R1-VL-10K: questions with the key steps of a solution, for StepGRPO.

    >>> example = {"image_path": "a.png", "problem": "How many?", "solution": "2",
    ...     "key_steps": {"Steps": ["two rows", ["6/3 = 2", "6 divided by 3 equals 2"]]}}
    >>> r1_vl(Raw(example))["key_steps"]
    [['two rows'], ['6/3 = 2', '6 divided by 3 equals 2']]

    Raw rows: `image_path`, `problem`, `solution`, `key_steps` (`{"Steps": [wording or list of equivalent wordings]}`).
    The schema is the one that the released training code reads; it was not checked against the dataset itself.
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("solution", (str, int, float), "the gold answer as text")
    steps = raw.read("key_steps", dict, "{'Steps': [wordings]}").get("Steps")
    wordings = [[step] if isinstance(step, str) else step for step in steps] if isinstance(steps, list) else None
    fine = wordings and all(isinstance(step, list) and step for step in wordings)
    require(fine, "key_steps", "no key steps", steps, "{'Steps': [wording or list of wordings, …]}")
    return raw.asked(question, [raw.get("image_path")]).gold(gold) | {"key_steps": wordings}


ONE_ANSWER = (
    "acre", "aiw", "basic_arithmetic", "binary_alternation", "chain_sum", "count_bits", "count_primes",
    "course_schedule", "gcd", "gsm_symbolic", "isomorphic_strings", "largest_island", "lcm", "leg_counting",
    "letter_counting", "maze", "number_sequence", "products", "ransom_note", "rotten_oranges", "simple_equations",
    "simple_geometry", "string_manipulation", "syllogism",
)  # fmt: skip


def reasoning_gym(raw: Raw) -> Row:
    """Puzzles in text from reasoning-gym, made on this machine: `pip install "trl-onevision[reasoning-gym]"`.

        python -c "import json, reasoning_gym as gym
        for row in gym.create_dataset('leg_counting', size=1000, seed=0): print(json.dumps(row))" > legs.jsonl
        trl-onevision prepare reasoning-gym --for grpo --source legs.jsonl --output data/legs

    >>> metadata = {"source_dataset": "leg_counting"}
    >>> row = reasoning_gym(Raw({"question": "How many legs have 2 cats?", "answer": "8", "metadata": metadata}))
    >>> row["solution"], row["images"]
    ('8', [])

    Raw rows: `question`, `answer`, `metadata` with the generator as `source_dataset`. Of its hundred generators those
    are taken whose question has one right answer, which the rewards of this package read. Its own scorers pay no row:
    several hand the completion to `eval` or to SymPy's parser, which runs it as code, and the default pays a share to
    any text that holds the answer somewhere.
    """
    made_by = raw.read("metadata", dict, "what the generator says of the row").get("source_dataset")
    expected = f"a generator whose questions have one right answer in a line: {', '.join(ONE_ANSWER)}"
    require(made_by in ONE_ANSWER, "metadata", "no single answer", made_by, expected)
    question = raw.read("question", str, "the question as text")
    return raw.asked(question, images=[]).gold(raw.read("answer", str, "the answer as text"))


_DESCRIBED = re.compile(r"this sentence describes:\s*(?:<ref>)?(.+?)(?:</ref>)?[.\s]*$", re.DOTALL)


def refcoco(raw: Raw) -> Row:
    """Referring expressions as JSONL (RefCOCO and its kin, in VLM-R1's files): find what a sentence describes.

    >>> example = {"image": "coco/1.jpg", "solution": [8, 8, 60, 40],
    ...     "problem": "Please provide the bounding box coordinate of the region this sentence describes: the cat"}
    >>> refcoco(Raw(example))["solution"]
    '[{"bbox_2d": [8, 8, 60, 40], "label": "the cat"}]'

    Raw rows: `image` (a path), then either `conversations` whose answer is a box, or `problem` and `solution`. A box
    is `[x1, y1, x2, y2]`, a list of boxes, or `[{"bbox_2d": …, "label": …}]`; in pixels of the raw image unless
    `--box-frame` says otherwise. The columns are those of other datasets too: this one has to be named.
    """
    if "conversations" in raw.columns:
        question, boxes = conversation_turns(raw)
    else:
        question = raw.read("problem", str, "the question as text")
        boxes = raw.read("solution", (str, list), "a box [x1, y1, x2, y2] or a list of boxes")
    described = _DESCRIBED.search(question)
    label = " ".join(described.group(1).split()) if described else "object"
    return raw.asked(question, [raw.get("image")]).grpo(json.dumps(labelled_boxes(boxes, label)), "boxes")


def temporal_grounding(raw: Raw) -> Row:
    """Temporal grounding as JSON lines (Charades-STA, QVHighlights and TACoS as Moment-DETR publishes them): when?

    >>> example = {"qid": 3, "query": "person turn a light on.", "vid": "3MSZA", "duration": 30.96,
    ...     "relevant_windows": [[24.3, 30.4]]}
    >>> row = temporal_grounding(Raw(example))
    >>> row["solution"], row["task"], row["images"]
    ('[[24.3, 30.4]]', 'span', [Video(value='3MSZA')])

    Raw rows: `qid`, `query`, `vid` (the name of a video, with or without suffix: give its folder as `--images`),
    `relevant_windows` (`[[start, end], …]`) in seconds. Read as well: `sentence` for the query, `video` for the name,
    and `timestamps` or `timestamp`, one pair or several, for the windows. The rows are of the task `span`.
    """

    def given(*columns: str) -> str:  # the first that the row has, else the one that the schema names
        return next((column for column in columns if raw.get(column) is not None), columns[0])

    query = raw.read(given("query", "sentence"), str, "what happens, as a sentence")
    video = raw.read(given("vid", "video"), (str, bytes, dict), "the name of a video")
    column, expected = given("relevant_windows", "timestamps", "timestamp"), "[[start, end], …] in seconds"
    windows = raw.read(column, list, expected)
    require(windows, column, "no gold answer", windows, expected)
    asked = raw.asked(query.strip().removesuffix("."), [Video(video)], id=raw.get("qid"))
    return asked.grpo(json.dumps(windows, default=str), "span")


def text_math(raw: Raw) -> Row:
    """Mathematics without images: `problem` and `solution`, as in MATH, GSM8K-style and OpenR1-style sets.

    >>> row = text_math(Raw({"problem": "What is half of one?", "solution": "It is $\\\\boxed{\\\\frac12}$."}))
    >>> row["solution"], row["task"], row["images"]
    ('\\\\frac12', 'math', [])

    Raw rows: `problem`, `solution` (worked, closing with `\\\\boxed{…}` or `#### …`, or just the answer), `answer`
    (optional: the gold). For mixing text into multimodal training: rows have `images: []`.
    """
    question = raw.read("problem", str, "the problem as text")
    solution = raw.read("solution", str, "the solution as text")
    asked = raw.asked(question, images=[])
    if raw.purpose == "grpo" and (answer := raw.get("answer")) is not None:
        return asked.gold(answer)
    return asked.solved(solution, raw.purpose)


KINDS: dict[str, tuple[Task, str]] = {  # of Video-R1's questions: the task of their rows, and the released hint
    "multiple choice": ("choice", "provide only the single option letter (e.g., A, B, C, D, etc.)"),
    "numerical": ("number", "provide the numerical value (e.g., 42 or 3.14)"),
    "OCR": ("text", "transcribe text from the image/video clearly and provide your text answer"),
    "free-form": ("text", "provide your text answer"),
    "regression": ("number", "provide the numerical value (e.g., 42 or 3.14)"),
}


def video_r1(raw: Raw) -> Row:
    """Video-R1-260k (GRPO) and Video-R1-COT-165k (SFT): questions about videos and images, of five kinds.

    >>> example = {"problem_id": 2, "problem": "What does it hit?", "data_type": "video", "path": "./CLEVRER/1.mp4",
    ...     "problem_type": "multiple choice", "options": ["A. a cube", "B. a cone"], "solution": "<answer>B</answer>"}
    >>> row = video_r1(Raw(example))
    >>> row["solution"], row["choices"], row["images"]
    ('B', ['a cube', 'a cone'], [Video(value='./CLEVRER/1.mp4')])

    Raw rows: `problem_id`, `problem`, `data_type` (`video` or `image`), `problem_type` (one of `KINDS`), `options`
    (`["A. …", …]`), `solution` (`<answer>A</answer>`), `path` (into the unpacked folders: give theirs as `--images`
    where it is not the file's), `data_source`; for SFT also `process` (`<think>…</think>`). With the schema's own
    prompt, a question ends with the released hint of its kind.
    """

    def one_of(column: str, known: Iterable[str]) -> str:
        value: str = raw.read(column, str, " or ".join(known))
        require(value in known, column, "unknown kind", value, ", ".join(known))
        return value

    question = raw.read("problem", str, "the question as text")
    task, hint = KINDS[one_of("problem_type", KINDS)]
    path = raw.read("path", str, "the path of a video or an image")
    visual = Video(path) if one_of("data_type", ("video", "image")) == "video" else path
    options = raw.read("options", list, "a list of options") if task == "choice" else []
    if options:
        question = "\n".join([f"{question.rstrip()}\nOptions:", *map(str, options)])
    asked = raw.asked(question, [visual], id=raw.get("problem_id"))
    if raw.prompt is PROMPTS["video-r1"]:
        hinted = f"{raw.prompt.template} Please {hint} within the <answer> </answer> tags."
        asked = replace(asked, prompt=replace(raw.prompt, template=hinted))
    gold = raw.read("solution", str, "the gold answer, as in '<answer>A</answer>'")
    if raw.purpose == "sft":
        process = raw.read("process", str, "the reasoning, as in '<think>…</think>'")
        return asked.sft(tagged_completion(f"{process}\n{gold}"))
    return asked.gold(gold, task, bare_choices([str(option) for option in options]) or None)


def vlm_r1(raw: Raw) -> Row:
    """VLM-R1's JSONL, which R1-Onevision's RL code reads too: short gold answers in a conversation.

    >>> example = {"image": "a.png", "accu_reward_method": "mcq", "conversations": [
    ...     {"from": "human", "value": "<image>Which?\\nA. red\\nB. blue"}, {"from": "gpt", "value": "B"}]}
    >>> row = vlm_r1(Raw(example))
    >>> row["solution"], row["task"], row["choices"]
    ('B', 'choice', ['red', 'blue'])

    Raw rows: `id`, `image` (a path, or a list of paths), `conversations`, `accu_reward_method` (`mcq`, `default`, …;
    optional). A file without the last column looks like R1-Onevision's and has to be named. A gold that holds
    `bbox_2d` (its method is `map`) is boxes, in pixels of the raw image unless `--box-frame` says otherwise.
    """
    question, gold = conversation_turns(raw)
    image = raw.read("image", (str, list, bytes, dict), "a path or a list of paths")
    asked = raw.asked(question, image if isinstance(image, list) else [image])
    if '"bbox_2d"' in gold:
        return asked.grpo(json.dumps(labelled_boxes(gold, "object")), "boxes")
    return asked.gold(gold, "choice" if raw.get("accu_reward_method") == "mcq" else None)


# Each with the prompts, the columns, the source and the licence of its `Adapter`
_KNOWN: tuple[tuple[Callable[[Raw], Row], dict[Purpose, str], str, str | None, str | None], ...] = (
    (clevr, {"grpo": "r1-onevision"}, "image problem solution", "leonardPKU/clevr_cogen_a_train", None),
    (geometry3k, {"grpo": "think-answer"}, "images problem answer", "hiyouga/geometry3k", "mit"),
    (mulberry, {"sft": "plain", "grpo": "plain"}, "", "HuanjinYao/Mulberry-SFT", None),  # its columns are TRL's own
    (r1_onevision, {"sft": "plain", "grpo": "r1-onevision"}, "id image conversations",
     "Fancy-MLLM/R1-Onevision", "apache-2.0"),
    (r1_vl, {"grpo": "r1-vl"}, "image_path problem solution key_steps", "jingyiZ00/R1-VL-10K", None),
    (reasoning_gym, {"grpo": "think-answer"}, "question answer metadata", None, "Apache-2.0"),
    (refcoco, {"grpo": "grounding"}, "", None, None),
    (temporal_grounding, {"grpo": "time-r1"}, "qid query vid relevant_windows", None, None),
    (text_math, {"sft": "plain", "grpo": "think-answer"}, "problem solution", None, None),
    (video_r1, {"sft": "video-r1", "grpo": "video-r1"},
     "problem_id problem data_type problem_type options solution path", "Video-R1/Video-R1-data", "apache-2.0"),
    (vlm_r1, {"grpo": "think-answer"}, "id image conversations accu_reward_method", None, None),
)  # fmt: skip
ADAPTERS = {
    (name := to_row.__name__.replace("_", "-")): Adapter(name, to_row, prompts, frozenset(columns.split()), *card)
    for to_row, prompts, columns, *card in _KNOWN
}


def find(name: str) -> Adapter:
    """The adapter of a dataset.

    >>> find("geometry3k").source
    'hiyouga/geometry3k'
    >>> find("geometry")
    Traceback (most recent call last):
    ValueError: dataset 'geometry': unknown; expected one of clevr, ...
    """
    if name not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"dataset {name!r}: unknown; expected one of {known}, or --columns for any other")
    return ADAPTERS[name]


def adapter_for(columns: Iterable[str]) -> Adapter | None:
    """The adapter whose raw schema these columns are, or `None`.

    >>> adapter_for(["id", "image", "conversations"]).name
    'r1-onevision'
    >>> adapter_for(["prompt", "images", "solution"]) is None
    True

    The adapter that explains most columns wins. Columns that TRL reads itself (`prompt`, `messages`) are never raw,
    and an adapter that does not know a column of videos or sounds would leave out what its rows ask about.
    """
    columns = set(columns)
    if columns & {"prompt", "messages"}:
        return None
    told = columns & {"video", "videos", "audio", "audios"}
    matching = [adapter for adapter in ADAPTERS.values() if adapter.columns and told <= adapter.columns <= columns]
    return max(matching, key=lambda adapter: len(adapter.columns), default=None)
