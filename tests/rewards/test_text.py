import pytest

from trl_onevision.answers.extract import answer_block, answer_text, boxed, full_text, split, tagged


def message(content, **fields):
    return [{"role": "assistant", "content": content, **fields}]


@pytest.mark.parametrize(
    ("completion", "thinking", "content"),
    [
        ("<think>a</think>b", "a", "b"),
        ("a</think>b", "a", "b"),  # the chat template opened the tag
        ("<THINK>a</Think>b", "a", "b"),
        ("<think>a</think>b</think>c", "a</think>b", "c"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a", "a", ""),
        ("42 <think>a", "a", ""),
        ("<think>a</think>b<think>c", "a</think>b<think>c", ""),
        ("b", None, "b"),
        ("", None, ""),
        (message("<think>a</think>b"), "a", "b"),
        (message([{"type": "text", "text": "<think>a</think>"}, {"type": "text", "text": "b"}]), "a", "b"),
        (message([{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "b"}]), "a", "b"),
        (message(["<think>a</think>", "b"]), "a", "b"),
        (message("b", reasoning_content="a"), "a", "b"),
        (message("b", reasoning="a"), "a", "b"),
        (message("b", thinking="a"), "a", "b"),
        (message(None, reasoning_content="a"), "a", ""),
        (message("b", reasoning_content=None), None, "b"),
        ({"role": "assistant", "content": "b"}, None, "b"),
        ([{"content": "b"}], None, "b"),
    ],
)
def test_split(completion, thinking, content):
    assert split(completion) == (thinking, content)


def test_a_conversation_counts_as_its_last_assistant_message():
    turns = [
        {"role": "assistant", "content": "<answer>1</answer>"},
        {"role": "tool", "content": "<answer>2</answer>"},
    ]
    assert answer_text(turns) == "1"
    assert answer_text([*turns, {"role": "assistant", "content": "<answer>3</answer>"}]) == "3"
    assert full_text([{"role": "user", "content": "<answer>1</answer>"}]) == ""


def test_thinking_opened_by_the_template_and_cut_off():
    assert split("the answer is 42", opened=True) == ("the answer is 42", "")
    assert answer_text("the answer is 42", opened=True) is None
    assert answer_text("6 x 7</think>the answer is 42", opened=True) == "42"


ODD = [None, 3, 2.5, True, b"x", {}, [], [None], [[]], [{}], {"content": 3}, message({"a": 1}), message([None, 3, {}])]


@pytest.mark.parametrize("completion", [*ODD, message([{"type": "image"}]), message([{"type": "text", "text": None}])])
def test_odd_completions_are_empty(completion):
    assert split(completion) == (None, "")
    assert answer_text(completion) is None
    assert answer_block(completion) == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>42</answer>", "42"),
        ("<answer>\n 42 \n</answer>\n", "42"),
        ("<ANSWER>42</ANSWER>", "42"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer><answer>2", "1"),
        ("<answer>1</answer> 2</answer>", "1"),
        ("<answer>1<answer>2</answer></answer>", "2"),
        ("<answer></answer>", None),
        ("<answer>1", None),
        (r"<answer>\boxed{42}</answer>", "42"),
        (r"\boxed{41} <answer>42</answer>", "42"),
        ("<answer>The answer is B</answer>", "B"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"$$\boxed{\{1, 2\}}$$", r"\{1, 2\}"),
        ("Answer: 42", "42"),
        ("Answer: .5", ".5"),
        ("**Answer:** 42.", "42"),
        ("**Final Answer**: **B**", "B"),
        ("Some text.\n\n### The final answer is:\n 42\n", "42"),
        ("So the answer is (B).", "(B)"),
        ("The answer is 42. I hope it helps.", "42"),
        ("The correct option is C", "C"),
        ("the answer to the question is 5", "5"),
        ("The answer is 1. Wait. The answer is 2.", "2"),
        ("Answer: 5\nThis answer is consistent with the figure.", "5"),
        ("Answer: 5\nSo the answer is in line with the figure.", "5"),
        ("**Solution:**\nWe have x = 5 + 3.\nSo the answer is 8.", "8"),
        ("Solution: We add.\nAnswer: 8", "8"),
        ("Answer: 8\nSolution: We add.", "8"),
        ("Solution: 8", "8"),
        ("Answer: St. Louis", "St. Louis"),
        ("The answer is Dr. Smith.", "Dr. Smith"),
        ("**Answer:** J. K. Rowling", "J. K. Rowling"),
        ("Answer: U.S. Army", "U.S. Army"),
        ("The answer is George W. Bush. He won.", "George W. Bush"),
        ("The answer is 5 cm. The rest is noise.", "5 cm"),
        ("The answer is A. Because it is red.", "A"),
        ("The answer is A. B is blue.", "A"),
        ("The answer is A. I hope it helps.", "A"),
        ("The answer is Washington, D.C. It is red.", "Washington, D.C"),
        ("The answer is red! Great.", "red"),
        ("The answer is Yes. Dogs bark.", "Yes"),
        ("答案：B", "B"),
        ("所以答案是B。", "B"),
        ("Ответ: 5", "5"),
        ("Answer:\n$$\n\\frac12\n$$", r"\frac12"),
        ("42", None),
        ("I think it is 42", None),
        ("<think><answer>42</answer></think>", None),
        (r"<think>\boxed{42}</think> done", None),
        ("<think>a</think><answer>42</answer><think>", None),
    ],
)
def test_answer_text(text, answer):
    found = answer_text(text)
    assert (found.strip() if found else found) == answer


def test_answer_block_falls_back_to_the_whole_content():
    assert answer_block("<think>x</think> [1, 2]") == "[1, 2]"
    assert answer_block("<think>x</think> noise <answer>[1, 2]</answer>") == "[1, 2]"
    assert tagged("no tags") is None
    assert boxed("no box") is None


PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<answer></answer>", r"\boxed{", r"\boxed{}", "{", "{}", "\\",
    "answer: ", "Answer", "the answer is ", "the   ", "\n", "\n ", "* ", "# ", "<", "答案", ". A", "$$",
    " ", "</s>", "<|im_end|>", "\nI hope ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("head", "tail"), [("", ""), ("", "x"), (r"\boxed{", ""), ("<answer>", ""), ("the answer is ", "")]
)
def test_a_megabyte_of_the_worst_text_is_read_in_time_that_grows_with_it(head, piece, tail, linear):
    for read in (answer_text, answer_block):
        linear(lambda body, read=read: read(head + body + tail), piece * (1_000_000 // len(piece)))
