"""A completion's text: what is thinking, what is the answer. The only file that knows tags.

One policy for everything that may repeat: **the last complete one counts**. Thinking ends at the last `</think>`, the
answer is the last closed `<answer>`, the last balanced `\\boxed{}`, the last closing header. Of nested ones the
innermost counts. What is opened and never closed does not exist, except a `<think>`: it swallows all that follows it.
Tags are matched in any case and without attributes.

A conversation counts as its last assistant message: what a tool or a user said is never the model's answer.

Everything here is linear in the length of the text and never raises, whatever the completion holds.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

# Literal tags and bounded repeats only: none of these can backtrack.
_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE | re.ASCII)
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{|\\.|[{}]", re.DOTALL)

_HEADER_LINE = (
    r"^(?!\n)[ \t>*#_-]{{0,16}}+(?:the\s{{1,4}})?(?:final\s{{1,4}}|correct\s{{1,4}})?(?:{words})"
    r"[\s*_]{{0,4}}(?:is|are|是|为)?[\s*_]{{0,4}}[:：][*_]{{0,4}}"
)
_ANSWERS = "answer|答案|最终答案|正确答案|回答|答え|정답|답|ответ|respuesta|réponse|resposta|antwort|risposta"
# "Answer: 5", "**Final answer:** 5", "### The final answer is: 5", "答案：5", at the start of a line.
_HEADER = re.compile(_HEADER_LINE.format(words=_ANSWERS), re.IGNORECASE | re.MULTILINE)
# "Solution: 5" may state the answer, but what begins there is more often the way to it.
_SOLUTION = re.compile(_HEADER_LINE.format(words="solution"), re.IGNORECASE | re.MULTILINE)
# "... so the answer is 5", "the correct option is (B)", "答案是 5", anywhere.
_SENTENCE = re.compile(
    r"(?:\b(?:the|my|our|final|correct)\s{1,4}(?:final\s{1,4}|correct\s{1,4})?(?:answer|option|choice)"
    r"(?:\s{1,4}to\s{1,4}(?:the|this)\s{1,4}(?:question|problem))?"
    r"\s{1,4}(?:is|are|would\s{1,4}be|should\s{1,4}be)\b|\banswer[*_]{0,4}\s?[:：]|答案(?:应该)?[是为选])\s{0,4}[:：]?[*_]{0,4}",
    re.IGNORECASE,
)
# "B. The", "5 cm. So", but not "St. Louis", "J. K. Rowling", "U.S. Army": behind a title or a lone capital a sentence
# ends only where the next word is one that sentences begin with.
_OPENERS = (
    "The|This|That|These|Those|There|Here|It|Its|He|She|They|We|You|My|Our|Because|Since|As|So|Therefore|Thus|Hence|"
    "However|But|And|If|In|On|At|By|For|From|With|To|Of|An|Let|Note|Wait|When|While|Both|All|Only|Each|Other"
)
_TITLES = ("St", "Dr", "Mr", "Ms", "Mt", "Ft", "Lt", "Jr", "Sr", "vs", "Mrs", "Gen", "Col", "Rev", "Prof", "Capt")
_BEHIND_NO_TITLE = "".join(rf"(?<!\b{title})" for title in ("[A-Z]", *_TITLES))
_SENTENCE_END = re.compile(
    rf"[.!?]\s(?=\s{{0,4}}(?:(?:{_OPENERS})\b|[A-J](?:\)|\s[a-z])))"
    rf"|(?:[!?]|{_BEHIND_NO_TITLE}\.)\s(?=\s{{0,4}}[A-Z])|[。！？]"
)
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


class Split(NamedTuple):
    """What a completion thought (`None` where it shows no thinking) and what it says."""

    thinking: str | None
    content: str


def full_text(completion: Any) -> str:
    """Return all that the model wrote, with reasoning that a parser split off put back in think tags.

    >>> full_text([{"role": "assistant", "reasoning_content": "6 x 7", "content": "42"}])
    '<think>6 x 7</think>42'
    >>> full_text([{"role": "assistant", "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}])
    '42'

    Takes a plain string, one message, or a list of messages, of which the last assistant message counts. Anything else
    is the empty text.
    """
    if isinstance(completion, str):
        return completion
    message = _last_assistant_message(completion)
    if message is None:
        return ""
    blocks = list(_blocks(message.get("content")))
    thoughts = [thought for thought in map(message.get, _REASONING_FIELDS) if isinstance(thought, str)][:1]
    thoughts += [text for is_thought, text in blocks if is_thought]
    said = "".join(text for is_thought, text in blocks if not is_thought)
    thinking = "\n".join(thought for thought in thoughts if thought)
    return f"<think>{thinking}</think>{said}" if thinking else said


def split(completion: Any, *, opened: bool = False) -> Split:
    """Separate a completion's thinking from its content: only the content is ever paid.

    >>> split("<think>6 x 7</think> 42")
    Split(thinking='6 x 7', content=' 42')
    >>> split("6 x 7</think> 42")  # the chat template opened the tag
    Split(thinking='6 x 7', content=' 42')
    >>> split("<think>so the answer is 42")  # cut off while thinking
    Split(thinking='so the answer is 42', content='')
    >>> split("42")
    Split(thinking=None, content='42')

    The content is what follows the last `</think>`; a `<think>` after that leaves none. Where the chat template opens
    the thinking, a completion cut off before `</think>` shows no tag at all: `opened=True` reads it as thinking.
    """
    text = full_text(completion)
    first = last = None
    for last in _THINK_TAG.finditer(text):  # not listed: a text of nothing but tags would keep the collector busy
        first = first or last
    if first is None or last is None:
        return Split(text, "") if opened else Split(None, text)
    thinking_starts = 0 if first[1] else first.end()
    if not last[1]:
        return Split(text[thinking_starts:], "")
    return Split(text[thinking_starts : last.start()], text[last.end() :])


def answer_text(completion: Any, *, opened: bool = False) -> str | None:
    r"""Return the final answer as the model stated it, or `None` where it stated none.

    >>> answer_text("<think>41?</think><answer> 42 </answer>")
    '42'
    >>> answer_text(r"so \boxed{41}, no, \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    >>> answer_text("It is a prime.\n**Answer:** 43.")
    '43'
    >>> answer_text("43, I guess") is None
    True

    The last `<answer>` of the content; where there is none, the last `\boxed{}`; where there is none, what follows a
    closing "Answer:" or "The answer is". A box or a header inside the `<answer>` is unwrapped.
    """
    content = split(completion, opened=opened).content
    block = tagged(content)
    if block is not None:
        return (boxed(block) or _after_header(block) or block).strip() or None
    stated = boxed(content)
    if stated is None:
        stated = _after_header(content)
    return (stated or "").strip() or None


def answer_block(completion: Any, *, opened: bool = False) -> str:
    """Return the inside of the last `<answer>`, else the whole content: where boxes, points and JSON are read.

    >>> answer_block("<think>[0, 0, 1, 1]</think><answer>[1, 2, 3, 4]</answer>")
    '[1, 2, 3, 4]'
    >>> answer_block("<think>[0, 0, 1, 1]</think> [1, 2, 3, 4]")
    '[1, 2, 3, 4]'
    """
    content = split(completion, opened=opened).content
    block = tagged(content)
    return (content if block is None else block).strip()


def tagged(text: str) -> str | None:
    """Return the inside of the last closed `<answer>` of a text, innermost if nested.

    >>> tagged("<answer>1</answer><answer>2</answer><answer>3")
    '2'
    """
    opening, inside = None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            opening = tag.end()
        elif opening is not None:
            inside, opening = text[opening : tag.start()], None
    return inside


def boxed(text: str) -> str | None:
    r"""Return the inside of the last balanced `\boxed{}` of a text, innermost if nested.

    >>> boxed(r"\boxed{1} \boxed{\{2\}, {3}} \boxed{4")
    '\\{2\\}, {3}'
    """
    start = text.find("\\boxed")
    if start < 0:
        start = text.find("\\fbox")
    if start < 0:
        return None
    depth = 0
    boxes: list[tuple[int, int]] = []  # (depth outside, start of the inside) of each box still open
    last = (-1, -1)
    for token in _BOX_TOKEN.finditer(text, start):
        match token[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if boxes and depth == boxes[-1][0]:
                    last = max(last, (boxes.pop()[1], token.start()))
            case box if box.endswith("{") and box != "\\{":
                boxes.append((depth, token.end()))
                depth += 1
    return None if last[0] < 0 else text[last[0] : last[1]]


def _last_assistant_message(completion: Any) -> dict | None:
    messages = [completion] if isinstance(completion, dict) else completion
    if not isinstance(messages, list | tuple):
        return None
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role", "assistant") == "assistant":
            return message
    return None


def _blocks(content: Any) -> Iterator[tuple[bool, str]]:
    """Yield `(is thinking, text)` for each textual block of a message's content."""
    for block in content if isinstance(content, list | tuple) else [content]:
        if isinstance(block, str):
            yield False, block
        elif isinstance(block, dict):
            is_thought = block.get("type") in ("thinking", "reasoning")
            keys = ("thinking", "reasoning", "text") if is_thought else ("text",)
            yield from ((is_thought, block[key]) for key in keys if isinstance(block.get(key), str))


def _after_header(text: str) -> str | None:
    """Return what follows the last "Answer:" line, else the last "the answer is", else the last "Solution:" line."""
    header = _last_match(_HEADER, text) or _last_match(_SENTENCE, text) or _last_match(_SOLUTION, text)
    if header is None:
        return None
    stated = text[header.end() :].strip()
    for opening, closing in (("$$", "$$"), ("\\[", "\\]")):
        if stated.startswith(opening) and closing in stated[2:]:
            return stated[2 : stated.index(closing, 2)]
    line = stated.partition("\n")[0]
    sentence_end = _SENTENCE_END.search(line)
    return line[: sentence_end.start() if sentence_end else None].lstrip(" \t*_").rstrip(" \t*_.。")


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None
