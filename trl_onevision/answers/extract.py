"""A completion's text: what is thinking, and where the content states an answer. The only file that knows tags.

Thinking ends at the last `</think>`. A closed `<answer>` of the content goes before all else, and of several the last;
without one, boxes, headers ("Answer: 5"), sentences ("the answer is 5"), `#### 5` and headings count by their place:
the last that can be read as an answer; without any of these, the last line. Of nested ones the innermost counts. What
is opened and never closed states nothing, and a `<think>` swallows all that follows it. Tags are matched in any case,
without attributes.

A conversation counts as its last assistant message: what a tool or a user said is never the model's answer.

Everything here is linear in the length of the text and never raises, whatever the completion holds.
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from trl_onevision.answers.sentence import AFTERTHOUGHT, ANSWER_ABROAD, CHANGED, IS_ABROAD, SENTENCE_END
from trl_onevision.answers.stance import asserts, is_asserted, is_denied, is_guessed, is_hedged

# Literal tags and bounded repeats only: none of these can backtrack.
_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE | re.ASCII)
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{|\\.|[{}]", re.DOTALL)

_ANSWERS = f"answer|答案|最终答案|正确答案|回答|{ANSWER_ABROAD}"
_FINAL = r"(?:final|correct|right|best|closest|most\slikely)"
_NAMED = (
    r"(?:answer|option|choice)s?(?:\s{1,4}(?:option|letter|choice))?"
    r"(?:\s{1,4}(?:to|for)\s{1,4}[^.,;:!?\n]{1,60}?)?"
)
# "The answer is given in metres" says where an answer is and not what.
_NO_ANSWER = (
    r"(?!\s{0,4}(?:in|given|consistent|also|based|obtained|found|expressed|measured|supported|confirmed|clear|therefore"
    r"|the\ssame|as\sfollows|below|above|shown|verified)\b)"
)
# "Answer: 5", "**Final answer:** 5" at the start of a line; "so the answer is 5", "the correct option is (B)", "故选B"
# anywhere; "I choose B", "Answer is B" where a sentence begins, "It's B" where a line does; "#### 5"; a heading alone.
_STATED = re.compile(
    r"^(?!\n)[ \t>*#_-]{0,16}+(?:\\[(\[]\s{0,4})?(?:\\text(?:bf)?\s?\{)?(?:the\s{1,4})?"
    rf"(?:(?:final|correct)\s{{1,4}}){{0,2}}(?:{_ANSWERS})[\s*_]{{0,4}}(?:is|are|是|为)?[\s*_]{{0,4}}[:：][*_]{{0,4}}"
    + rf"|\b(?:the|my|our|final|correct|right)\s{{1,4}}(?:{_FINAL}\s{{1,4}}){{0,2}}{_NAMED}"
    + rf"\s{{1,4}}(?:is|are|(?:would|should|must)\s{{1,4}}be)\b{_NO_ANSWER}\s{{0,4}}[:：]?[*_]{{0,4}}"
    + r"|\banswer[*_]{0,4}\s?[:：][*_]{0,4}"
    + r"|(?:答案(?:选项)?(?:应该)?[是为选]|选项[是为]|(?:[故应]|所以|因此)选)\s{0,4}[:：]?[*_]{0,4}"
    + rf"|(?:{ANSWER_ABROAD})\s?(?:[a-z]{{1,12}}\s)?(?:{IS_ABROAD})\s{{0,4}}"
    + r"|(?:^|(?<=[.!?]\s))(?:so,?\s{1,4})?(?:I(?:['’]d|\swould|\swill)?\s(?:choose|pick|select|go\swith)|answer\sis)"
    + rf"\b{_NO_ANSWER}\s{{1,4}}|^it(?:['’]s|\sis)\b{_NO_ANSWER}\s{{1,4}}"
    + r"|^\#{4}[ \t]{1,8}(?!\D{0,40}[:：])"
    + r"|^(?:[ \t#*_]{0,12}(?:the\s)?(?:final|correct)\s|(?:\#{1,6}[ \t]|\*\*)(?:the\s)?)"
    + r"(?:answer|option)[*_ \t]{0,8}\n\s{0,40}(?:[-*•][ \t])?",
    re.IGNORECASE | re.MULTILINE,
)
# "Solution: 5" may state the answer, but what begins there is more often the way to it.
_SOLUTION = re.compile(r"(?im)^[ \t>*#_-]{0,16}+solution[\s*_]{0,4}(?:is)?[\s*_]{0,4}[:：][*_]{0,4}")
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
# The last sentence of an answer block, where it draws the conclusion.
_CONCLUSION = re.compile(
    r"(?:therefore|thus|hence|so)\b,?\s{0,4}|(?:因此|所以)[,，]?|(?:since|given(?:\sthat)?|after|because)\s[^.!?]{1,200},\s"
    r"(?:then\s|we\s(?:can\s)?(?:deduce|conclude|find|see|know|get)\sthat\s)?",
    re.IGNORECASE,
)
_SUMS_UP = re.compile(r"(?i)(?=(?:there\s(?:is|are|was|were)|the\s[^\d]{1,80}\s(?:is|was))\s)")
# A content that says "<answer>" or "\\boxed" and closes none states nothing.
_FORM = re.compile(r"</?answer>|\\(?:boxed|fbox)", re.IGNORECASE)
_COURTESY = re.compile(
    r"\n[^\S\n]*+(?:I hope (?:this|it)|(?:please )?let me know|(?:is there|do you|would you|can I)[^\n?]{0,100}\?)"
    r"[^\n]*\Z",
    re.IGNORECASE,
)
_LEADS_ON = re.compile(r"(?:\S+\s+){3}|[\]:：}$]\Z")  # a sentence or a formula
_LABEL_ALONE = re.compile(r"\W{0,4}[A-Z]\W{0,4}")
_OPTION = re.compile(r"\W{0,4}[A-Z][).:、]")
_ITEM = re.compile(r"\W{0,4}\d{1,3}[).:、]\s{0,4}[^\W\d_]")  # "3. We add"
_LEAVES_OPEN = re.compile(
    r"\A\W*(?:if|when|where|for|let|suppos\w*|assum\w*|in\s(?:the\s|this\s)?case|unless|otherwise|provided|one|another|some|case|step)\b"
    r"|\b(?:possib\w+|potential\w*|candidates?|options|choices|examples?|hints?|notes?|recall|remember)\b"
    r"|[若如]果?|假设|否则|当|选项有|候选|提示|注意|例",
    re.IGNORECASE,
)
# What is behind an answer is tried from its start alone: a run of white space inside of a text has thousands of ends.
_END_OF_TURN = re.compile(r"(?<!\s)(?<!</s>)(?<!\|>)(?<!<eos>)(?:</s>|<\|[a-z_]{1,20}\|>|<eos>|\s)++\Z")
_CLAUSE_END = re.compile(r"(?<!e\.g)\.(?!\w)|[,;:!?。，；：！？\n]")
# A box is a part of the formula that it stands in: "x + \boxed{3}", "\sqrt{\boxed{3}}", "\boxed{3}^2".
_OPERATOR_BEFORE = re.compile(
    r"(?:[-+]|[\d)}]\s?\(|~~|cancel\{|sout\{)\Z|(?:(?:(?<![A-Za-z])[A-Za-z]|[\d)}\]])\s?[-+*]\s|[\^_]\{?|√|\S\s?(?<![-=])[<>≤≥≠]"
    r"|\\(?:cdot|times|pm|[gl]eq?|neq?|sqrt|log|ln|sin|cos|tan|[dt]?frac\s?(?:\{[^{}]{0,40}\}\s?)?)\s?\{?)\s?\Z"
)
_GOES_ON = re.compile(
    r"\{|\$?\s?(?:\^|/\s?[\d\\(a-z]|\\(?:cdot|times|pm|sqrt|[dt]?frac|pi)(?![a-z])|[-+*]\s?(?:[\d\\(]|[knxyz](?![A-Za-z])))"
    r"|[knxyz](?![A-Za-z])|\$?\s?\?|[^\w.\n]{0,6}(?:(?:if|unless|but(?!\snot)|al?though"
    r"|at\s(?:least|most)|etc|and\s(?:so\s(?:on|forth)|others|more))\b|[吗嗎]|等)",
    re.IGNORECASE,
)
# "\boxed{1} or \boxed{2}", "x = \boxed{1}, y = \boxed{2}" are one list.
_JOINT = re.compile(r"\}[ $]*(,|;|/|&|\band\b|\bor\b|[和或与、])?[ $]*(?:\\?[a-zA-Z]\w{0,3}\s?=\s?)?")
# What is said of a box right behind it: "is the wrong answer", "doesn't fit", "✗"; not what else its sentence tells.
_JUDGED = re.compile(
    r"[^\w\n,.;]{0,6}(?:(?:is|are|was|were|would|could|can|must|may|might|seems?|looks?)\s(?:\S+\s){0,2})?\S*"
)
_STATES = re.compile(
    r"(?:\b(?:is|are|was|were|equals|equal\sto|gives?|get)(?:\s(?:the|only|just|exactly|about|approximately|option))*|[=:≈])"
    r"[\s$*\\(\[]*\Z"
)
# "Ten times the answer is 18", "2 more than the answer is 18"
_OF_THE_ANSWER = re.compile(r"\b(?:of|than|times|twice|half|double|triple|minus|plus)\s*\Z", re.IGNORECASE)
_DENIED_OPINION = re.compile(
    r"(?:n['’]t|not|never|nobody|no\sone|hardly)\s(?:\w+\s){0,3}?(?:think|believe|say|claim|sure|certain|true|the\scase|mean)"
    r"|\b(?:doubt|(?:false|wrong|untrue)\sthat|if|suppose|assum\w+|at\sfirst|some|people|others|maybe|perhaps|possibly)\b",
    re.IGNORECASE,
)
CLAUSE = 80
LONGEST_LINE = 600  # characters of a line that is itself an answer
MOST_STATEMENTS = 12  # the last ones are what may be read


class Split(NamedTuple):
    """What a completion thought (`None` where it shows no thinking) and what it says."""

    thinking: str | None
    content: str


class Statement(NamedTuple):
    """An answer as it is stated, and where its statement starts, where the answer itself starts and ends."""

    text: str
    start: int
    begin: int
    end: int


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
    >>> answer_text("It is a prime.\n**Answer:** 43. Wait. The answer is 47.")
    '47'
    >>> answer_text("43, I guess") is None
    True
    """
    return next(iter(_announced(split(completion, opened=opened).content, lists=False)), None)


def answers(completion: Any, *, opened: bool = False) -> list[str]:
    """Return what a completion states as its answer, the last first: a reader takes the first that it can read.

    >>> answers("Answer: 6" + chr(10) + "The answer is a whole number.")
    ['a whole number', '6']
    >>> answers("(B) red"), answers("We add 1 and 2." + chr(10) * 2 + "Therefore, the sum is 3.")
    (['', '(B) red'], ['', 'Therefore, the sum is 3.', 'the sum is 3.'])

    Where nothing announces one, that is "", and behind it stands the last line where it is alone, and its conclusion.
    """
    content = split(completion, opened=opened).content
    announces = tagged(content) is not None or _STATED.search(content) or _FORM.search(content)
    return _announced(content) or ([] if announces else ["", *_last_line(content)])


def _announced(content: str, lists: bool = True) -> list[str]:
    block = tagged(content)
    found = [statement.text for statement in statements(content if block is None else block, lists=lists)]
    if block is not None:
        found += [block, *_conclusion(block)]
    elif not found:
        found = [_stated(content, match.end(), 0).text for match in deque(_SOLUTION.finditer(content), 1)]
    found = [unwrapped(_END_OF_TURN.sub("", text).strip()) for text in found]
    return [text for text in found if text]


def _last_line(content: str) -> list[str]:
    """The last line where it is all there is, or a paragraph behind a sentence or a formula; and its conclusion."""
    content = _COURTESY.sub("", _END_OF_TURN.sub("", content[-4 * LONGEST_LINE :].strip())).strip()
    before, _, line = content.rpartition("\n")
    lead = before[-LONGEST_LINE:].strip().rpartition("\n")[2]
    if lead.endswith((":", "：")):
        last = re.split(r"[.!?]\s", lead)[-1]
        if not is_asserted(last) or _LEAVES_OPEN.search(last):  # "The wrong ones are:", "If x > 0:"
            return []
    apart = before.endswith("\n") or _LABEL_ALONE.fullmatch(line)
    alone = not _ITEM.match(line) and (not before or (apart and _LEADS_ON.search(lead) and not _OPTION.match(lead)))
    return [unwrapped(line)] * (len(line) <= LONGEST_LINE and bool(alone)) + _conclusion(content)


def _conclusion(text: str) -> list[str]:
    *before, last = re.split(r"(?<=[.!?])\s|\n|(?<=。)", text[-300:].strip().rstrip("。"))
    drawn = _CONCLUSION.match(last) or (before and _LEADS_ON.search(before[-1]) and _SUMS_UP.match(last))
    return [last[drawn.end() :]] if drawn and not is_guessed(drawn[0]) else []


def unwrapped(text: str) -> str:
    """Return the value of a JSON object that holds one and nothing else: `{"answer": "B"}`.

    >>> unwrapped('{"answer": "B"}'), unwrapped('{"x": 1, "y": 2}'), unwrapped("B")
    ('B', '{"x": 1, "y": 2}', 'B')
    """
    if text.startswith("{") and text.endswith("}") and len(text) < 2000:
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(fields, dict) and len(fields) == 1:
            ((name, value),) = fields.items()
            if isinstance(value, str | int | float) and is_asserted(name):
                return str(value)
    return text


def statements(text: str, *, lists: bool = True) -> list[Statement]:
    r"""Return the places where a text states an answer, the last first; with `lists` boxes side by side are one.

    >>> [statement.text for statement in statements(r"First \boxed{5}. After checking, the final answer is 6.")]
    ['6', '5']
    """
    found = [_stated(text, match.end(), match.start()) for match in deque(_STATED.finditer(text), MOST_STATEMENTS)]
    for start, begin, end in boxes(text)[-MOST_STATEMENTS:]:
        before = found[-1] if found else None
        if lists and before and before.end < start and (joint := _JOINT.fullmatch(text, before.end, start)):
            said = (
                before.text if before.text == text[begin:end] else f"{before.text}{joint[1] or ','} {text[begin:end]}"
            )
            found[-1] = Statement(said, before.start, begin, end)
        else:
            found.append(Statement(text[begin:end], start, begin, end))
    meant = [statement for statement in found if _is_meant(text, statement)]
    return sorted(meant, key=lambda statement: statement.begin, reverse=True)


def _is_meant(text: str, statement: Statement) -> bool:
    r"""Whether a statement stands: "not \boxed{6}", "x + \boxed{6}", "The answer is 6. No, 7" state no 6."""
    is_box = text.startswith(("\\boxed", "\\fbox"), statement.start)
    behind = statement.end + is_box
    before = _CLAUSE_END.split(text[max(0, statement.start - CLAUSE) : statement.start])[-1]
    if AFTERTHOUGHT.match(text, behind) or is_guessed(
        _CLAUSE_END.split(text[behind : behind + CLAUSE].lstrip(" .,;)}$("))[0]
    ):
        return False
    if CHANGED.search(before):
        return False
    if not is_box:
        unsaid = is_denied(before) or is_hedged(before) or _DENIED_OPINION.search(before)
        return not (unsaid or _OF_THE_ANSWER.search(before))
    if _OPERATOR_BEFORE.search(before) or _GOES_ON.match(text, behind) or not asserts(text, statement.start, behind):
        return False
    judged = _JUDGED.match(text[behind : behind + CLAUSE])
    if judged and (is_denied(judged[0]) or is_hedged(judged[0])):
        return False
    if _STATES.search(before):  # of "the number that he cannot reach is \boxed{6}" only an opinion counts
        return _DENIED_OPINION.search(before) is None
    return is_asserted(before)


def _stated(text: str, begin: int, start: int) -> Statement:
    """The answer that begins somewhere: a formula of its own, or the line up to the end of the sentence."""
    begin += len(text[begin : begin + 200]) - len(text[begin : begin + 200].lstrip())
    for opening, closing in (("$$", "$$"), ("\\[", "\\]"), ("```", "```")):
        inside = begin + len(opening)
        if text.startswith(opening, begin) and (end := text.find(closing, inside)) >= 0:
            return Statement(text[inside:end], start, begin, end + len(closing))
    end = text.find("\n", begin)
    line = text[begin : len(text) if end < 0 else end]
    sentence_end = SENTENCE_END.search(line)
    if sentence_end:
        line = line[: sentence_end.start() + (sentence_end[0][0] == "?")]
    said = _balanced(line.lstrip(" \t*_")).rstrip(" \t*_.。")
    return Statement(said, start, begin, begin + len(line))


def _balanced(text: str) -> str:
    """A text up to a brace that closes what was opened before it: of `\text{Answer: D}` the "D"."""
    depth = 0
    for index, one in enumerate(text[:2000]):
        depth += (one == "{") - (one == "}")
        if depth < 0:
            return text[:index]
    return text


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
    span = tagged_span(text)
    return None if span is None else text[span[1] : span[2]]


def tagged_span(text: str) -> tuple[int, int, int] | None:
    """Return where the last closed `<answer>` of a text starts, and its inside from start to end.

    >>> tagged_span("<answer>1</answer>")
    (0, 8, 9)
    """
    opening, span = None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            opening = tag
        elif opening is not None:
            span, opening = (opening.start(), opening.end(), tag.start()), None
    return span


def boxed(text: str) -> str | None:
    r"""Return the inside of the last balanced `\boxed{}` of a text, innermost if nested.

    >>> boxed(r"\boxed{1} \boxed{\{2\}, {3}} \boxed{4")
    '\\{2\\}, {3}'
    """
    found = boxes(text)
    return text[found[-1][1] : found[-1][2]] if found else None


def boxes(text: str) -> list[tuple[int, int, int]]:
    r"""Return each balanced `\boxed{}` of a text, by the place of its inside: where it, its inside and that end start.

    >>> boxes(r"\boxed{1}")
    [(0, 7, 8)]
    """
    start = max(0, min((at for at in (text.find("\\boxed"), text.find("\\fbox")) if at >= 0), default=len(text)))
    depth = 0
    found: list[tuple[int, int, int]] = []
    opened: list[tuple[int, int, int]] = []  # depth outside, start, start of the inside of each box still open
    for token in _BOX_TOKEN.finditer(text, start):
        match token[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if opened and depth == opened[-1][0]:
                    _, box, inside = opened.pop()
                    found.append((box, inside, token.start()))
            case box if box.endswith("{") and box != "\\{":
                opened.append((depth, token.start(), token.end()))
                depth += 1
    return sorted(found, key=lambda box: box[1])


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
