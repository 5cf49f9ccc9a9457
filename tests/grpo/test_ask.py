"""The policy answers what a reward asks: in the order of the rows, and only a reward that wants it is handed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
from compare import ONE_BATCH, OURS, update

from trl_onevision.grpo.ask import AskPolicy, wants_policy
from trl_onevision.rewards import Gate, Product, accuracy_reward, format_reward
from trl_onevision.rewards.second_pass import caption_answer_reward

GIVEN = tiny.completions([5, 9, 3, 16, 7, 7, 12, 1])


def ask_for(text: str, image: Any = None) -> list[dict[str, Any]]:
    blocks = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_replies_stand_where_they_were_asked_for(make: Callable[..., Any], family: str) -> None:
    greedy = {"generation_kwargs": {"do_sample": False}, "max_completion_length": 6}
    trainer = make(**OURS, family=family, **ONE_BATCH, **greedy)
    ask = AskPolicy(trainer)
    questions = [ask_for("How many?"), None, ask_for("Which?", tiny.picture(3)), None, ask_for("What colour is it?")]
    together = ask(questions)
    assert [reply is None for reply in together] == [False, True, False, True, False]
    for question, reply in zip(questions, together, strict=True):
        if question is not None:
            assert ask([question]) == [reply]
    assert ask([None, None]) == [None, None]


@pytest.mark.parametrize("image", [None, tiny.picture(3)], ids=["text", "image"])
def test_a_reply_goes_on_from_its_start(make: Callable[..., Any], image: Any) -> None:
    """Against plain `generate` on the prompt's tokens and those of the start."""
    trainer = make(**OURS, **ONE_BATCH, generation_kwargs={"do_sample": False}, max_completion_length=6)
    prompt, start = ask_for("Which?", image), "<think>a b c</think>"
    (reply,) = AskPolicy(trainer)([prompt], [start])
    template = {"add_generation_prompt": True, "tokenize": False}
    text = trainer.processing_class.apply_chat_template(prompt, **template) + start
    inputs = trainer.processing_class(text=[text], images=None if image is None else [image], return_tensors="pt")
    suppressed = [trainer.model.config.image_token_id]
    given = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": suppressed}
    ids = trainer.model.generate(**inputs, **given)[0, inputs["input_ids"].size(1) :]
    assert reply == trainer.processing_class.tokenizer.decode(ids, skip_special_tokens=True)
    seen: list[Any] = []
    trainer._generate_single_turn = lambda ids, *rest: seen.extend(ids) or ([[20]], None)
    AskPolicy(trainer)([prompt], [start])
    assert seen == inputs["input_ids"].tolist()


def test_a_reward_with_that_parameter_is_handed_the_policy_and_no_other(make: Callable[..., Any]) -> None:
    seen: dict[str, Any] = {}

    def asking(completions: list[Any], ask_policy: list[Any], **columns: Any) -> list[float]:
        seen["asking"] = ask_policy[0]([ask_for("How many?")] * len(completions))
        return [len(reply) / 100 for reply in seen["asking"]]

    def plain(completions: list[Any], **columns: Any) -> list[float]:
        seen["plain"] = "ask_policy" in columns
        return [0.5] * len(completions)

    ours = make(**OURS, rewards=[asking], **ONE_BATCH)
    update(ours)
    assert len(seen["asking"]) == 8 and all(isinstance(reply, str) for reply in seen["asking"])
    update(make(**OURS, rewards=[plain], given=GIVEN, **ONE_BATCH))
    assert seen["plain"] is False


def test_a_part_of_a_reward_is_handed_the_policy_too() -> None:
    """A gated reward said that OneVisionGRPOTrainer was missing, inside of it."""
    assert wants_policy([format_reward, Gate(format_reward, Product(accuracy_reward, caption_answer_reward))])
    assert not wants_policy([format_reward, Gate(format_reward, accuracy_reward)])
    paid = Gate(format_reward, caption_answer_reward, threshold=0)(
        completions=["<info>four</info><answer>4</answer>"],
        prompts=["2 + 2?"],
        solution=["4"],
        ask_policy=[lambda conversations, starts: ["<answer>4</answer>"]],
    )
    assert paid == [1.0]
