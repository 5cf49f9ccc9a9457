"""Environments and tools: from an option to TRL's `environment_factory`, on a template that can say what they say."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from accelerate.utils import gather_object
from PIL import Image
from transformers import AutoProcessor
from trl.chat_template_utils import (
    add_response_schema,
    qwen2_5_vl_chat_template,
    qwen3_vl_chat_template,
    supports_tool_calling,
)
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.utils import get_config_model_id

from trl_onevision import dotted

# What Qwen2-VL and Qwen2.5-VL, whose own has no tools, say in Qwen3-VL's words
QWEN_TOOLS = Path(__file__).with_name("qwen2_5_vl_tools.jinja").read_text(encoding="utf-8")

logger = logging.getLogger(__name__)


def read(given: Any) -> Callable[[], Any] | None:
    """TRL's `environment_factory` from an option: a dotted path, or a mapping of one to its settings.

    >>> read({"trl_onevision.environments.Zoom": {"frame": "norm1000"}})().frame
    'norm1000'
    >>> read({"trl_onevision.environments.Zoom": {"fame": "norm1000"}})
    Traceback (most recent call last):
    ValueError: environment: trl_onevision.environments.Zoom got an unexpected keyword argument 'fame'; it takes frame,
        calls, pixels, share.
    """
    if not given:
        return None
    if not isinstance(given, str | Mapping):
        raise ValueError(f"environment: a dotted path, or a mapping of one to its settings, not {given!r}.")
    named = given if isinstance(given, Mapping) else {given: None}
    if len(named) != 1:
        raise ValueError(f"environment: one for all rows, not {', '.join(map(str, named))}.")
    ((path, settings),) = named.items()
    kind = dotted.find("environment", str(path))
    try:
        inspect.signature(kind).bind(**(settings or {}))
    except TypeError as error:
        known = ", ".join(inspect.signature(kind).parameters)
        raise ValueError(f"environment: {path} {error}; it takes {known or 'nothing'}.") from error
    return partial(kind, **(settings or {}))


def prepare(option: Any, model: Any, args: GRPOConfig | None, given: dict[str, Any]) -> dict[str, Any]:
    """What TRL's trainer is given, with the environment of the option and a template that has tools.

    `given` holds `processing_class`, `environment_factory` and `tools` where they are given. A template that tools
    need and that is not there is said before a model is loaded.
    """
    factory = read(option)
    if factory is not None and given.get("environment_factory") is not None:
        raise ValueError("environment is given twice: by the option, and as environment_factory.")
    if factory is not None:
        given = {**given, "environment_factory": factory}
    if given.get("environment_factory") is None and not given.get("tools"):
        return given
    processor = given.get("processing_class") or _load_processor(model, args)
    give_tools(processor)
    if factory is not None:
        _refuse_dropped_images(processor, factory())
    return {**given, "processing_class": processor}


def _load_processor(model: Any, args: GRPOConfig | None) -> Any:
    """The processor that TRL would load."""
    named = model if isinstance(model, str) else get_config_model_id(model.config)
    of_model: Any = args.model_init_kwargs or {} if args is not None and isinstance(model, str) else {}
    return AutoProcessor.from_pretrained(
        named,
        revision=of_model.get("revision"),
        truncation_side="left",
        padding_side="left",
        trust_remote_code=args is not None and args.trust_remote_code,
    )


def give_tools(processor: Any) -> None:
    """Give a processor whose family has no template for tools the one of this package, or raise without one."""
    if processor.chat_template == qwen2_5_vl_chat_template:
        logger.warning(
            "The chat template has no tools: one that has them takes its place, and is saved with the model."
        )
        processor.chat_template = QWEN_TOOLS
    if processor.chat_template == QWEN_TOOLS:
        processor.chat_template = qwen3_vl_chat_template  # whose tool calls TRL knows how to read
        add_response_schema(processor)
        processor.chat_template = QWEN_TOOLS
    if not supports_tool_calling(processor):
        raise ValueError(
            "environments and tools: the chat template of this model writes no tool calls or no tool's answers, and "
            "TRL asks for that even where an environment has no tool. Qwen3-VL's does, and those of later Qwen "
            "models, Gemma 4 and LFM2.5-VL; Qwen2-VL's and Qwen2.5-VL's own are replaced by one that does. Another "
            "model needs a chat_template.jinja in its folder."
        )
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "response_template", None) is None and getattr(tokenizer, "response_schema", None) is None:
        add_response_schema(processor)  # which raises on a template that it does not know
    if not isinstance(tokenizer.parse_response, partial):
        tokenizer.parse_response = partial(_parse, tokenizer.parse_response)


def _parse(parse_response: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a turn says; a call nested too deeply is text, as TRL takes any that cannot be read."""
    try:
        return parse_response(*args, **kwargs)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_dropped_images(processor: Any, environment: Any) -> None:
    """Raise where a tool shows images, and the template leaves them out of what a tool says."""
    if not any(map(_shows_images, tools_of(environment))) or not hasattr(processor, "image_processor"):
        return
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    asked: list[Any] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    texts = [
        processor.apply_chat_template(
            prepare_multimodal_messages([*asked, {"role": "tool", "name": "look", "content": content}]), tokenize=False
        )
        for content in (
            [{"type": "text", "text": "."}],
            [{"type": "image", "image": None}, {"type": "text", "text": "."}],
        )
    ]
    if texts[0] == texts[1]:
        raise ValueError(
            f"environment: {type(environment).__name__} shows images, and the chat template of this model leaves out "
            "the images of tools: it would be trained blind. Use a newer chat_template.jinja of its family, or a "
            "family whose template has them, such as Qwen3-VL."
        )


def tools_of(environment: Any) -> list[Callable[..., Any]]:
    """The methods that TRL takes for tools."""
    methods = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    return [method for name, method in methods if name not in ("reset", "get_reward") and not name.startswith("_")]


def _shows_images(tool: Callable[..., Any]) -> bool:
    return get_origin(get_type_hints(tool).get("return")) is list


def refuse_waiting(trainer: Any) -> None:
    """Raise where processes whose rollouts take other numbers of turns would wait for each other without end.

    TRL generates once a turn, on each process for itself; what follows makes of it a call of all.
    """
    args, dist = trainer.args, trainer._dist
    vllm = args.vllm_mode if trainer.use_vllm else None
    together = {
        "FSDP, which gathers weights at each generation": vllm is None and dist.is_fsdp,
        "ZeRO-3, which gathers weights at each generation": vllm is None and dist.is_zero3,
        "a vLLM server, of whose answers a process takes a share by its number of prompts": vllm == "server",
        "vllm_tensor_parallel_size": vllm == "colocate" and args.vllm_tensor_parallel_size > 1,
    }
    for how in (how for how, found in together.items() if found):
        raise ValueError(
            f"Tools on several processes cannot hold with {how}: rollouts take other numbers of turns on each. Use "
            "ZeRO-2 or DDP, or vllm_mode: colocate with an engine a process."
        )


def with_columns(rows: list[dict[str, Any]], environments: list[Any] | None) -> list[dict[str, Any]]:
    """Rows with what their environments have drawn, `columns`, over the columns of their own.

    >>> class Drawn:
    ...     columns = {"solution": "7", "task": "count"}
    >>> with_columns([{"seed": 3, "task": "count-2"}], [Drawn()])
    [{'solution': '7', 'task': 'count', 'seed': 3}]
    """
    drawn = [getattr(environment, "columns", {}) for environment in environments or [None] * len(rows)]
    known = dict.fromkeys(
        name for columns in drawn for name in columns
    )  # of all rows, as TRL reads those of the first
    return [{**known, **row, **columns} for row, columns in zip(rows, drawn, strict=True)]


def as_one(trainer: Any, prompts: list[Any]) -> list[Any]:
    """Prompts with the blocks that `reset` added, the copies of one sharing their images; they have to be equal.

    `prompts` are this rank's; the copies of one stand side by side over all ranks. Raises `ValueError` where an
    environment has shown them different things, on any rank.
    """
    size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    digests = [_digest(prompt) for prompt in prompts]
    found = gather_object([(digest, _start(prompt)) for digest, prompt in zip(digests, prompts, strict=True)])
    for first in range(0, len(found), size):
        group = found[first : first + size]
        if len({digest for digest, _ in group}) > 1:
            differs = "texts" if len({texts for (texts, _), _ in group}) > 1 else "images"
            raise ValueError(
                f"The {size} copies of a prompt have different {differs}: group {first // size} of this generation, "
                f"{group[0][1]!r}. TRL resets an environment once a copy, and what differs between copies is no fault "
                "or merit of an answer. Let `reset` take what is random from a column of the row, as `seed` in "
                "`def reset(self, seed, **row)`, and give the dataset that column, with another number in each row."
            )
    shared: list[Any] = []
    for row, prompt in enumerate(prompts):
        is_copy = row > 0 and digests[row] == digests[row - 1] and isinstance(prompt, list)
        # A list for each row: TRL adds to it what its tools say
        shared.append([dict(message) for message in shared[-1]] if is_copy else prompt)
    return shared


def _digest(prompt: Any) -> tuple[str, str]:
    """Hashes of all that a prompt says, and of its images."""
    images = hashlib.blake2b()

    def note(image: Any) -> str:
        known = (
            f"{image.mode}{image.size}".encode() + image.tobytes() if isinstance(image, Image.Image) else repr(image)
        )
        images.update(known if isinstance(known, bytes) else known.encode())
        return "image"

    said = json.dumps(prompt, default=note, sort_keys=True)
    return hashlib.blake2b(said.encode()).hexdigest(), images.hexdigest()


@contextmanager
def of_rows(trainer: Any, rows: list[int]) -> Iterator[None]:
    """While active, TRL tokenizes the prompts of these rows of a generation alone."""
    names = getattr(trainer, "_batch_environments", None)
    if names is None:
        yield
        return
    trainer._batch_environments = [names[row] for row in rows]
    try:
        yield
    finally:
        trainer._batch_environments = names


def _start(prompt: Any) -> str:
    content = prompt[-1]["content"] if isinstance(prompt, list) else prompt
    text = content if isinstance(content, str) else " ".join(block.get("text") or "" for block in content)
    return text.strip()[:60]


def plain(tool_messages: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """What tools say, without the words that a tokenizer takes for tokens of its own.

    A tool that repeats what it was given repeats what a policy spelled: `<|image_pad|>` in letters, which as a token
    would stand for an image that is not there, or the end of a turn.
    """

    def spell(text: Any) -> Any:
        for token in special if isinstance(text, str) else ():
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return [
        {
            **message,
            "name": spell(message.get("name")),
            "content": [
                {**part, "text": spell(part["text"])} if "text" in part else part for part in message["content"]
            ]
            if isinstance(message["content"], list)
            else spell(message["content"]),
        }
        for message in tool_messages
    ]


def as_text(completion: Any) -> Any:
    """A completion as TRL's table of completions takes it: every message a text, with its calls behind it.

    Its file holds one type a column, and so neither texts beside blocks nor calls whose arguments differ in kind.

    >>> said = {"role": "assistant", "content": "Let me look.", "tool_calls": [{"function": {"name": "zoom"}}]}
    >>> shown = {"role": "tool", "name": "zoom", "content": [{"type": "image"}, {"type": "text", "text": "Larger."}]}
    >>> as_text([said, shown])
    [{'role': 'assistant', 'content': 'Let me look.<tool_call>{"name": "zoom"}</tool_call>'},
        {'role': 'tool', 'name': 'zoom', 'content': '<image>Larger.'}]
    """
    if not isinstance(completion, list):
        return completion
    return [
        {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": _written(message)}
        for message in completion
    ]


def _written(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [block["text"] if block.get("type") == "text" else f"<{block.get('type')}>" for block in blocks]
    calls = [json.dumps(call.get("function", call)) for call in message.get("tool_calls") or []]
    return "".join(map(str, texts)) + "".join(f"<tool_call>{call}</tool_call>" for call in calls)
