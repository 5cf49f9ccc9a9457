"""The format reward: does a completion have the structure that its prompt asked for?"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from trl_onevision.answers.extract import answer_block, boxed, boxes, full_text, split
from trl_onevision.answers.json_text import unfenced
from trl_onevision.rewards.rows import NamedReward
from trl_onevision.rewards.steps import shows, structure

LAYOUTS: dict[str, tuple[str, ...]] = {
    "think_answer": ("<think></think><answer></answer>",),
    "info_think_answer": ("<info></info><think></think><answer></answer>",),  # Visionary-R1, arXiv 2505.14677
    "caption_think_answer": ("<caption></caption><think></think><answer></answer>",),
    "caption_box_answer": ("<caption></caption><bbox></bbox><answer></answer>",),  # SATORI-R1, arXiv 2505.19094
    "observe_think_answer": (  # Observe-R1, arXiv 2505.12432: the observation comes before the thinking or inside
        "<observe></observe><think></think><answer></answer>",
        "<think><observe></observe></think><answer></answer>",
    ),
    "context_think_answer": ("<context></context><think></think><answer></answer>",),  # HumanOmniV2, arXiv 2506.21277
}
_TAG_NAME = re.compile(r"[A-Za-z][\w-]{0,63}")
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]{0,63})>")


@dataclass(eq=False)
class FormatReward(NamedReward):
    r"""Pay 1 for a completion with exactly the structure of a style, 0 for any other.

    >>> reward = FormatReward()
    >>> reward(["<think>6 x 7</think><answer>42</answer>", "6 x 7</think><answer>42</answer>", "<answer>42</answer>"])
    [1.0, 0.0, 0.0]
    >>> FormatReward(opened=True)(["6 x 7</think><answer>42</answer>"])  # the chat template wrote the first tag
    [1.0]
    >>> FormatReward("boxed")([r"<think>6 x 7</think> So \boxed{42}."])
    [1.0]
    >>> FormatReward(("plan", "code"))(["<plan>add</plan><code>1 + 1</code>"])
    [1.0]
    >>> FormatReward(graded=True)(["<think>6 x 7</think> 42", "<think>6 x 7</think><answer>42</answer> so"])
    [0.25, 0.75]
    >>> FormatReward("json", fields={"bbox_2d": list, "label": str})(['<answer>[{"bbox_2d": [1, 2, 3, 4]}]</answer>'])
    [0.0]

    Args:
        style: a key of `LAYOUTS`, or the names of tags in their order. Each tag opens and closes once, none is empty,
            and nothing but white space stands around them. "boxed" is one thinking block, then text with one non-empty
            `\boxed{}`; "steps" is R1-VL's sections (`steps.structure`); "json" is an answer that is JSON and nothing
            else, in a code fence or bare, in `<answer>` or as the whole content.
        graded: pay the fraction of the structure that is right: of tags, each block that is there once, closed and
            not empty, then the order of all, then nothing around them.
        fields: for "json": the keys that the object, or each object of the list, must have, with their Python types.
        opened: the chat template opens the thinking: its `<think>` may be missing.
        name: how TRL logs the reward.

    Tags count in any case, and so does thinking that a response parser split off into a field of its own. Returns 0
    to 1 for every completion, never `None`.
    """

    style: str | Sequence[str] = "think_answer"
    _: KW_ONLY
    graded: bool = False
    fields: Mapping[str, type | tuple[type, ...]] | None = None
    opened: bool = False
    name: str = "format_reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        style = self.style
        if isinstance(style, str) and style not in _MEASURES and style not in LAYOUTS:
            raise ValueError(f"style={style!r}: expected one of {', '.join([*LAYOUTS, *_MEASURES])} or a list of tags")
        if not isinstance(style, str) and not (style and all(_TAG_NAME.fullmatch(tag) for tag in style)):
            raise ValueError(f"style={style!r}: expected names of tags, such as ('plan', 'answer')")
        if self.fields is not None and style != "json":
            raise ValueError(f"fields are the fields of style='json', not of {style!r}")

    def __call__(self, completions: Sequence[Any], **kwargs: Any) -> list[float]:
        shares = [self._share(completion) for completion in completions]
        return shares if self.graded else [float(share == 1) for share in shares]

    def _share(self, completion: Any) -> float:
        if isinstance(self.style, str) and self.style in _MEASURES:
            return _MEASURES[self.style](self, completion)
        layouts = LAYOUTS[self.style] if isinstance(self.style, str) else ["".join(map(_block, self.style))]
        return max(_share_of_layout(full_text(completion), layout, self.opened) for layout in layouts)


def _block(tag: str) -> str:
    return f"<{tag}></{tag}>"


def _share_of_layout(text: str, layout: str, opened: bool) -> float:
    """Return the fraction of a layout that a text has right."""
    wanted = [(tag[1], tag[2].lower()) for tag in _TAG.finditer(layout)]
    names = {name for _, name in wanted}
    tags = [(tag[1], tag[2].lower(), *tag.span()) for tag in _TAG.finditer(text) if tag[2].lower() in names]
    first = next((slash for slash, name, *_ in tags if name == "think"), "")
    if opened and wanted[0] == ("", "think") and first == "/":
        tags.insert(0, ("", "think", 0, 0))
    whole = sum(_is_whole(text, tags, name) for name in names)
    ordered = whole == len(names) and [tag[:2] for tag in tags] == wanted
    return (whole + ordered + (ordered and not _around(text, tags).strip())) / (len(names) + 2)


def _is_whole(text: str, tags: list[tuple[str, str, int, int]], name: str) -> bool:
    own = [tag for tag in tags if tag[1] == name]
    return [slash for slash, *_ in own] == ["", "/"] and shows(text[own[0][3] : own[1][2]])


def _around(text: str, tags: list[tuple[str, str, int, int]]) -> str:
    """Return what stands outside of all blocks."""
    outside, depth, end = [], 0, 0
    for slash, _, start, stop in tags:
        if not slash:
            outside += [text[end:start]] * (depth == 0)
        depth += -1 if slash else 1
        end = stop
    return "".join([*outside, text[end:]])


def _boxed(reward: FormatReward, completion: Any) -> float:
    content = split(completion).content
    before = full_text(completion)[: -len(content) or None]
    thought = _share_of_layout(before, _block("think"), reward.opened) == 1
    once = content.count("\\boxed") == len(boxes(content)) == 1 and shows(boxed(content) or "")
    return (thought + once) / 2


def _steps(reward: FormatReward, completion: Any) -> float:
    parts = structure(full_text(completion), mode="paper")
    return sum(parts.values()) / len(parts)


def _json(reward: FormatReward, completion: Any) -> float:
    """A third each: the answer is JSON, it is objects, and they have the fields."""
    try:
        value = json.loads(unfenced(answer_block(completion, opened=reward.opened)), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    if not reward.fields:
        return 1.0
    objects = value if isinstance(value, list) else [value]
    are_objects = all(isinstance(item, dict) for item in objects)
    fits = are_objects and all(_has(item, name, kind) for item in objects for name, kind in reward.fields.items())
    return (1 + are_objects + fits) / 3


def _has(item: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> bool:
    value, kinds = item.get(name), kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_MEASURES: dict[str, Callable[[FormatReward, Any], float]] = {"boxed": _boxed, "steps": _steps, "json": _json}

format_reward = FormatReward()
observe_format_reward = FormatReward("observe_think_answer", name="observe_format_reward")
info_format_reward = FormatReward("info_think_answer", name="info_format_reward")
