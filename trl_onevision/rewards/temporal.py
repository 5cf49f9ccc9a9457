"""T-GRPO: what the order of a video's frames is worth to the policy, asked with the frames shuffled."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from trl_onevision.rewards.accuracy import AccuracyReward
from trl_onevision.rewards.length import groups
from trl_onevision.rewards.rows import Reward, take
from trl_onevision.rewards.second_pass import Ask, AskingReward, Conversation, moved

_TIME = re.compile(r"<\d+(?:\.\d+)? seconds>\s*")  # what stands before a frame


@dataclass(eq=False, kw_only=True)
class TemporalReward(AskingReward):
    """Pay right answers a bonus where frames in their order serve better than shuffled ones (Video-R1, 2503.21776).

    >>> frames = [({"type": "text", "text": f"<{n}.0 seconds>"}, {"type": "image", "image": n}) for n in range(2)]
    >>> question = {"type": "text", "text": "Which is first?"}
    >>> prompt = [{"role": "user", "content": [*frames[0], *frames[1], question]}]
    >>> ask = lambda conversations, starts: [one and "<answer>blue</answer>" for one in conversations]
    >>> reward = TemporalReward(ask=ask)
    >>> reward(["<answer>red</answer>", "<answer>blue</answer>"], prompts=[prompt] * 2, solution=["red"] * 2)
    [0.3, 0.0]

    With p the mean accuracy of a group, and q that of answers to the same prompt with its frames shuffled, one for
    every `1 / share` completions, a completion whose accuracy is above `above` earns `bonus` if p >= `ratio` q, and 0
    otherwise. The accuracy itself is another reward's to pay. Shuffled means that no frame stands where it stood;
    times stay in their places. The defaults are the published numbers.

    The paper counts right answers; the released code is followed where it says more: p and q are means of accuracies
    of any kind (a tIoU, with `accuracy=span_reward`), right is above 0.1, and a group that is never right passes and
    earns nothing. It is not followed where it falls back: it takes one prompt at a time, trains on another clip where
    one does not decode, and may draw the order that was there.

    `None` for rows without two frames that have times before them, as `prepare` writes them, and where `accuracy`
    gives `None`. A group of which a process sees a part is compared by that part.
    """

    bonus: float = 0.3
    ratio: float = 0.8
    share: float = 0.5
    above: float = 0.1
    accuracy: Reward = field(default_factory=AccuracyReward)
    name: str = "temporal_reward"

    def __call__(
        self,
        completions: Sequence[Any],
        prompts: Sequence[Any],
        solution: Sequence[Any],
        ask_policy: Sequence[Ask] | None = None,
        log_extra: Any = None,  # the table's columns are for `accuracy` to fill where it is a reward itself
        log_metric: Any = None,
        completion_ids: Any = None,  # of what is asked again there are none
        **columns: Any,
    ) -> list[float | None]:
        columns = {"prompts": list(prompts), "solution": list(solution), **columns}
        asked: list[Conversation | None] = [None] * len(completions)
        together = groups(**columns)
        for group in together:
            shuffled = with_shuffled_frames(prompts[group[0]], seed=str(completions[group[0]]))
            for index in group[: max(1, int(self.share * len(group)))]:
                asked[index] = shuffled
        replies = self.replies(asked, ask_policy)
        which = [index for index, conversation in enumerate(asked) if conversation is not None]
        answers = [replies[index] for index in which]
        ordered = self.accuracy(completions=completions, **columns)
        shuffled_scores = dict(zip(which, self.accuracy(completions=answers, **take(columns, which)), strict=True))

        rewards: list[float | None] = [None] * len(completions)
        compared = []
        for group in together:
            in_order = [score for index in group if (score := ordered[index]) is not None]
            out_of_order = [score for index in group if (score := shuffled_scores.get(index)) is not None]
            if not in_order or not out_of_order:
                continue
            compared.append((fmean(in_order), fmean(out_of_order)))
            pays = compared[-1][0] >= self.ratio * compared[-1][1]
            for index in group:
                score = ordered[index]
                rewards[index] = None if score is None else self.bonus if pays and score > self.above else 0.0
        if log_metric is not None and compared:
            log_metric(f"{self.__name__}/ordered", fmean(p for p, _ in compared))
            log_metric(f"{self.__name__}/shuffled", fmean(q for _, q in compared))
        return rewards


def with_shuffled_frames(prompt: Any, seed: str) -> Conversation | None:
    """The prompt with its frames in an order in which none stands where it stood, None where it has not two frames.

    >>> frames = [{"type": "text", "text": "<0.0 seconds>"}, {"type": "image", "image": "a"}]
    >>> later = [{"type": "text", "text": "<0.5 seconds>"}, {"type": "image", "image": "b"}]
    >>> shuffled = with_shuffled_frames([{"role": "user", "content": [*frames, *later]}], seed="")
    >>> [block.get("text") or block["image"] for block in shuffled[0]["content"]]
    ['<0.0 seconds>', 'b', '<0.5 seconds>', 'a']
    """
    messages = [] if isinstance(prompt, str) else [dict(message) for message in prompt]
    places: list[tuple[list[Any], int]] = []
    for message in messages:
        if isinstance(message.get("content"), list):
            blocks = message["content"] = list(message["content"])
            timed = [False, *(_TIME.fullmatch(block.get("text") or "") for block in blocks)]
            places += [(blocks, at) for at, block in enumerate(blocks) if timed[at] and block.get("image") is not None]
    if len(places) < 2:
        return None
    frames = [blocks[at] for blocks, at in places]
    for (blocks, at), source in zip(places, moved(len(frames), seed), strict=True):
        blocks[at] = frames[source]
    return messages


temporal_reward = TemporalReward()
