"""Actions on a screen: the right kind, in the right place, with the right text (UI-R1)."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from trl_onevision.answers.json_text import LABEL_KEYS, collect, first_text, normalized, number, numbers, read_json
from trl_onevision.answers.places import BOXES, POINTS, Place
from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.grounding import GroundingReward, as_array, gold_items
from trl_onevision.rewards.points import point_credit, read_places
from trl_onevision.rewards.rows import Positive, Unscorable

_KIND_KEYS = ("action", "action_type")
# What action spaces call the same thing. Scroll and swipe are opposite in direction, so they are two.
_KINDS = {
    name: names[0]
    for names in (
        ("click", "tap", "left_click", "touch"),
        ("long_press", "press_and_hold"),
        ("double_click", "double_tap"),
        ("type", "input", "input_text", "enter_text", "write"),
        ("press", "key", "press_key", "hotkey"),
        ("open", "open_app", "launch", "launch_app"),
        ("back", "press_back", "navigate_back"),
        ("home", "press_home", "navigate_home"),
        ("finish", "finished", "complete", "completed", "done", "terminate"),
    )
    for name in names
}
_ARGUMENTS = {
    "text": ("text", "content", "value", "input_text"),
    "direction": ("direction",),
    "key": ("key", "keys"),
    "app": ("app", "app_name"),
    "button": ("button",),
    "status": ("status",),
    "pixels": ("pixels",),
    "time": ("time", "duration"),
}
_ARGUMENT_OF = {key: name for name, keys in _ARGUMENTS.items() for key in keys}
_PLACE_KEYS = tuple(
    itertools.chain.from_iterable((*kind.keys, *itertools.chain(*kind.sides)) for kind in (BOXES, POINTS))
)
_END_KEY = "coordinate2"  # where a swipe ends
# What a gold may say of itself. Any other key is an argument that nothing would compare.
_REMARKS = (*LABEL_KEYS, "id", "step", "description", "thought", "reasoning", "explanation", "comment", "instruction")
_READ_KEYS = {*_KIND_KEYS, *_ARGUMENT_OF, *_PLACE_KEYS, _END_KEY, *_REMARKS}


class Action(NamedTuple):
    """What to do, where, with which arguments, and where a swipe ends; a gold's place may be a box."""

    kind: str
    place: Place | None
    arguments: dict[str, str]
    end: Place | None = None


def read_actions(text: str) -> list[Action]:
    """Read the actions of an answer's JSON, in the order written; at most 1000.

    >>> read_actions("[{'action': 'tap', 'coordinate': [10, 20]}]")[0][:2]
    ('click', Place(numbers=(10.0, 20.0), label=None, score=None))
    >>> read_actions('{"name": "computer_use", "arguments": {"action": "type", "text": "hello"}}')
    [Action(kind='type', place=None, arguments={'text': 'hello'}, end=None)]

    An action is an object that names its kind under `action` or `action_type`, at any depth. Its place is read as
    `POINTS` are, its arguments from `text`, `content`, `value`, `direction`, `key`, `keys`, `app`, `button`,
    `status`, `pixels`, `time`, and where it ends from `coordinate2`.
    """
    return collect(read_json(text), actions_of)


def actions_of(value: Any, label: str | None = None) -> list[Action]:
    """Read one JSON object as an answered action; an empty list if it is none. Actions have no labels.

    >>> actions_of({"action": "scroll", "direction": "Down"})
    [Action(kind='scroll', place=None, arguments={'direction': 'down'}, end=None)]
    """
    points = POINTS.of(value) if isinstance(value, dict) else []
    return _actions(value, points[0] if len(points) == 1 else None)


def _gold_actions_of(value: Any, label: str | None) -> list[Action]:
    """Read one JSON object as a gold; `Unscorable` where it states what nothing would compare."""
    if not isinstance(value, dict):
        return []
    stated = {key: item for key, item in value.items() if item not in (None, "", [], {})}
    places = read_places(stated) if any(key in stated for key in _PLACE_KEYS) else []
    if len(places) > 1:
        raise Unscorable(f"an action has one place, and the gold states {len(places)}: {str(value)[:80]!r}")
    actions = _actions(stated, places[0] if places else None)
    for action in actions:
        unread = [
            key
            for key in stated
            if key not in _READ_KEYS
            or (key in _ARGUMENT_OF and _ARGUMENT_OF[key] not in action.arguments)
            or (key == _END_KEY and action.end is None)
        ]
        if unread:
            raise Unscorable(f"nothing reads {', '.join(map(repr, unread))} of the gold {str(value)[:80]!r}")
    return actions


def _actions(value: Any, place: Place | None) -> list[Action]:
    kind = first_text(value, _KIND_KEYS) if isinstance(value, dict) else None
    if kind is None:
        return []
    kind = kind.strip().casefold().replace(" ", "_").replace("-", "_")
    arguments: dict[str, str] = {}
    for key, name in _ARGUMENT_OF.items():
        if argument := _argument(name, value.get(key)):
            arguments.setdefault(name, argument)
    end = numbers(value.get(_END_KEY), 2)
    return [Action(_KINDS.get(kind, kind), place, arguments, None if end is None else Place(end))]


def _argument(name: str, value: Any) -> str | None:
    """Write an argument as it is compared; `None` if it is no text, number or list of them.

    >>> _argument("key", ["Ctrl", "C"]), _argument("key", "ctrl + c"), _argument("text", 5), _argument("pixels", -300)
    ('ctrl+c', 'ctrl+c', '5', '-')
    """
    amount = number(value)
    if name == "pixels":  # the way and not how far: nobody can see that
        return "+" if amount and amount > 0 else "-" if amount and amount < 0 else None
    if isinstance(value, list):
        parts = [_argument(name, item) for item in value if not isinstance(item, list)]
        return "+".join(filter(None, parts)) if all(parts) and len(parts) == len(value) else None
    if amount is not None:
        return str(value) if isinstance(value, int) else f"{amount:.15g}"
    if not isinstance(value, str):
        return None
    # Only what is typed is taken to the letter.
    return value.strip() if name == "text" else (normalized(value) or "").replace(" + ", "+")


@dataclass(eq=False, kw_only=True)
class ActionReward(GroundingReward[Action, Action]):
    """Pay an action on a screen for its kind, and for its kind with the right place and words (UI-R1).

    >>> reward = ActionReward()
    >>> gold = '{"action": "click", "bbox_2d": [0, 0, 10, 10]}'
    >>> hit, miss = ('{"action": "click", "coordinate": [%d, 5]}' % x for x in (5, 50))
    >>> reward([hit, miss, '{"action": "wait"}'], solution=[gold] * 3)
    [1.0, 0.5, 0.0]

    The score of an action is `type_weight` for its kind, and the rest if the kind and every argument of the gold are
    right, in [0, 1]. With the default of 0.5 that is UI-R1's sum of action type and coordinate, halved; its format
    part is `FormatReward`'s. InfiGUI-R1 uses 0.2.

    - A gold with a box is hit inside it or on its edge, one with a point within `radius` (in `gold_frame`).
    - A gold's `text` must be typed to the letter, but for white space around it; `direction`, `key`, `app`, `button`,
      `status` and `time` are compared without case, `pixels` by sign, and `coordinate2` is hit as a point is. Keys may
      be a list, "ctrl+c" or `["ctrl", "c"]`. What the gold does not give is not asked for: a `back` needs its kind
      only.
    - Any other key of a gold would go uncompared, so it cannot be scored, but for what a gold says of itself: `label`,
      `category`, `class`, `name`, `id`, `step`, `description`, `thought`, `reasoning`, `explanation`, `comment`,
      `instruction`.
    - Kinds have the usual synonyms: tap is click, input_text is type. Scroll and swipe differ.
    - Golds and answers may be lists: steps are compared in order and averaged over the longer list.

    `frame`, `gold_frame` and `opened` are as in `IoUReward`. Scores rows whose `task` is `action`; without a task,
    those whose gold names an action. An answer that holds no JSON action earns 0. A gold that cannot be read gets
    `None` and one warning with the row's id.
    """

    task_name = "action"
    read_answer = staticmethod(read_actions)
    type_weight: Annotated[float, "a number in [0, 1]", lambda value: 0 <= value <= 1] = 0.5
    radius: Positive = 30.0
    name: str = "action_reward"

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Action]:
        actions = gold_items(gold, _gold_actions_of, 'an action like {"action": "click", "bbox_2d": [...]}')
        if not actions:
            raise Unscorable("the gold holds no action")
        return actions

    def score(self, answer: list[Action], gold: list[Action], scale: FloatArray) -> float:
        steps = itertools.zip_longest(answer, gold)
        return sum(self._step(*step, scale) for step in steps) / max(len(answer), len(gold))

    def _step(self, answer: Action | None, gold: Action | None, scale: FloatArray) -> float:
        if answer is None or gold is None or answer.kind != gold.kind:
            return 0.0
        words_right = all(answer.arguments.get(name) == text for name, text in gold.arguments.items())
        right = words_right and all(
            wanted is None or self._hits(place, wanted, scale)
            for place, wanted in ((answer.place, gold.place), (answer.end, gold.end))
        )
        return 1.0 if right else self.type_weight

    def _hits(self, answer: Place | None, gold: Place, scale: FloatArray) -> bool:
        if answer is None:
            return False
        point = np.array([answer.numbers]) * scale
        return bool(point_credit(point, as_array([gold]), self.radius, soft=False).item())


action_reward = ActionReward()
