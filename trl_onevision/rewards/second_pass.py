"""Rewards that ask again: from the caption alone, with the options in another order, without the image.

`OneVisionGRPOTrainer` hands a reward with a parameter `ask_policy` a callable that answers with the policy as it is.
It takes a conversation a completion, or None where there is nothing to ask, and the text that each reply begins with;
it returns a reply for each, None for None. It is called once a call of the reward, whatever there is to ask, so that
every process makes the same passes. `ask`, of the same form, asks somebody else.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from string import ascii_uppercase
from typing import Any, NamedTuple

from trl_onevision.answers.choice import gold_choices, read_choices
from trl_onevision.answers.extract import answer_text, answers, full_text
from trl_onevision.answers.markup import normalize
from trl_onevision.rewards.accuracy import AccuracyReward
from trl_onevision.rewards.length import groups
from trl_onevision.rewards.rows import NamedReward, Reward, question, score_rows, warn_once

CAPTION_PROMPT = (
    "A picture is described below. Answer the question from the description alone, in <answer> </answer> tags.\n"
    "Description: {caption}\nQuestion: {question}"
)

_STATES = re.compile(r"<answer>|\\(?:boxed|fbox)", re.IGNORECASE)  # closed or not: an answer, and no caption

Conversation = list[dict[str, Any]]
Ask = Callable[..., list[str | None]]


@dataclass(eq=False, kw_only=True)
class AskingReward(NamedReward):
    """A reward that asks again: `ask` where it is given, else the policy as the trainer hands it over."""

    ask: Ask | None = None

    def replies(
        self, asked: list[Conversation | None], policy: Sequence[Ask] | None, starts: list[str] | None = None
    ) -> list[str]:
        """A reply for each completion, empty where nothing is asked. Every call asks once."""
        if ask := self.ask or next(iter(policy or ()), None):
            return [reply or "" for reply in ask(asked, starts)]
        if not asked:
            return []
        raise ValueError(
            f"{self.__name__} asks the policy, which OneVisionGRPOTrainer alone hands to rewards: set TRL_ONEVISION "
            "in the recipe, or give ask=."
        )


@dataclass(eq=False, kw_only=True)
class CaptionAnswerReward(AskingReward):
    """Pay what the answer from the completion's own caption earns, given without the image (Visionary-R1, 2505.14677).

    >>> def ask(conversations, starts):
    ...     return [one and ("<answer>3</answer>" if "three" in one[0]["content"] else "") for one in conversations]
    >>> reward = CaptionAnswerReward(ask=ask)
    >>> completions = ["<info>three\\ncats</info><answer>3</answer>", "<answer>3</answer>", "<info>cats</info>"]
    >>> reward(completions, prompts=["How many cats?"] * 3, solution=["3"] * 3)
    [1.0, 0.0, 0.0]

    The caption is the one `<tag>` block of a completion, of any number of lines. No caption, several, or one that
    states an answer as such ("<answer>", a box, "Answer:", or the gold or the completion's answer and nothing else)
    earns 0 and is not asked about; a caption may still *say* what is right, which is what it is paid for. `ask` is the
    policy's own where none is given; a text-only reasoner behind a server is RACRO's. Replies are scored by
    `accuracy`, which returns `None` for rows that are not its own.
    """

    tag: str = "info"
    prompt: str = CAPTION_PROMPT
    accuracy: Reward = field(default_factory=AccuracyReward)
    name: str = "caption_answer_reward"

    def __call__(
        self,
        completions: Sequence[Any],
        prompts: Sequence[Any],
        solution: Sequence[Any],
        ask_policy: Sequence[Ask] | None = None,
        log_extra: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        asked: list[Conversation | None] = []
        for completion, prompt, gold in zip(completions, prompts, solution, strict=True):
            caption = self.caption(completion, gold)
            filled = self.prompt.replace("{question}", question(prompt)).replace("{caption}", caption or "")
            asked.append(None if caption is None else [{"role": "user", "content": filled}])
        replies = self.replies(asked, ask_policy)
        if log_extra is not None:
            log_extra(f"{self.__name__}/reply", replies)
        return list(self.accuracy(completions=replies, prompts=prompts, solution=solution, **columns))

    def caption(self, completion: Any, gold: Any) -> str | None:
        """The caption of a completion, None where it has none that may be asked about."""
        pieces = re.split(rf"<(/?){re.escape(self.tag)}>", full_text(completion), flags=re.IGNORECASE)
        caption = unicodedata.normalize("NFKC", pieces[2]).strip() if pieces[1::2] == ["", "/"] else ""
        alone = {"", *(normalize(text) for text in (gold, answer_text(completion)) if isinstance(text, str))}
        if normalize(caption) in alone or _STATES.search(caption) or answer_text(caption):
            return None
        return pieces[2].strip()


@dataclass(eq=False, kw_only=True)
class ConsistencyReward(AskingReward):
    """Pay a choice that stands when the options change places and the reasoning is kept (ACRE, arXiv 2510.10104).

    >>> stubborn = lambda conversations, starts: ["<answer>B</answer>" for _ in conversations]
    >>> reward = ConsistencyReward(ask=stubborn)
    >>> prompt, completion = "Which? A. red B. blue", "<think>It is blue.</think><answer>B</answer>"
    >>> reward([completion], prompts=[prompt], solution=["B"], task=["choice"], choices=[["red", "blue"]])
    [0.0]

    The reply begins with the completion's thinking and sees the same question with its options in another order, in
    which none stands where it stood. Whether the answer is right, and whether the reply picks the same option, gives
    four cases: `kept`, `lost`, `wrong_kept` and `wrong_changed`. The paper's numbers are unpublished; these pay what
    is right and stands alone. A letter in the reasoning means what stands there now.

    No thinking that is closed, or no one option picked, is `wrong_changed`. `None` for rows that are no choice of one
    option out of two or more, or whose prompt does not show the options by letter in their order.
    """

    kept: float = 1.0
    lost: float = 0.0
    wrong_kept: float = 0.0
    wrong_changed: float = 0.0
    name: str = "consistency_reward"

    def __call__(
        self,
        completions: Sequence[Any],
        prompts: Sequence[Any],
        ask_policy: Sequence[Ask] | None = None,
        log_extra: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        moves = score_rows(self.__name__, self._move, completion=completions, prompt=prompts, **columns)
        asked = [one.conversation if one and one.start else None for one in moves]
        replies = self.replies(asked, ask_policy, [one.start if one else "" for one in moves])
        if log_extra is not None:
            log_extra(f"{self.__name__}/reply", replies)
        rows = zip(completions, replies, moves, strict=True)
        return [move and self._pay(completion, reply, move) for completion, reply, move in rows]

    def _move(self, row: dict[str, Any]) -> "_Move | None":
        given, solution = list(row["choices"]) if row.get("choices") is not None else [], row["solution"]
        letters = isinstance(solution, str) and row.get("task", "choice") == "choice" and 2 <= len(given) <= 10
        golds = gold_choices(solution, given) if letters and all(isinstance(text, str) for text in given) else []
        if [len(gold) for gold in golds] != [1]:
            return None
        order = moved(len(given), full_text(row["completion"]))
        conversation = _with_options(row["prompt"], given, [given[place] for place in order])
        if conversation is None:
            warn_once(f"{self.__name__}: a prompt shows no options by letter", f": {question(row['prompt'])!r}")
            return None
        (gold,) = golds[0]
        return _Move(gold, given, order, conversation, _trace(row["completion"]))

    def _pay(self, completion: Any, reply: str, move: "_Move") -> float:
        first = _picked(completion, move.given)
        second = _picked(reply, [move.given[place] for place in move.order])
        stands = second is not None and first == ascii_uppercase[move.order[ascii_uppercase.index(second)]]
        if first == move.gold:
            return self.kept if stands else self.lost
        return self.wrong_kept if stands else self.wrong_changed


class _Move(NamedTuple):
    """A question with its options moved: the right letter and the options as given, where each stands now."""

    gold: str
    given: list[str]
    order: list[int]
    conversation: Conversation
    start: str  # of the reply: the completion's thinking


def _picked(completion: Any, given: list[str]) -> str | None:
    """The one letter that a completion picks."""
    picks = next(filter(None, (read_choices(stated, given) for stated in answers(completion))), frozenset())
    return next(iter(picks)) if len(picks) == 1 else None


@dataclass(eq=False, kw_only=True)
class BlindReward(AskingReward):
    """Measure how often the policy is right without the image: a metric, for a weight of 0 in `reward_weights`.

    >>> reward = BlindReward(ask=lambda conversations, starts: [one and "<answer>4</answer>" for one in conversations])
    >>> reward(["<answer>4</answer>"] * 2, prompts=["2 + 2 = ?"] * 2, solution=["4"] * 2)
    [1.0, 1.0]

    A group asks once, so its completions get the same value and no advantage from it. `rewards/blind_reward/mean` is
    the share of prompts that are answered without the image. `None` where `accuracy` gives `None`.
    """

    accuracy: Reward = field(default_factory=AccuracyReward)
    name: str = "blind_reward"

    def __call__(
        self,
        completions: Sequence[Any],
        prompts: Sequence[Any],
        solution: Sequence[Any],
        ask_policy: Sequence[Ask] | None = None,
        log_extra: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        first = {i: group[0] for group in groups(solution, prompts=prompts, id=columns.get("id")) for i in group}
        asked = [_without_images(prompt) if first[i] == i else None for i, prompt in enumerate(prompts)]
        replies = self.replies(asked, ask_policy)
        shared = [replies[first[i]] for i in range(len(completions))]
        return list(self.accuracy(completions=shared, prompts=prompts, solution=solution, **columns))


def _trace(completion: Any) -> str:
    """What a completion wrote up to the end of its thinking; empty where that was not closed."""
    text = full_text(completion)
    return text[: text.rfind("</think>") + len("</think>")] if "</think>" in text else ""


def moved(count: int, seed: str) -> list[int]:
    """An order in which nothing stands where it stood (Sattolo's), the same for the same text.

    >>> sorted(moved(4, "a")), any(place == old for place, old in enumerate(moved(4, "a")))
    ([0, 1, 2, 3], False)
    """
    random = Random(blake2b(seed.encode(errors="surrogatepass")).digest())
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = random.randrange(last)
        order[last], order[other] = order[other], order[last]
    return order


def _with_options(prompt: Any, old: Sequence[str], new: Sequence[str]) -> Conversation | None:
    """The prompt with other texts behind its letters; None where it does not show the old ones."""
    messages: Conversation = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    last = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=None)
    if last is None:
        return None
    content = messages[last]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for i, block in enumerate(blocks):
        text = _replaced(block["text"], old, new) if block.get("type") == "text" else None
        if text is not None:
            blocks[i] = {**block, "text": text}
            messages[last] = {**messages[last], "content": text if isinstance(content, str) else blocks}
            return messages
    return None


def _replaced(text: str, old: Sequence[str], new: Sequence[str]) -> str | None:
    """A text with its lettered options replaced.

    >>> _replaced("Which? (A) red (B) blue", ["red", "blue"], ["blue", "red"])
    'Which? (A) blue (B) red'
    """
    done, end = "", 0
    for letter, before, after in zip(ascii_uppercase, old, new, strict=False):
        found = re.compile(rf"(?<!\w){letter}\s?[).:]\s*({re.escape(before.strip())})(?!\w)").search(text, end)
        if found is None or not before.strip():
            return None
        done += text[end : found.start(1)] + after.strip()
        end = found.end(1)
    return done + text[end:]


def _without_images(prompt: Any) -> Conversation:
    """A conversation with its text alone."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{**message, "content": question([{**message, "role": "user"}])} for message in prompt]


caption_answer_reward = CaptionAnswerReward()
consistency_reward = ConsistencyReward()
blind_reward = BlindReward()
