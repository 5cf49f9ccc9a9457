"""The prompts of the papers, written into the rows: what the model reads is in the data and in no hidden place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trl_onevision.data.questions import read_choices
from trl_onevision.data.schema import RowError

IMAGE = "<image>"
_LEADING_IMAGES = re.compile(rf"^(?:\s*{IMAGE})+\s*")


@dataclass(frozen=True)
class Prompt:
    """What stands around the question; `source` says where it was published."""

    template: str
    source: str


PROMPTS: dict[str, Prompt] = {
    "plain": Prompt("{question}", source="the question as the dataset has it"),
    "think-answer": Prompt(
        "{question} First output the thinking process in <think> </think> tags and then output the final answer in "
        "<answer> </answer> tags.",
        source="R1-Onevision, inference on R1-Onevision-Bench; VLM-R1, default",
    ),
    "r1-onevision": Prompt(
        "{question}  Output the thinking process in <think> </think> and final answer in <answer> </answer> tags.",
        source="R1-Onevision, GRPO stage",
    ),
    "observe-think-answer": Prompt(
        "{question} First write what you observe in the image in <observe> </observe> tags, then the thinking process "
        "in <think> </think> tags, and then the final answer in <answer> </answer> tags.",
        source="this package's words for the layout of Observe-R1",
    ),
    "info-think-answer": Prompt(
        "{question} First describe all of the image in <info> </info> tags, then output the thinking process in "
        "<think> </think> tags and then the final answer in <answer> </answer> tags.",
        source="this package's words for the layout of Visionary-R1",
    ),
    "grounding": Prompt(
        "{question} First output the thinking process in <think> </think> tags and then output the final answer in "
        "<answer> </answer> tags. Output the final answer in JSON format.",
        source="VLM-R1, referring expressions",
    ),
    "video-r1": Prompt(
        "{question}\nPlease think about this question as if you were a human pondering deeply. Engage in an internal "
        "dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, "
        "or other natural language thought expressions It's encouraged to include self-reflection or verification in "
        "the reasoning process. Provide your detailed reasoning between the <think> </think> tags, and then give your "
        "final answer between the <answer> </answer> tags.",
        source="Video-R1; the missing full stop is in the original",
    ),
    "time-r1": Prompt(
        'To accurately pinpoint the event "{question}" in the video, determine the precise time period of the event.\n'
        "\n"
        "Output your thought process within the <think> </think> tags, including analysis with either specific "
        "timestamps (xx.xx) or time ranges (xx.xx to xx.xx) in <timestep> </timestep> tags.\n"
        "\n"
        "Then, provide the start and end times (in seconds, precise to two decimal places) in the format "
        '"start time to end time" within the <answer> </answer> tags. For example: "12.54 to 17.83".',
        source="Time-R1 (TimeZero), temporal grounding",
    ),
    "r1-vl": Prompt(
        "Generate an image description based on the question.\n"
        "Then, provide a rationale to analyze the question.\n"
        "Next, generate a step-by-step reasoning process to solve the problem. Ensure the steps are logical and "
        "concise.\n"
        "Finally, provide a concise summary of the final answer in the following format: 'The final answer is: xxx.\n"
        "\n"
        "Format your response with the following sections, separated by ###:\n"
        "### Image Description:\n### Rationales:\n### Let's think step by step.\n### Step 1:\n### Step 2:\n...\n"
        "### The final answer is: \n\n{question}",
        source="R1-VL, evaluation; the open quote is in the original",
    ),
    "boxed": Prompt(
        "{question}\nPlease reason step by step, and put your final answer within \\boxed{}.", source="Qwen2.5-Math"
    ),
}


def find_prompt(name: str) -> Prompt:
    """A prompt by its name.

    >>> find_prompt("r1onevision")
    Traceback (most recent call last):
    ValueError: prompt 'r1onevision': unknown; expected one of boxed, grounding, ...
    """
    if name not in PROMPTS:
        raise ValueError(f"prompt {name!r}: unknown; expected one of {', '.join(sorted(PROMPTS))}")
    return PROMPTS[name]


def user_messages(question: str, prompt: Prompt, n_images: int = 0) -> list[dict[str, Any]]:
    """The messages that ask a question, with an image block where each image belongs.

    >>> user_messages("<image>How many cubes?", PROMPTS["plain"], n_images=1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'How many cubes?'}]}]
    >>> [block["type"] for block in user_messages("Is <image> like <image>?", PROMPTS["plain"], 2)[0]["content"]]
    ['text', 'image', 'text', 'image', 'text']

    `<image>` inside the question marks a place; images that no mark stands for come first, before the template.
    More marks than images are an error.
    """
    if not question.replace(IMAGE, "").strip():
        raise RowError("prompt", "no question", found=repr(question), expected="a question in words")
    if (marks := question.count(IMAGE)) > n_images:
        found = f"{marks} {IMAGE} and {n_images} images"
        raise RowError("prompt", "more image marks than images", found=found, expected="at most one mark per image")
    body = prompt.template.replace("{question}", _LEADING_IMAGES.sub("", question).strip())
    texts = body.split(IMAGE)
    content: list[dict[str, Any]] = [{"type": "image"}] * (n_images - (len(texts) - 1))
    for index, text in enumerate(texts):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": text}] if text.strip() else []
    return [{"role": "user", "content": content}]


def with_choices(question: str, choices: list[str] | None) -> str:
    """The question with its options, unless it lists them already: the model must see what it can choose.

    >>> print(with_choices("Which colour?", ["red", "blue"]))
    Which colour?
    Choices:
    A. red
    B. blue
    """
    if not choices or read_choices(question) == [choice.strip() for choice in choices]:
        return question
    lines = [f"{chr(ord('A') + index)}. {choice}" for index, choice in enumerate(choices)]
    return "\n".join([question, "Choices:", *lines])
