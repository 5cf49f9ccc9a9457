"""T-GRPO's bonus against a table worked by hand, and what is shuffled."""

import pickle

import pytest

from trl_onevision.rewards import span_reward
from trl_onevision.rewards.temporal import TemporalReward, temporal_reward, with_shuffled_frames


def prompt(frames, text="Which comes first?"):
    content = []
    for number, frame in enumerate(frames):
        content += [{"type": "text", "text": f"<{number / 2:.1f} seconds>"}, {"type": "image", "image": frame}]
    return [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": [*content, {"type": "text", "text": text}]},
    ]


def images(conversation):
    return [block["image"] for block in conversation[-1]["content"] if block["type"] == "image"]


def asker(right):
    """Answers the first `right` of what it is asked with A, and the others with B."""

    def ask(conversations, starts=None):
        ask.conversations = conversations
        which = [i for i, one in enumerate(conversations) if one is not None]
        return [
            None if i not in which else "<answer>A</answer>" if which.index(i) < right else "<answer>B</answer>"
            for i in range(len(conversations))
        ]

    return ask


# Of eight answers in order, how many are right, and of four with shuffled frames: p, q, and whether p >= 0.8 q.
TABLE = [
    (8, 4, True),  # 1 >= 0.8
    (6, 4, False),  # 0.75 < 0.8
    (7, 4, True),  # 0.875 >= 0.8
    (4, 3, False),  # 0.5 < 0.6
    (5, 3, True),  # 0.625 >= 0.6
    (3, 2, False),  # 0.375 < 0.4
    (2, 1, True),  # 0.25 >= 0.2
    (1, 1, False),  # 0.125 < 0.2
    (1, 0, True),  # 0.125 >= 0
    (0, 0, True),  # 0 >= 0, and nobody to pay
    (0, 4, False),
]


@pytest.mark.parametrize(("right", "shuffled_right", "pays"), TABLE)
def test_the_table(right, shuffled_right, pays):
    ask, logged = asker(shuffled_right), {}
    completions = ["<answer>A</answer>"] * right + ["<answer>B</answer>"] * (8 - right)
    paid = TemporalReward(ask=ask)(
        completions, prompts=[prompt("abc")] * 8, solution=["A"] * 8, log_metric=logged.__setitem__
    )
    assert paid == [0.3 if pays and i < right else 0.0 for i in range(8)]
    assert logged == {"temporal_reward/ordered": right / 8, "temporal_reward/shuffled": shuffled_right / 4}
    assert [one is not None for one in ask.conversations] == [True] * 4 + [False] * 4
    assert all(one is ask.conversations[0] for one in ask.conversations[:4]), "one order a group"


def test_groups_are_compared_apart_and_rows_without_frames_are_none():
    ask = asker(1)  # the first group's first: q = 0.5 and 0
    still = [{"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": "A or B?"}]}]
    rows = {
        "prompts": [prompt("abc")] * 4 + [prompt("de", "Which?")] * 4 + [still] * 2 + ["A or B?"],
        "solution": ["A"] * 11,
        "id": [1] * 4 + [2] * 4 + [3, 3, 4],
    }
    answers = "BBBA" + "BABB" + "AAA"
    paid = TemporalReward(ask=ask)([f"<answer>{letter}</answer>" for letter in answers], **rows)
    assert paid == [0.0] * 4 + [0.0, 0.3, 0.0, 0.0] + [None] * 3  # 0.25 < 0.4, 0.25 >= 0
    assert [one is not None for one in ask.conversations] == [True, True, False, False] * 2 + [False] * 3


def test_right_is_what_the_accuracy_pays_above_a_tenth():
    def ask(conversations, starts=None):
        return [one and "<answer>0 to 4</answer>" for one in conversations]  # a tIoU of a half

    rows = {"prompts": [prompt("abcd")] * 3, "solution": ['[{"start": 0, "end": 2}]'] * 3, "task": ["span"] * 3}
    answers = ["<answer>0 to 2</answer>", "<answer>0 to 1</answer>", "<answer>1.9 to 6</answer>"]
    reward = TemporalReward(ask=ask, accuracy=span_reward)
    assert reward(answers, **rows) == [0.3, 0.3, 0.0]  # mean 0.51 >= 0.4; 0.1 / 6 is not right


@pytest.mark.parametrize("count", range(2, 20))
def test_no_frame_stays_and_no_time_moves(count):
    given = prompt(list(range(count)))
    shuffled = with_shuffled_frames(given, seed="a")
    assert sorted(images(shuffled)) == list(range(count))
    assert all(frame != place for place, frame in enumerate(images(shuffled)))
    assert images(given) == list(range(count)), "the row itself is left as it is"
    texts = [[block.get("text") for block in one[-1]["content"]] for one in (given, shuffled)]
    assert texts[0] == texts[1]
    assert shuffled == with_shuffled_frames(given, seed="a")


@pytest.mark.parametrize(
    "given",
    [
        "Which?",
        prompt(["a"]),
        prompt([None, None]),
        [{"role": "user", "content": [{"type": "image", "image": "a"}, {"type": "image", "image": "b"}]}],
    ],
)
def test_what_is_no_clip_is_not_shuffled(given):
    assert with_shuffled_frames(given, seed="") is None


def test_without_a_policy_to_ask_it_says_what_to_do():
    with pytest.raises(ValueError, match="OneVisionGRPOTrainer alone hands to rewards"):
        temporal_reward(["<answer>A</answer>"], prompts=[prompt("ab")], solution=["A"])
    assert temporal_reward([], prompts=[], solution=[]) == []
    assert pickle.loads(pickle.dumps(temporal_reward)).__name__ == "temporal_reward"
