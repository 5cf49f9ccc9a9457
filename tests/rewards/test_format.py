import pytest

from trl_onevision.rewards.format import LAYOUTS, FormatReward, format_reward


def score(completion, *style, **options):
    (value,) = FormatReward(*style, **options)([completion])
    return value


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("\n <think>\na\n</think>\n\n<answer>\nb\n</answer>\n", 1),
        ("a</think><answer>b</answer>", 0),  # and the chat template did not open the tag
        ("<THINK>a</THINK><Answer>b</Answer>", 1),
        ([{"role": "assistant", "content": "<answer>b</answer>", "reasoning_content": "a"}], 1),
        ([{"role": "assistant", "content": [{"type": "text", "text": "<think>a</think><answer>b</answer>"}]}], 1),
        ("<think>a<b> < c</think><answer><b>b</b></answer>", 1),  # other tags are text
        ("<answer>b</answer>", 0),
        ("<think></think><answer>b</answer>", 0),
        ("</think><answer>b</answer>", 0),
        ("<think>a</think><answer> </answer>", 0),
        ("<think>a</think> so <answer>b</answer>", 0),
        ("so <think>a</think><answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer> done", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0),
        ("<think>a<think>b</think></think><answer>b</answer>", 0),
        ("<think>a<answer>b</answer></think>", 0),
        ("<think>a<answer>b</answer></think><answer>b</answer>", 0),
        ("<think>a</think><answer>b<think>c</think></answer>", 0),
        ("<think>a</think><answer>b", 0),
        ("<think>a", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_think_answer(completion, expected):
    assert format_reward([completion]) == [expected]


@pytest.mark.parametrize("completion", ["a</think><answer>b</answer>", "a</think> \\boxed{b}"])
def test_an_opening_tag_may_be_missing_where_the_template_wrote_it(completion):
    style = "boxed" if "boxed" in completion else "think_answer"
    assert score(completion, style) == 0
    assert score(completion, style, opened=True) == score(f"<think>{completion}", style, opened=True) == 1
    assert score(completion.replace("a", " "), style, opened=True) == 0
    assert score(completion.partition("</think>")[2], style, opened=True) == 0


@pytest.mark.parametrize("style", LAYOUTS)
def test_every_layout_accepts_itself_and_no_other_order(style):
    for layout in LAYOUTS[style]:
        filled = layout.replace("></", ">text</")
        assert score(filled, style) == score(filled, style, graded=True) == 1
        assert score(filled + "<answer>again</answer>", style) == 0
        blocks = filled.split("><")
        assert score("<answer>text</answer>" + filled.replace("<answer>text</answer>", ""), style) == 0, blocks


@pytest.mark.parametrize("unseen", ["\u200b", "\u2060\ufeff", "\xa0 \u3000", "\x00"])
def test_what_nobody_sees_fills_no_block(unseen):
    assert (
        score(f"<think>{unseen}</think><answer>b</answer>") == score(f"<think>a</think><answer>{unseen}</answer>") == 0
    )


def test_observation_before_or_inside_the_thinking():
    assert score("<observe>o</observe><think>t</think><answer>a</answer>", "observe_think_answer") == 1
    assert score("<think><observe>o</observe>t</think><answer>a</answer>", "observe_think_answer") == 1
    assert score("<observe>o</observe>t</think><answer>a</answer>", "observe_think_answer") == 0
    assert score("<think>t</think><observe>o</observe><answer>a</answer>", "observe_think_answer") == 0
    assert score("<observe>o</observe>t</think><answer>a</answer>", "observe_think_answer", opened=True) == 1


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (r"<think>a</think> so \boxed{42}.", 1),
        (r"<think>a</think> \boxed{\frac{1}{2}}", 1),
        (r"a</think> \boxed{\frac{1}{2}}", 0),
        (r"so \boxed{42}.", 0),
        (r"<think>a</think> \boxed{}", 0),
        (r"<think>a</think> \boxed{1} \boxed{2}", 0),
        (r"<think>a</think> \fbox{1} \boxed{2}", 0),
        (r"<think>a</think> \fbox{1}", 0),
        ("<think>a</think> \\boxed{\u200b}", 0),
        (r"<think>\boxed{1}</think> 1", 0),
        (r"<think>a</think> \boxed{1", 0),
        ("", 0),
    ],
)
def test_boxed(completion, expected):
    assert score(completion, "boxed") == expected


def test_json():
    fields = {"bbox_2d": list, "label": str, "score": (int, float)}
    good = '[{"bbox_2d": [1, 2, 3, 4], "label": "cat", "score": 0.5}]'
    for dress in ("{}", "<answer>{}</answer>", "<think>x</think><answer>```json\n{}\n```</answer>", "x</think>\n{}\n"):
        assert score(dress.replace("{}", good), "json", fields=fields) == 1
    assert score(good.replace("0.5", "true"), "json", fields=fields) == 0
    assert score(good.replace('"cat"', "7"), "json", fields=fields) == 0
    assert score(good.replace("0.5", "NaN"), "json", fields=fields) == 0
    assert score(f"boxes: {good}", "json", fields=fields) == 0
    assert score("[1, 2]", "json", fields=fields, graded=True) == pytest.approx(1 / 3)
    assert score('{"label": "cat"}', "json", fields=fields, graded=True) == pytest.approx(2 / 3)
    assert score("[1, 2]", "json") == 1
    assert score("[" * 100_000, "json") == 0
    assert score("[1]", "json", opened=True) == 0, "thinking that was cut off"
    assert score("so</think>[1]", "json", opened=True) == 1


@pytest.mark.parametrize(
    ("kinds", "right", "wrong"),
    [
        ((bool, str), ["true", "false", '"yes"'], ["1", "null"]),
        (bool, ["true"], ["1", '"true"']),
        (int, ["1"], ["true", "1.0"]),
        ((int, float), ["1", "1.5"], ["true"]),
    ],
)
def test_true_is_a_bool_and_no_number(kinds, right, wrong):
    paid = [score(f'{{"ok": {value}}}', "json", fields={"ok": kinds}) for value in [*right, *wrong]]
    assert paid == [1] * len(right) + [0] * len(wrong)


def test_steps():
    text = "### Image Description: d\n### Rationales: r\n### Step 1: s\n### Step 2: s\n### The final answer is: 5"
    assert score(text, "steps") == 1
    assert score(text.replace("Step 2", "Step 3"), "steps") == 0
    assert score(text.replace("Step 2", "Step 3"), "steps", graded=True) == pytest.approx(3 / 5)


def test_tags_of_ones_own():
    assert score("<plan>p</plan><code>c</code>", ("plan", "code")) == 1
    assert score("<code>c</code><plan>p</plan>", ["plan", "code"]) == 0
    assert score("<code>c</code><plan>p</plan>", ["plan", "code"], graded=True) == 0.5


def test_graded_pays_for_each_part_of_the_structure():
    parts = ["", "<think>a</think>", "<think>a</think><answer>b", "<think>a</think>x<answer>b</answer>"]
    shares = [score(part, graded=True) for part in parts]
    assert shares == [0, 0.25, 0.25, 0.75]


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"expected one of think_answer, .* or a list of tags"):
        FormatReward("thinking")
    with pytest.raises(ValueError, match="names of tags"):
        FormatReward(("a b",))
    with pytest.raises(ValueError, match="style='json'"):
        FormatReward(fields={"a": int})
