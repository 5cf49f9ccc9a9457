"""The rule scorer: what it reads, what it pays, and the page that says where it errs."""

from dataclasses import replace
from pathlib import Path

import pytest
import scorer_study as study
import yaml

from trl_onevision.bench import lmms_eval
from trl_onevision.bench.answer import Answer, question_of
from trl_onevision.bench.lmms_eval import harness
from trl_onevision.bench.score import final_answer, score
from trl_onevision.bench.tsv import BenchRow, read_tsv
from trl_onevision.rewards import accuracy_reward

DOCS = Path(__file__).parents[2] / "docs"
RIGHT = ["B", "4.5", "(A) red", "0.75", "B. a disc", "12 N", "D", "square"]
TASKS = ["choice", "number", "choice", "math", "choice", "number", "choice", "text"]


def scores(rows, said):
    return score(rows, [Answer(row.index, text, True) for row, text in zip(rows, said, strict=True)])


def test_every_kind_of_row_is_scored_by_its_rule(tsv):
    rows = read_tsv(tsv)
    assert [one.task for one in scores(rows, RIGHT)] == TASKS
    assert all(one.correct for one in scores(rows, [f"<answer>{text}</answer>" for text in RIGHT]))
    assert all(one.correct for one in scores(rows, RIGHT)), "without tags, by the last line"
    assert not any(one.correct for one in scores(rows, ["<answer>E</answer>"] * 8))
    assert not any(one.correct for one in scores(rows, [f"<think>{text}" for text in RIGHT])), (
        "never left its thinking"
    )


def test_the_scorer_and_the_reward_agree_on_what_is_stated(tsv):
    """The scorer pays all that the reward pays, and beyond it a free-form number with another unit alone."""
    rows = read_tsv(tsv)
    blind = [("4.5 m", "4.5 cm"), ("12 N", "12")]
    said = [*RIGHT, "4.5 m", "4,5", r"\frac{6}{8}", "A", "75%", "the disc", ""]
    for text in said:
        completion = f"<answer>{text}</answer>"
        paid = accuracy_reward(
            completions=[completion] * len(rows),
            solution=[row.answer for row in rows],
            task=TASKS,
            choices=[row.choices for row in rows],
        )
        for row, one, reward in zip(rows, scores(rows, [completion] * len(rows)), paid, strict=True):
            assert one.correct == (reward == 1) or (text, row.answer) in blind


def test_options_that_are_words_of_the_question_are_shown():
    """`3` and `5` stand in the sum: that lists no options."""
    row = BenchRow("1", "What is 3 + 5?", ["3", "5", "8"], "C", "College", "Math", "")
    assert question_of(row) == "What is 3 + 5?\nChoices:\nA. 3\nB. 5\nC. 8"
    shown = "What is 3 + 5?\n(A) 3\n(B) $5$\n(C) 8"
    assert question_of(replace(row, question=shown)) == shown


def test_a_gold_that_is_no_option_is_scored_as_free_form(tsv):
    row = replace(read_tsv(tsv)[0], answer="seven")
    (one,) = scores([row], ["<answer>Seven</answer>"])
    assert one.task == "text" and one.correct
    (letter,) = scores([replace(row, answer="E")], ["<answer>E</answer>"])  # of three options
    assert letter.task != "choice" and letter.correct


@pytest.mark.parametrize("text", ["", "\n \n", "<answer></answer>", "<think>", "</think>", "\x00", "B" * 100_000])
def test_odd_completions_score_and_never_raise(tsv, text):
    rows = read_tsv(tsv)[:4]
    assert not any(one.correct for one in scores(rows, [text] * 4))


def test_what_is_cut_has_no_last_line():
    assert final_answer("so it may be\nB", finished=False) == (None, "none")
    assert final_answer("<answer>B</answer> and", finished=False) == ("B", "stated")


def test_the_page_holds_the_study_as_it_is():
    page = (DOCS / "bench.md").read_text()
    assert "\n".join(study.table()) in page, "run python tests/bench/scorer_study.py and put it into docs/bench.md"


def test_the_rule_is_closer_to_a_reader_than_the_literal_reading():
    found = study.verdicts()
    assert sum(one.correct == case.right for case, one in found) > sum(
        one.literal == case.right for case, one in found
    )


class Loader(yaml.SafeLoader):
    """As lmms-eval reads a task: functions by their dotted path, from the file beside it."""


Loader.add_constructor("!function", lambda loader, node: getattr(harness, node.value.removeprefix("harness.")))


def test_the_harness_task_reads_rows_and_scores_as_the_command_does(tsv):
    """With the calls that lmms-eval makes; docs/bench.md says with which version the harness itself was run."""
    (folder,) = lmms_eval.__path__
    with Path(folder, "r1_onevision_bench.yaml").open() as file:
        task = yaml.load(file, Loader)
    assert task["output_type"] == "generate_until" and task["test_split"] == "train"
    rows = read_tsv(tsv)
    columns = ("index", "question", "answer", "level", "category", "image")
    listed = ["['1', '2', '3']", None, "['red', 'blue']", None, "['a square', 'a disc']", None, "A,B,C,D", None]
    docs = [
        {column: getattr(row, column) for column in columns} | {"choices": choices}
        for row, choices in zip(rows, listed, strict=True)
    ]
    assert all(task["doc_to_visual"](doc)[0].mode == "RGB" for doc in docs)
    assert task["doc_to_text"](docs[1]).startswith("Hint: Please answer the question and provide the final answer")
    assert task["doc_to_text"](docs[1]).endswith("<answer> </answer> tags.")
    for said in (RIGHT, RIGHT[::-1]):
        by_harness = [task["process_results"](doc, [text])["accuracy"] for doc, text in zip(docs, said, strict=True)]
        assert by_harness == [float(one.correct) for one in scores(rows, said)]
