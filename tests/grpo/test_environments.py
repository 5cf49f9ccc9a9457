"""Environments in the trainer: TRL's numbers, the same for all copies of a prompt, and calls that mean harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import environment_ranks
import pyarrow.parquet as pq
import pytest
import tiny
import torch
import transformers
from compare import ONE_BATCH, OURS, assert_same, update
from datasets import Dataset
from packaging.version import Version
from ranks import launch
from tiny import completions
from trl import GRPOTrainer
from trl.chat_template_utils import (
    gemma4_chat_template,
    is_chat_template_prefix_preserving,
    parse_response,
    qwen2_5_vl_chat_template,
    qwen3_vl_chat_template,
)
from trl.data_utils import prepare_multimodal_messages

from trl_onevision.environments import Render, Synthesize, Zoom, drawn_reward, zoom_reward
from trl_onevision.grpo import environment
from trl_onevision.grpo.options import Options
from trl_onevision.rewards import order_reward

TOKENS = tiny.tokenizer()
ASKED = TOKENS("<|im_start|>assistant\n")["input_ids"]
TEMPLATES = {"qwen2_5_vl": qwen2_5_vl_chat_template, "qwen3_vl": qwen3_vl_chat_template}
DISC = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
LOOK = {"name": "zoom", "arguments": {"box": [0, 0, 28, 28]}}


def say(text: str = "", *calls: Any, end: bool = True) -> list[int]:
    """The tokens of a turn with calls of tools."""
    written = "".join(
        f"<tool_call>\n{call if isinstance(call, str) else json.dumps(call)}\n</tool_call>" for call in calls
    )
    return TOKENS(text + written + "<|im_end|>" * end)["input_ids"]


class Turns:
    """Completions that are given, turn by turn: for each row that still has one to write."""

    turns: list[list[list[int]]]

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        turn = self.turns[0]
        self.turns = self.turns[1:]
        assert len(turn) == len(prompt_ids)
        return [list(ids) for ids in turn], None  # TRL writes into what it is given


class WithTools:
    """A trainer of TRL's around a processor that has the template of this package."""

    def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
        environment.give_tools(processing_class)
        super().__init__(*args, processing_class=processing_class, **kwargs)


@pytest.fixture
def run(make: Callable[..., Any]) -> Callable[..., Any]:
    """Our trainer, or TRL's, on turns that are given."""

    def run(
        *turns: list[list[int]], option: Any = None, stock: bool = False, family: str = "qwen3_vl", **given: Any
    ) -> Any:
        kind = {"kind": GRPOTrainer} if stock else {**OURS, "options": {"environment": option}}
        bases = (Turns, *[WithTools] * stock, kind["kind"])
        kind["kind"] = type("WithTurns", bases, {"turns": list(turns)})
        template = given.pop("template", TEMPLATES[family])
        settings = {**ONE_BATCH, "per_device_train_batch_size": 4, "num_generations": 2}
        settings |= {"max_completion_length": 1500, "shuffle_dataset": False}
        return make(**kind, family=family, template=template, **{**settings, **given})

    return run


def scored(trainer: Any) -> dict[str, Any]:
    """A generation of the first batch, before it is shuffled."""
    trainer.model.train()
    return trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


FIRST = completions([5, 9])
TWO_LOOKS = ([say("a", LOOK), *FIRST, say("b", LOOK, LOOK)], [say("c", LOOK), say("d")], [say("e")])
SETTINGS = {"pixels": 3136}
SMALL_ZOOM = {"trl_onevision.environments.Zoom": SETTINGS}


def seeds(count: int = 2, **columns: Any) -> Dataset:
    return Dataset.from_list([{"seed": 5, "index": i, **columns} for i in range(count)])


def drawings(count: int = 2) -> Dataset:
    gold = json.dumps({"language": "svg", "source": DISC})
    data = tiny.dataset(count).remove_columns("solution")
    return data.add_column("solution", [gold] * count).add_column("task", ["render"] * count)


@pytest.mark.parametrize(
    ("option", "factory", "family", "data", "turns"),
    [
        (SMALL_ZOOM, lambda: Zoom(**SETTINGS), "qwen3_vl", tiny.dataset(2), TWO_LOOKS),
        (SMALL_ZOOM, lambda: Zoom(**SETTINGS), "qwen2_5_vl", tiny.dataset(2), TWO_LOOKS),
        (
            {"trl_onevision.environments.Render": {"side": 56}},
            lambda: Render(side=56),
            "qwen3_vl",
            drawings(),
            (
                [say("", {"name": "render", "arguments": {"source": DISC}}), *FIRST, say("so")],
                [say("again", {"name": "render", "arguments": {"source": DISC.replace("3", "2")}})],
                [say("so")],
            ),
        ),
        (
            {"trl_onevision.environments.Synthesize": {"task": "count", "level": 1}},
            lambda: Synthesize("count", 1),
            "qwen2_5_vl",
            seeds(),
            ([*FIRST, say("so"), say("no")],),
        ),
    ],
    ids=["Zoom", "Zoom, Qwen2.5-VL", "Render", "Synthesize"],
)
def test_the_loss_is_that_of_trl_with_the_same_factory(
    run: Callable[..., Any], option: Any, factory: Any, family: str, data: Any, turns: Any
) -> None:
    ours = run(*turns, option=option, family=family, data=data)
    stock = run(*turns, stock=True, family=family, data=data, environment_factory=factory)
    result = update(ours)
    assert_same(result, update(stock))
    assert ours._sharing.processing is ours._sharing.prefill is None
    assert (ours._sharing.scoring is None) == ("Synthesize" in str(option))  # a tool may put images into completions
    calls = sum(TOKENS.decode(ids).count("<tool_call>") for turn in turns for ids in turn)
    assert result.metrics.get("tools/call_frequency", 0) == calls / 4
    assert result.metrics.get("tools/failure_frequency", 0) == 0
    assert max(gradient.norm() for gradient in result.gradients.values() if gradient is not None) > 1e-3


def test_one_prefill_a_drawn_prompt_samples_what_trl_samples(make: Callable[..., Any]) -> None:
    settings = {**ONE_BATCH, "family": "qwen3_vl", "template": qwen3_vl_chat_template, "data": seeds()}
    settings |= {"environment_factory": lambda: Synthesize("count", 1), "max_completion_length": 4}
    sampled, rows = [], []
    for kind in (OURS, {}):
        trainer = make(**kind, **settings)
        seen: list[int] = []
        trainer.model.get_output_embeddings().register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(len(output))
        )
        torch.manual_seed(7)
        sampled.append(scored(trainer)["completion_ids"])
        rows.append(seen[0])
    assert torch.equal(*sampled)
    assert rows == [2, 8]


def test_what_a_tool_says_is_in_the_completion_and_not_in_the_loss(run: Callable[..., Any]) -> None:
    batch = scored(run(*TWO_LOOKS, option=SMALL_ZOOM, data=tiny.dataset(2)))
    for row in (0, 3):
        mask = batch["tool_mask"][row].bool() & batch["completion_mask"][row].bool()
        own = TOKENS.decode(batch["completion_ids"][row][mask])
        tools = batch["completion_ids"][row][~mask & batch["completion_mask"][row].bool()]
        assert "tool_response" not in own and "zoom" in own
        assert "times as large" in TOKENS.decode(tools) and tiny.SPECIAL.index("<|image_pad|>") in tools
    assert batch["num_images"] == [3, 1, 1, 3]
    assert batch["tool_mask"][1:3].all()


def test_a_drawn_row_is_paid_as_a_prepared_one_is(run: Callable[..., Any]) -> None:
    data = seeds(task="jigsaw", level=2)
    drawn = [Synthesize() for _ in data]
    for made, row in zip(drawn, data, strict=True):
        made.reset(**row)
    gold = [made.columns["solution"] for made in drawn]
    texts = [f"<answer>{order}</answer>" for order in (gold[0], "[1, 2, 3, 3]")] * 2
    trainer = run(
        [say(text) for text in texts],
        option="trl_onevision.environments.Synthesize",
        data=data,
        rewards=order_reward,
    )
    scored(trainer)
    expected = order_reward(texts, solution=[gold[0]] * 2 + [gold[1]] * 2, task=["order"] * 4)
    assert expected[0] == 1 and expected[1] == 0
    assert trainer._groups.rewards_NF[:, 0].tolist() == expected
    assert trainer._groups.labels["task"] == ["order"] * 4
    assert trainer._groups.labels["source"] == ["synthesize/jigsaw"] * 4


def test_the_reward_of_drawings_and_of_looks(run: Callable[..., Any]) -> None:
    draw = {"name": "render", "arguments": {"source": DISC}}
    other = {"name": "render", "arguments": {"source": '<svg viewBox="0 0 9 9"><rect width="2" height="2"/></svg>'}}
    trainer = run(
        [say("", draw), say("", other, draw), say("", draw, other), say(f"<answer>{DISC}</answer>")],
        [say("so")] * 3,
        option="trl_onevision.environments.Render",
        data=drawings(1),
        rewards=drawn_reward,
        num_generations=4,
    )
    scored(trainer)
    assert trainer._groups.rewards_NF[:2, 0].tolist() == [1.0, 1.0]
    assert trainer._groups.rewards_NF[2, 0] < 0.3 and trainer._groups.rewards_NF[3, 0] == 0

    right, wrong = "<answer>a</answer>", "<answer>b</answer>"
    trainer = run(
        [say(right), say(right, LOOK), say(right, LOOK), say("", {**LOOK, "arguments": {"box": "all"}})],
        [say(right), say(wrong), say(right)],
        option=SMALL_ZOOM,
        data=tiny.dataset(1),
        rewards=zoom_reward,
        num_generations=4,
    )
    scored(trainer)
    assert trainer._groups.rewards_NF[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert trainer._metrics["train"]["zoom_reward/looked"] == [0.5]


class OfItsOwn:
    """An environment that draws from a generator of its own: every copy of a prompt sees something else."""

    def __init__(self, what: str) -> None:
        self.what = what

    def reset(self, **row: Any) -> list[dict[str, Any]]:
        global drawn
        drawn += 1
        image = tiny.picture(drawn if self.what == "images" else 0)
        text = f"Number {drawn}" if self.what == "texts" else "Number"
        return [{"type": "image", "image": image}, {"type": "text", "text": text}]


drawn = 0


@pytest.mark.parametrize("what", ["images", "texts"])
def test_copies_of_a_prompt_that_see_different_things_are_an_error(run: Callable[..., Any], what: str) -> None:
    trainer = run([*FIRST, *FIRST], data=seeds(), environment_factory=lambda: OfItsOwn(what))
    with pytest.raises(ValueError, match=rf"copies of a prompt have different {what}: group 0 .*Number.*`seed` in"):
        scored(trainer)
    same = run([*FIRST, *FIRST], data=seeds(), environment_factory=lambda: OfItsOwn("nothing"))
    scored(same)


# Before it, TRL reads calls by another rule, and has none for Gemma 4's
READS_TEMPLATES = Version(transformers.__version__) >= Version("5.13")
SPELLED = "<|im_end|><|image_pad|><|vision_start|><|video_pad|>"
HOSTILE = [
    "5",
    "{}",
    "[]",
    "null",
    '{"name": 3}',
    '{"name": "zoom"}',
    '{"name": "zoom", "arguments": [1]}',
    '{"name": "zoom", "arguments": {"box": [NaN, 1e999, -1, 2]}}',
    '{"name": "zoom", "arguments": {"box": [0, 0, 9, 9], "image": ' + "9" * 400 + "}}",
    json.dumps({"name": SPELLED, "arguments": {}}),
    json.dumps({"name": "zoom", "arguments": {SPELLED: 1}}),
    '{"name": "reset", "arguments": {}}',
    '{"name": "_part", "arguments": {}}',
]


def spelled(text: str) -> list[int]:
    """A text in letters: what a policy can write of tokens that it cannot sample."""
    pieces = [TOKENS(text[i])["input_ids"] for i in range(len(text))]
    return [token for piece in pieces for token in piece]


def test_calls_that_mean_harm_are_errors_that_the_model_reads(run: Callable[..., Any]) -> None:
    first = [
        TOKENS("<tool_call>")["input_ids"] + spelled(call) + TOKENS("</tool_call><|im_end|>")["input_ids"]
        for call in [*HOSTILE, json.dumps(LOOK)]
    ]
    tokens = tokens_with_tools()
    answered = [n for n, ids in enumerate(first) if "tool_calls" in parse_response(tokens, ids, ASKED)]
    assert len(answered) == (9 if READS_TEMPLATES else 8)  # the others are text
    trainer = run(
        first,
        [say("so")] * len(answered),
        option=SMALL_ZOOM,
        data=tiny.dataset(7),
        max_completion_length=900,
        per_device_train_batch_size=14,
        log_completions=True,
    )
    result = update(trainer)
    trainer.log({"loss": result.loss})  # which writes calls of every kind into one table
    (table,) = Path(trainer.args.output_dir, "completions").glob("*.parquet")
    assert len(pq.read_table(table)) == 14
    assert result.metrics["tools/failure_frequency"] == pytest.approx(1 - 1 / len(answered))  # all but the look
    assert torch.isfinite(torch.tensor(result.loss))


@pytest.mark.parametrize("call", ["[" * 200_000, '{"name": "zoom", "arguments": {"box": [0, 0, 9, 9]', "5"])
def test_a_call_that_cannot_be_read_is_text(call: str) -> None:
    ids = say("", f"{call}")
    assert parse_response(tokens_with_tools(), ids, ASKED) == {"role": "assistant", "content": TOKENS.decode(ids[:-1])}


def tokens_with_tools() -> Any:
    _, processor = tiny.build("qwen3_vl")
    processor.chat_template = qwen3_vl_chat_template
    environment.give_tools(processor)
    return processor.tokenizer


def test_calls_at_once_are_bounded_too(run: Callable[..., Any]) -> None:
    trainer = run(
        [say("", *[LOOK] * 12), *FIRST, say("no")],
        [say("so")],
        option={"trl_onevision.environments.Zoom": {"pixels": 3136, "calls": 3}},
        data=tiny.dataset(1),
        max_completion_length=4000,
        num_generations=4,
    )
    batch = scored(trainer)
    assert batch["num_images"] == [4, 1, 1, 1]
    assert "All 3 calls are used" in TOKENS.decode(batch["completion_ids"][0])


# The template of Qwen2.5-VL

CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}, {"type": "video"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
    ],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("settings", [{}, {"add_generation_prompt": True, "add_vision_id": True}])
def test_without_tools_the_template_writes_what_the_familys_own_writes(conversation: Any, settings: Any) -> None:
    texts = [
        TOKENS.apply_chat_template(conversation, chat_template=template, tokenize=False, **settings)
        for template in (qwen2_5_vl_chat_template, environment.QWEN_TOOLS)
    ]
    assert texts[0] == texts[1]


def test_with_tools_it_writes_what_qwen3_vls_writes_behind_its_own_system_message() -> None:
    tool = {"type": "function", "function": {"name": "zoom", "description": "Look.", "parameters": {}}}
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "a", "tool_calls": [{"type": "function", "function": LOOK}] * 2},
        {"role": "tool", "name": "zoom", "content": [{"type": "image"}, {"type": "text", "text": "b"}]},
        {"role": "tool", "name": "zoom", "content": "c"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": LOOK}]},
    ]
    texts = [
        TOKENS.apply_chat_template(conversation, tools=[tool], chat_template=template, tokenize=False)
        for template in (qwen3_vl_chat_template, environment.QWEN_TOOLS)
    ]
    theirs = texts[0].replace("<|im_start|>system\n", "<|im_start|>system\nYou are a helpful assistant.\n\n", 1)
    assert texts[1] == theirs


def test_the_template_is_one_that_trl_trains_with() -> None:
    _, processor = tiny.build("qwen2_5_vl")
    processor.chat_template = qwen2_5_vl_chat_template
    environment.give_tools(processor)
    environment.give_tools(processor)
    assert processor.chat_template == environment.QWEN_TOOLS
    assert is_chat_template_prefix_preserving(processor)
    parsed = parse_response(processor.tokenizer, say("so", LOOK), ASKED, tools=[Zoom().zoom])
    assert parsed["content"] == "so" and parsed["tool_calls"] == [{"type": "function", "function": LOOK}]
    messages = prepare_multimodal_messages([{"role": "user", "content": "Hi"}], images=[tiny.picture(0)])
    shown = processor.apply_chat_template(messages, tools=[Zoom().zoom], tokenize=False)
    assert '"name": "zoom"' in shown and "Look closer" in shown


# What is refused, and when


def test_templates_that_cannot_do_it_are_refused_by_name_before_training(run: Callable[..., Any]) -> None:
    settings = {"data": tiny.dataset(2), "option": "trl_onevision.environments.Zoom"}
    with pytest.raises(ValueError, match=r"writes no tool calls.* Qwen3-VL's does"):
        run([], **settings, template="")
    blind = r"Zoom shows images, and the chat template .* trained blind"
    with pytest.raises(ValueError, match=blind if READS_TEMPLATES else r"requires transformers >= 5.13"):
        run([], **settings, template=gemma4_chat_template)
    with pytest.raises(ValueError, match="environment is given twice"):
        run([], **settings, environment_factory=Zoom)


def test_a_model_given_by_name_gets_the_template_too(run: Callable[..., Any], tmp_path: Any) -> None:
    model, processor = tiny.build("qwen2_5_vl")
    processor.chat_template = qwen2_5_vl_chat_template
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    given = environment.prepare("trl_onevision.environments.Zoom", str(tmp_path), None, {})
    assert given["processing_class"].chat_template == environment.QWEN_TOOLS
    assert given["processing_class"].tokenizer.padding_side == "left"
    assert isinstance(given["environment_factory"](), Zoom)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Zoom", "'Zoom' is no dotted path"),
        ("trl_onevision.environments.Zoon", "cannot be imported: module .* has no attribute 'Zoon'"),
        ("no_such.Zoom", "cannot be imported: No module named 'no_such'"),
        (
            {"trl_onevision.environments.Zoom": {"call": 3}},
            "unexpected keyword argument 'call'; it takes frame, calls",
        ),
        ({"math.pi": {}}, "cannot be called"),
        ({"trl_onevision.environments.Zoom": None, "trl_onevision.environments.Render": None}, "one for all rows"),
    ],
)
def test_an_option_that_names_no_environment_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"environment: .*{message}"):
        Options(environment=given)


def test_the_option_reads_what_trl_exports() -> None:
    text = str({"environment": {"trl_onevision.environments.Zoom": {"frame": "norm1000"}}})
    assert environment.read(Options.parse(text).environment)().frame == "norm1000"
    assert Options.parse("{environment: trl_onevision.environments.Zoom}").describe().endswith("environments.Zoom'")


# Several processes


@pytest.mark.slow
def test_other_numbers_of_turns_on_two_processes_train_as_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRL_ONEVISION", raising=False)
    (two,) = launch("environment_ranks.py", str(tmp_path / "two"))
    one = environment_ranks.train(str(tmp_path / "one"), rows=8)
    assert [log["tools/call_frequency"] for log in one] == [4 / 8, 4 / 8]
    assert all(log["grad_norm"] > 1e-3 for log in one)
    for ours, expected in zip(two, one, strict=True):
        for name in ("loss", "grad_norm", "reward", "tools/call_frequency", "completions/mean_length"):
            assert ours[name] == pytest.approx(expected[name], abs=2e-5), (name, expected["step"])


@pytest.mark.parametrize(
    ("vllm", "sharded", "message"),
    [
        (None, "is_fsdp", "FSDP, which gathers weights"),
        (None, "is_zero3", "ZeRO-3, which gathers weights"),
        ("server", None, "a vLLM server"),
        ("colocate", None, "vllm_tensor_parallel_size"),
    ],
)
def test_where_processes_would_wait_without_end_tools_are_refused(vllm: Any, sharded: Any, message: str) -> None:
    args = SimpleNamespace(vllm_mode=vllm, vllm_tensor_parallel_size=2)
    dist = SimpleNamespace(is_fsdp=sharded == "is_fsdp", is_zero3=sharded == "is_zero3")
    with pytest.raises(ValueError, match=f"{message}.*Use ZeRO-2 or DDP"):
        environment.refuse_waiting(SimpleNamespace(args=args, _dist=dist, use_vllm=vllm is not None))
    args.vllm_mode, args.vllm_tensor_parallel_size = "colocate", 1
    environment.refuse_waiting(SimpleNamespace(args=args, _dist=dist, use_vllm=True))
