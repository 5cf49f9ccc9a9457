"""The row contract: what a row holds after preparation, and what checks that it does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from trl_onevision.answers.choice import LETTERS
from trl_onevision.answers.words import listed
from trl_onevision.image_size import image_size

if TYPE_CHECKING:
    from datasets import Features

Purpose = Literal["sft", "grpo"]
AnswerTask = Literal["math", "choice", "number", "text", "yes_no", "count", "list", "set", "order", "date", "time"]
PlaceTask = Literal["boxes", "points", "masks", "action"]  # golds that are places in the image
Task = Literal[AnswerTask, PlaceTask, "span", "render"]
TASKS: tuple[str, ...] = get_args(Task)
PLACE_TASKS: tuple[str, ...] = get_args(PlaceTask)
JSON_TASKS = (*PLACE_TASKS, "span", "render")
ROLES = ("system", "user", "assistant")


# Each column of the parquet files: its type, in which `None` stands for "has none", and what it means
CONTRACT: dict[str, tuple[str, str]] = {
    "prompt": ("list[message]", "messages; an image block stands where each image belongs"),
    "completion": ("list[message]", "the assistant message to learn (SFT)"),
    "images": ("list[image]", "list of images, 0 to n; a text-only row has `[]`"),
    "originals": (
        "list[image] | None",
        "the images as they came, where those of `images` were reduced and `--originals` asked for it (GRPO)",
    ),
    "solution": (
        "str",
        "the gold answer as text; JSON for " + ", ".join(f"`{task}`" for task in JSON_TASKS) + " (GRPO)",
    ),
    "task": ("str", ", ".join(f"`{task}`" for task in TASKS) + "; routes the row to its reward (GRPO)"),
    "choices": ("list[str] | None", "the option texts of a `choice` row, or null (GRPO)"),
    "key_steps": (
        "list[list[str]] | None",
        "the key steps of a reference solution, each with its equivalent wordings, or null (GRPO)",
    ),
    "difficulty": ("float | None", "how hard the row is, as `budget_reward` reads it, or null (GRPO)"),
    "uncertainty": ("float | None", "how unsure that is, as `budget_reward` reads it, or null (GRPO)"),
    "duration": ("float | None", "seconds of the row's video, for spans in another frame, or null (GRPO)"),
    "visual_facts": (
        "list[str] | None",
        "what a right answer has seen, as `VisualFactsReward` reads it, or null (GRPO)",
    ),
    "id": ("str", "the row's name in the raw dataset; every error about a row gives it"),
    "source": ("str", "the dataset that the row came from"),
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "grpo": tuple(column for column in CONTRACT if column != "completion"),
    "sft": ("prompt", "completion", "images", "id", "source"),
}
OPTIONAL = tuple(column for column, (kind, _) in CONTRACT.items() if kind.endswith("None"))
NUMBERS = tuple(column for column, (kind, _) in CONTRACT.items() if kind.startswith("float"))


class RowError(ValueError):
    """A row that cannot be used: which row, which column, what was found, what is expected.

    >>> error = RowError("solution", "no gold answer", found="None", expected="a non-empty string")
    >>> error.row_id = "geo-17"
    >>> print(error)
    row 'geo-17', column 'solution': no gold answer; found None, expected a non-empty string

    `problem` is a short constant text, so that equal problems can be counted. Whoever knows the row sets `row_id`:
    code that sees one value only (an image, an answer) raises without it. Whoever reads files sets `place`, as
    `FILE:NUMBER`.
    """

    def __init__(self, column: str, problem: str, *, found: str, expected: str, row_id: str | None = None) -> None:
        super().__init__(column, problem, found, expected)
        self.column, self.problem, self.found, self.expected, self.row_id = column, problem, found, expected, row_id
        self.place: str | None = None

    @property
    def reason(self) -> str:
        """The error without the row's name."""
        return f"column {self.column!r}: {self.problem}; found {self.found}, expected {self.expected}"

    def __str__(self) -> str:
        named = self.reason if self.row_id is None else f"row {self.row_id!r}, {self.reason}"
        return named if self.place in (None, self.row_id) else f"{self.place}: {named}"  # an id may be the place


def shown(value: object, limit: int = 80) -> str:
    """A value as an error shows it: its type where that says enough, else a short repr.

    >>> shown("x" * 200, limit=10), shown(b"abc"), shown([1, 2])
    ("'xxxxxxxxx… (str, 200 long)", 'bytes, 3 long', '[1, 2]')
    """
    if isinstance(value, bytes | bytearray):
        return f"{type(value).__name__}, {len(value)} long"
    # A repr of a whole base64 image would be built only to be cut.
    text = repr(value[: limit + 1]) if isinstance(value, str) else repr(value)
    if len(text) <= limit:
        return text
    size = f", {len(value)} long" if isinstance(value, str | list | tuple | dict) else ""
    return f"{text[:limit]}… ({type(value).__name__}{size})"


def few(names: Sequence[str]) -> str:
    """Names as an error lists them: the first five, and how many more there are.

    >>> few(["a", "b"]), few(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read(example: Mapping[str, Any], column: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """`example[column]`, checked: adapters read raw rows through this, so that a wrong type is named and not fatal.

    >>> read({"problem": "How many?"}, "problem", str, "the question as text")
    'How many?'
    >>> read({"problem": 3}, "problem", str, "the question as text")
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: column 'problem': wrong type; found 3, expected the question as text
    """
    if column not in example:
        raise RowError(column, "missing column", found=f"columns {sorted(example)}", expected=expected)
    value = example[column]
    if not isinstance(value, kind):
        raise RowError(column, "wrong type", found=shown(value), expected=expected)
    return value


def features(purpose: Purpose) -> Features:
    """The columns of the parquet files, as `datasets` types.

    >>> features("sft")["images"]
    List(Image(mode=None, decode=True))
    """
    from datasets import Features, List, Value
    from datasets import Image as Picture

    text = Value("string")
    message = {"role": text, "content": List({"type": text, "text": text})}
    known = {"str": text, "float": Value("float64"), "message": message, "image": Picture()}

    def feature(kind: str) -> Any:
        items = kind.removeprefix("list[").removesuffix("]")
        return known[kind] if items == kind else List(feature(items))

    return Features({column: feature(CONTRACT[column][0].removesuffix(" | None")) for column in COLUMNS[purpose]})


@contextmanager
def naming(row_id: object) -> Iterator[None]:
    """Gives the errors of a block the row's name, unless they have one."""
    try:
        yield
    except RowError as error:
        if error.row_id is None:
            error.row_id = row_id if isinstance(row_id, str) else shown(row_id)
        raise


def validate_row(row: Mapping[str, Any], purpose: Purpose = "grpo") -> None:
    """Raise `RowError` unless the row keeps the contract.

    >>> row = {
    ...     "prompt": [{"role": "user", "content": "What is 6 x 7?"}], "images": [], "solution": "42",
    ...     "task": "number", "choices": None, "key_steps": None, "id": "1", "source": "example",
    ... }
    >>> validate_row(row)
    >>> validate_row({**row, "solution": " "})
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: row '1', column 'solution': no gold answer; found ' ', expected a non-empty
        string

    Message contents are plain text (images then come first) or a list of `{"type": "text" | "image", "text": ...}`
    blocks with one image block per image. Boxes are checked against the size of the stored image.
    """
    with naming(row.get("id")):
        _check_names(row, purpose)
        _check_prompt(row["prompt"], n_images=len(row["images"]))
        if purpose == "sft":
            _check_completion(row["completion"])
        else:
            _check_gold(row)
        for column in COLUMNS[purpose]:
            _check_texts(column, row.get(column))


def _check_texts(column: str, value: Any) -> None:
    """Raise `RowError` where a text of the column, at any depth, cannot be stored."""
    texts = json.dumps(value, ensure_ascii=False, default=lambda _: None)
    try:
        texts.encode()
    except UnicodeEncodeError as error:
        around = shown(texts[max(0, error.start - 20) : error.end + 20].strip('"'))
        raise RowError(column, "not Unicode text", found=around, expected="no half of a surrogate pair") from error


def require(fine: object, column: str, problem: str, found: object, expected: str) -> None:
    """Raise `RowError` unless all is fine."""
    if not fine:
        raise RowError(column, problem, found=shown(found), expected=expected)


def _check_names(row: Mapping[str, Any], purpose: Purpose) -> None:
    for column in COLUMNS[purpose]:
        if column not in row and column not in OPTIONAL:
            expected = ", ".join(COLUMNS[purpose])
            raise RowError(column, "missing column", found=f"columns {sorted(row)}", expected=expected)
    for column in ("id", "source"):
        require(isinstance(row[column], str) and row[column], column, "no name", row[column], "a non-empty string")
    images, originals = row["images"], row.get("originals")
    require(isinstance(images, list), "images", "wrong type", images, "a list of images, [] for a text-only row")
    fine = originals is None or (isinstance(originals, list) and len(originals) == len(images))
    require(fine, "originals", "not one an image", originals, "as many as images, or null")
    for column, image in [("images", image) for image in images] + [("originals", o) for o in originals or []]:
        stored = image.get("bytes") if isinstance(image, Mapping) else image
        require(image_size(stored), column, "not an image", image, "a PIL image, bytes, or {'bytes': …, 'path': …}")


def _check_prompt(messages: Any, n_images: int) -> None:
    _check_messages("prompt", messages)
    if messages[-1]["role"] != "user":
        raise RowError("prompt", "no question", found=f"a last message by {messages[-1]['role']!r}", expected="'user'")
    contents = [message["content"] for message in messages]
    if all(isinstance(content, str) for content in contents):
        return  # plain text: the images come first
    placeholders = sum(block["type"] == "image" for content in contents for block in blocks(content))
    if placeholders != n_images:
        found = f"{placeholders} image blocks and {n_images} images"
        raise RowError("prompt", "image blocks and images differ", found=found, expected="one block per image")


def _check_completion(messages: Any) -> None:
    _check_messages("completion", messages)
    roles = [message["role"] for message in messages]
    require(roles == ["assistant"], "completion", "wrong roles", roles, "one message by 'assistant'")
    content = messages[0]["content"]
    said = any(block["type"] == "text" and block["text"].strip() for block in blocks(content))
    require(said, "completion", "empty completion", content, "some text")


def _check_messages(column: str, messages: Any) -> None:
    expected = "a non-empty list of {'role': …, 'content': text or blocks}"
    require(isinstance(messages, list) and messages, column, "not messages", messages, expected)
    for message in messages:
        fine = isinstance(message, Mapping) and message.get("role") in ROLES
        require(fine, column, "not messages", message, f"{expected}, role one of {ROLES}")
        for block in blocks(message.get("content")):
            known = isinstance(block, Mapping) and block.get("type") in ("text", "image")
            fine = known and (block["type"] == "image" or isinstance(block.get("text"), str))
            require(fine, column, "unknown block", block, "a 'text' or an 'image' block")


def blocks(content: Any) -> list[Any]:
    """A message's content as a list of blocks.

    >>> blocks("Look.")
    [{'type': 'text', 'text': 'Look.'}]
    """
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _check_gold(row: Mapping[str, Any]) -> None:
    solution, task = row["solution"], row["task"]
    require(task in TASKS, "task", "unknown task", task, "one of " + ", ".join(TASKS))
    fine = isinstance(solution, str) and solution.strip() != ""
    require(fine, "solution", "no gold answer", solution, "a non-empty string")
    if row.get("choices") is not None:
        _check_choices(solution, task, row["choices"])
    for column in NUMBERS:
        value = row.get(column)
        require(value is None or is_number(value), column, "no number", value, "a finite number, or null")
    facts, steps = row.get("visual_facts"), row.get("key_steps")
    fine = facts is None or _is_list_of_str(facts)
    require(fine, "visual_facts", "no list of texts", facts, "a list of texts, or null")
    fine = steps is None or (isinstance(steps, list) and all(_is_list_of_str(step) and step for step in steps))
    require(fine, "key_steps", "not key steps", steps, "a list of lists of wordings, or null")
    if task in JSON_TASKS:
        gold = read_json(solution)
        if task == "boxes":
            check_boxes(gold, size=image_size(row["images"][0]) if len(row["images"]) == 1 else None)


def _check_choices(solution: str, task: str, choices: Any) -> None:
    fine = _is_list_of_str(choices) and len(choices) >= 2
    require(fine, "choices", "not options", choices, "two or more texts, or null")
    if task != "choice":
        expected = "task 'choice', or null"
        raise RowError("choices", "options without a choice", found=f"task {task!r}", expected=expected)
    letters = LETTERS[: len(choices)]
    golds = listed(solution) if solution.startswith('["') else None
    right = all(gold in [*letters, *choices[: len(LETTERS)]] for gold in golds or [solution])
    expected = f"a letter of {letters}, an option's text, or a JSON list of all that are right"
    require(right, "solution", "gold is no option", solution, expected)


def _is_list_of_str(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_json(solution: str) -> Any:
    """The gold of a row whose task is one of `JSON_TASKS`."""
    try:
        return json.loads(solution)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise RowError("solution", "not JSON", found=shown(solution), expected=f"JSON ({error})") from error


def check_boxes(boxes: Any, size: tuple[int, int] | None = None) -> None:
    """Raise `RowError` unless `boxes` is `[{"bbox_2d": [x1, y1, x2, y2], "label": "…"}, …]` inside the image.

    >>> check_boxes([{"bbox_2d": [4, 4, 2, 8], "label": "cat"}])
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: column 'solution': empty box; found [4, 4, 2, 8], expected x1 < x2 and y1 < y2

    Units: pixels of the stored image. `size` is its width and height; a box may stand out by one pixel, which is
    what rounding to the pixel grid can cost. `[]` says that there is nothing to find.
    """
    expected = '[{"bbox_2d": [x1, y1, x2, y2], "label": …}, …]'
    are_objects = isinstance(boxes, list) and all(isinstance(box, Mapping) for box in boxes)
    require(are_objects, "solution", "not boxes", boxes, expected)
    for corners in (box.get("bbox_2d") for box in boxes):
        are_four = isinstance(corners, list | tuple) and len(corners) == 4 and all(map(is_number, corners))
        require(are_four, "solution", "not a box", corners, expected)
        x1, y1, x2, y2 = corners
        require(x1 < x2 and y1 < y2, "solution", "empty box", corners, "x1 < x2 and y1 < y2")
        if size is not None and not (x1 >= -1 and y1 >= -1 and x2 <= size[0] + 1 and y2 <= size[1] + 1):
            found = f"{shown(corners)} in an image of {size[0]}x{size[1]}"
            expected = "a box in pixels of the image (is it in another frame, or x, y, width, height?)"
            raise RowError("solution", "box outside the image", found=found, expected=expected)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, which truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
