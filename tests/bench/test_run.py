"""`trl-onevision bench` with a tiny Qwen2.5-VL: what it leaves, how it goes on, what it refuses."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import published
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from trl_onevision.bench.answer import RELEASED, BenchError, Questions
from trl_onevision.bench.run import MAX_PIXELS, bench
from trl_onevision.bench.tsv import read_tsv
from trl_onevision.chat import Chat
from trl_onevision.cli import app
from trl_onevision.data.sources import SourceError
from trl_onevision.engine import Local

SMALL = ["--max-new-tokens", "12", "--batch-size", "3", "--dtype", "float32"]


def command(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(folder):
    return lines(folder / "predictions.jsonl")


def kept_in(folder):
    """How many answers a run has kept."""
    if not (folder / "answers.sqlite").exists():
        return 0
    with sqlite3.connect(folder / "answers.sqlite", timeout=30) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        return database.execute("SELECT count(*) FROM replies").fetchone()[0] if tables else 0


def said(model, tsv, cache, **settings):
    """What a checkpoint answers, row by row."""
    questions = Questions(read_tsv(tsv), "think-answer", MAX_PIXELS)
    engine = Local(str(model), replace(RELEASED, max_new_tokens=8, dtype="float32", **settings), cache)
    engine.ask(questions, Console(quiet=True))
    return [engine.replies(asked)[0].text for asked in questions.prompts]


@pytest.fixture(scope="module")
def finished(checkpoint, tsv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "run"
    result = command("--model", checkpoint, "--data", tsv, "--output", folder, *SMALL)
    assert result.exit_code == 0, result.output
    return folder


def test_leaves_answers_scores_table_report_and_picture(finished):
    assert {path.name for path in finished.iterdir()} == {
        "run.json",
        "answers.sqlite",
        "predictions.jsonl",
        "scores.jsonl",
        "results.json",
        "report.md",
        "heatmap.png",
    }
    assert [answer["index"] for answer in answered(finished)] == [str(n) for n in range(1, 9)]
    assert len({answer["completion"] for answer in answered(finished)}) > 1, "the answers depend on the rows"
    scores = lines(finished / "scores.jsonl")
    figures = json.loads((finished / "results.json").read_text())
    assert figures["overall"]["right"] == sum(one["correct"] for one in scores)
    assert list(figures["cells"]) == ["Math", "Physics", "Deduction"]
    with Image.open(finished / "heatmap.png") as picture:
        assert min(picture.size) > 300
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20, "an empty picture"


def test_a_finished_run_is_scored_again_and_answered_no_more(finished, checkpoint, tsv):
    before = (finished / "predictions.jsonl").read_bytes(), (finished / "results.json").read_bytes()
    assert command("--model", checkpoint, "--data", tsv, "--output", finished, *SMALL).exit_code == 0
    assert ((finished / "predictions.jsonl").read_bytes(), (finished / "results.json").read_bytes()) == before


@pytest.mark.parametrize("kept", [1, 4, 7])
def test_a_run_that_crashed_goes_on_to_the_same_answers_and_table(finished, checkpoint, tsv, tmp_path, kept):
    """Cut anywhere, in the middle of a batch, and while it wrote its lines."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    with sqlite3.connect(folder / "answers.sqlite") as database:
        database.execute("DELETE FROM replies WHERE rowid > ?", (kept,))
    whole = (folder / "predictions.jsonl").read_bytes()
    (folder / "predictions.jsonl").write_bytes(whole[: len(whole) // 2])
    (folder / "results.json").unlink()
    assert command("--model", checkpoint, "--data", tsv, "--output", folder, *SMALL).exit_code == 0
    for name in ("predictions.jsonl", "results.json", "scores.jsonl", "report.md"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_ctrl_c_says_how_to_go_on_and_what_was_answered_is_kept(checkpoint, tsv, tmp_path):
    folder = tmp_path / "run"
    arguments = ["bench", "--model", checkpoint, "--data", tsv, "--output", folder, "--dtype", "float32"]
    arguments += ["--batch-size", "1", "--max-new-tokens", "400"]
    code = "from trl_onevision.cli import app; app()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not kept_in(folder):
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 1
    assert "The same command goes on." in said.replace("\n", " ")
    assert "Traceback" not in said
    assert 1 <= kept_in(folder) < 8
    assert not (folder / "results.json").exists()


def test_greedy_answers_do_not_depend_on_the_batch(checkpoint, tsv, tmp_path):
    """Padding is masked: the tiny model in float32 says the same alone and among others."""
    alone, together = (said(checkpoint, tsv, tmp_path / f"{size}.sqlite", batch_size=size) for size in (1, 8))
    assert alone == together


def test_another_runs_folder_is_refused(finished, checkpoint, tsv, tmp_path):
    before = (finished / "predictions.jsonl").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    for change, named in [
        (["--model", other], "model"),
        (["--model", checkpoint, "--prompt", "boxed"], "prompt"),
        (["--model", checkpoint, "--limit", "2"], "limit"),
    ]:
        result = command(*change, "--data", tsv, "--output", finished, *SMALL)
        assert result.exit_code == 1
        assert "holds answers of another run" in result.output and f"{named} " in result.output
        assert "--output" in result.output
    assert (finished / "predictions.jsonl").read_bytes() == before


def test_a_start_that_failed_leaves_the_folder_to_the_next_command(checkpoint, tsv, tmp_path):
    arguments = ["--data", tsv, "--output", tmp_path / "run", "--limit", "1", *SMALL]
    failed = command("--model", tmp_path / "misspelt", *arguments)
    assert failed.exit_code == 1 and "cannot be loaded" in failed.output
    mended = command("--model", checkpoint, *arguments)
    assert mended.exit_code == 0, mended.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["model"] == str(checkpoint)


def test_a_folder_that_cannot_be_written_is_an_error_in_a_line(checkpoint, tsv, tmp_path):
    (tmp_path / "notes").write_text("mine")
    result = command("--model", checkpoint, "--data", tsv, "--output", tmp_path / "notes" / "run")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and str(tmp_path / "notes" / "run") in result.output


def test_a_cut_run_json_is_named_with_what_to_do(finished, checkpoint, tsv, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "run.json").write_text('{"data": "1')
    result = command("--model", checkpoint, "--data", tsv, "--output", folder, *SMALL)
    assert result.exit_code == 1
    assert f"{folder}/run.json: found no JSON" in result.output and "--predictions" in result.output
    scored = command("--predictions", folder / "predictions.jsonl", "--data", tsv, "--output", tmp_path / "again")
    assert scored.exit_code == 0
    assert (tmp_path / "again" / "scores.jsonl").read_bytes() == (finished / "scores.jsonl").read_bytes()


@pytest.mark.parametrize("other", ['{"thesis": 1}', "[1]"])
def test_a_run_json_of_something_else_is_left_alone(checkpoint, tsv, tmp_path, other):
    (tmp_path / "run.json").write_text(other)
    result = command("--model", checkpoint, "--data", tsv, "--output", tmp_path)
    assert result.exit_code == 1 and "Nothing was changed" in result.output
    assert (tmp_path / "run.json").read_text() == other


def test_a_folder_is_one_model_with_and_without_a_slash(finished, checkpoint, tsv):
    result = command("--model", f"{checkpoint}/", "--data", tsv, "--output", finished, *SMALL)
    assert result.exit_code == 0, result.output


def test_new_weights_under_the_same_name_are_another_model(checkpoint, tsv, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    arguments = ["--model", model, "--data", tsv, "--output", tmp_path / "run", "--limit", "1", *SMALL]
    assert command(*arguments).exit_code == 0
    (model / "model.safetensors").touch()
    result = command(*arguments)
    assert result.exit_code == 1
    assert "weights" in result.output


def test_a_report_may_lie_in_the_models_folder(checkpoint, tsv, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    arguments = ["--model", model, "--data", tsv, "--output", model / "bench", "--limit", "1", *SMALL]
    for _ in range(2):  # what the first run wrote does not make it another model
        assert command(*arguments).exit_code == 0


def test_a_lora_checkpoint_answers_as_the_merged_model_does(checkpoint, tsv, tmp_path):
    network = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    torch.manual_seed(0)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for folder in ("adapter", "merged"):
        AutoProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / folder)
    base, adapter, merged = (
        said(model, tsv, tmp_path / "answers.sqlite")
        for model in (checkpoint, tmp_path / "adapter", tmp_path / "merged")
    )
    assert base != adapter == merged


def test_a_folder_of_something_else_is_left_alone(tsv, checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = command("--model", checkpoint, "--data", tsv, "--output", tmp_path)
    assert result.exit_code == 1
    assert "thesis.txt" in result.output and "Nothing was changed" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_wrong_is_said_before_a_model_is_loaded(tsv, tmp_path):
    both = command("--model", "m", "--predictions", tsv, "--data", tsv, "--output", tmp_path / "a")
    neither = command("--data", tsv, "--output", tmp_path / "b")
    assert both.exit_code == neither.exit_code == 1
    assert "one of the two" in both.output and "one of the two" in neither.output
    served = command("--server", "http://a", "--predictions", tsv, "--data", tsv, "--output", tmp_path / "s")
    assert served.exit_code == 1 and "--server answers questions" in served.output
    unnamed = command("--model", "m", "--judge-url", "http://a", "--data", tsv, "--output", tmp_path / "j")
    assert unnamed.exit_code == 1 and "name its model with --judge" in unnamed.output
    unknown = command("--model", "m", "--data", tsv, "--output", tmp_path / "c", "--prompt", "think")
    assert unknown.exit_code == 1 and "think-answer" in unknown.output
    penalty = command("--model", "m", "--data", tsv, "--output", tmp_path / "p", "--repetition-penalty", "0")
    assert penalty.exit_code == 1 and "repetition_penalty 0.0: expected more than 0" in penalty.output
    wrong = command("--model", "m", "--data", __file__, "--output", tmp_path / "d")
    assert wrong.exit_code == 1 and "row 0" in wrong.output
    assert not list(tmp_path.iterdir())


RIGHT = ["B", "4.5", "(A) red", "0.75", "B. a disc", "12 N", "D", "square"]


def test_predictions_of_another_engine_are_scored(tsv, tmp_path):
    """All right but one; three formats, one table."""
    records = [{"index": n, "completion": f"<answer>{text}</answer>"} for n, text in enumerate(RIGHT, 1)]
    records[5]["completion"] = "<answer>13 N</answer>"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "b.tsv").write_text(
        "index\tprediction\n" + "".join(f"{record['index']}\t{record['completion']}\n" for record in records[::-1])
    )
    figures = [
        bench(tsv, tmp_path / f"run-{name}", predictions=tmp_path / name) | {"model": ""}
        for name in ("a.jsonl", "b.tsv")
    ]
    assert figures[0] == figures[1]
    assert (figures[0]["overall"]["right"], figures[0]["overall"]["n"]) == (7, 8)
    assert figures[0]["cells"]["Physics"]["College"]["right"] == 0


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda records: records[:-1], "no answer to 1 rows"),
        (lambda records: [*records, {"index": 99, "completion": ""}], "answers to no row"),
        (lambda records: [*records, records[0]], "twice"),
        (lambda records: [{"id": 1, "text": ""}], "expected 'index'"),
        (lambda records: [*records[:-1], {"index": 8, "completion": 5}], "expected text"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tsv, tmp_path, change, said):
    records = [{"index": n, "completion": text} for n, text in enumerate(RIGHT, 1)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in change(records)))
    with pytest.raises(BenchError, match=said):
        bench(tsv, tmp_path / "run", predictions=tmp_path / "p.jsonl")
    assert not (tmp_path / "run").exists()


def test_the_first_rows_alone_take_a_whole_file_of_predictions(tsv, tmp_path):
    records = [{"index": n, "completion": text} for n, text in enumerate(RIGHT, 1)]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = bench(tsv, tmp_path / "run", predictions=path, limit=2)
    assert (figures["overall"]["right"], figures["overall"]["n"]) == (2, 2)
    path.write_text(path.read_text() + '{"index": 99, "completion": "A"}\n')
    with pytest.raises(BenchError, match=r"1 answers to no row \['99'\].* each of the 2 rows"):
        bench(tsv, tmp_path / "other", predictions=path, limit=2)


@pytest.mark.parametrize(
    "name, second, said",
    [
        ("p.jsonl", b'{"index": 2, "completion": "4.5', r": p.jsonl:1: .*not JSON; .*line 1 column 32"),
        ("p.jsonl", b"[2]", r": p.jsonl:1: .*found \[2\], expected an object"),
        ("p.jsonl", b'{"index": 2, "completion": "\xe9"}', ": p.jsonl:1: .*0xe9"),
        ("p.csv", b'2,"4.5', ": the row that starts at line 3 .*expected"),
        ("p.csv", b"2,\xe9", ": p.csv:1: column 'completion': not UTF-8; found the byte 0xe9"),
        ("missing.jsonl", b"", ": no such file"),
    ],
)
def test_predictions_that_cannot_be_read_are_named_by_their_place(tsv, tmp_path, name, second, said):
    first = b"index,completion\n1,B" if name == "p.csv" else b'{"index": 1, "completion": "B"}'
    (tmp_path / name.replace("missing", "other")).write_bytes(first + b"\n" + second + b"\n")
    with pytest.raises((BenchError, SourceError), match=f"{name}{said}"):
        bench(tsv, tmp_path / "run", predictions=tmp_path / name)


def test_a_server_is_asked_and_asked_again_for_what_failed(tsv, tmp_path, chat_server):
    """A real server on this machine: it sees image and question, fails for one row, and is asked for it later."""
    chat_server.answers = lambda text: "4.5" if "How long" in text else "<answer>B</answer>"
    chat_server.fails = "What share"
    arguments = ["--model", "m", "--server", chat_server.url, "--data", tsv, "--output", tmp_path / "run"]
    failed = command(*arguments)
    assert failed.exit_code == 1
    assert "1 of 8 requests failed" in failed.output and "the same command asks for the rest" in failed.output
    assert kept_in(tmp_path / "run") == 7
    assert all(body["temperature"] == 0 and body["max_tokens"] == 4096 for body in chat_server.bodies)

    chat_server.fails, chat_server.bodies = None, []
    assert command(*arguments).exit_code == 0
    assert len(chat_server.bodies) == 1
    content = chat_server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/")
    assert "What share is red?" in content[1]["text"] and "<answer>" in content[1]["text"]
    scores = {one["index"]: one for one in lines(tmp_path / "run" / "scores.jsonl")}
    assert scores["1"]["correct"] and scores["2"]["correct"] and not scores["3"]["correct"]


def test_a_server_that_refuses_the_first_rows_is_asked_no_more(tmp_path, chat_server):
    chat_server.fails = ""  # which every question contains
    made = [row | {"index": str(n), "question": f"{n}: A or B?"} for n, row in enumerate(published.rows()[:1] * 40)]
    data = published.write(tmp_path / "long.tsv", made)
    arguments = ["--model", "m", "--server", chat_server.url, "--data", data, "--output", tmp_path / "run"]
    failed = command(*arguments, "--batch-size", "2")
    assert failed.exit_code == 1
    assert "40 of 40 rows have no answers, the first: row 0: BadRequestError" in failed.output
    assert 8 <= chat_server.seen.total() <= 10
    assert "named 'm'" in failed.output
    chat_server.fails = None
    assert command(*arguments).exit_code == 0
    assert len(answered(tmp_path / "run")) == 40


def test_answers_that_cannot_be_kept_are_said(tsv, tmp_path, chat_server):
    folder = tmp_path / "run"
    arguments = ["--model", "m", "--server", chat_server.url, "--data", tsv, "--output", folder]
    assert command(*arguments).exit_code == 0
    (folder / "answers.sqlite").unlink()
    (folder / "answers.sqlite").mkdir()
    failed = command(*arguments)
    assert failed.exit_code == 1 and "answers.sqlite: answers could not be kept there" in failed.output


def test_a_dead_server_is_reported_in_one_sentence(tsv, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0, raising=False)  # seconds, to save them
    arguments = ["--server", "http://127.0.0.1:1/v1", "--data", tsv, "--output", tmp_path / "run", "--limit", "1"]
    failed = command("--model", "m", *arguments)
    assert "Connection error. Check" in failed.output


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_the_reasoning_that_a_server_splits_off_is_kept(tsv, tmp_path, chat_server, field):
    """vLLM returns it as `reasoning`, formerly `reasoning_content`; cut off while thinking, there is nothing else."""
    chat_server.answers = lambda text: {field: "A or B?", "content": None if "How long" in text else "B"}
    arguments = ["--model", "m", "--server", chat_server.url, "--data", tsv, "--output", tmp_path / "run"]
    assert command(*arguments, "--limit", 2).exit_code == 0
    assert [(answer["completion"], answer["finished"]) for answer in answered(tmp_path / "run")] == [
        ("<think>A or B?</think>B", True),
        ("<think>A or B?</think>", False),
    ]


def test_odd_text_of_a_server_is_kept(tsv, tmp_path, chat_server):
    """Lone surrogates, NULs and what looks like an end of line, and a question with marks for two images."""
    chat_server.answers = lambda text: "\ud800 \x00 \u2028 \r<answer>B</answer>"
    made = published.rows()[:1]
    made[0]["question"] = "<image>Is this like <image>?\nA. yes\nB. no"
    data = published.write(tmp_path / "odd.tsv", made)
    arguments = ["--model", "m", "--server", chat_server.url, "--data", data, "--output", tmp_path / "run"]
    assert command(*arguments).exit_code == 0
    assert command(*arguments, "--batch-size", "2").exit_code == 0, "a server's answers do not hang on the batch"
    assert len(chat_server.bodies) == 1
    (answer,) = answered(tmp_path / "run")
    assert answer["completion"].endswith("\r<answer>B</answer>")
    (part,) = [part for part in chat_server.bodies[0]["messages"][0]["content"] if part["type"] == "text"]
    assert part["text"].startswith("Is this like ?")


@pytest.mark.parametrize("asked", [["--server", "http://127.0.0.1:1/v1"], ["--judge", "j"]])
def test_what_needs_openai_is_refused_before_anything_is_asked(tsv, tmp_path, monkeypatch, asked):
    monkeypatch.setitem(sys.modules, "openai", None)
    result = command("--model", "m", "--data", tsv, "--output", tmp_path / "run", *asked)
    assert result.exit_code == 1
    assert "openai not found. Install: pip install 'trl-onevision[bench]'" in result.output
    assert not (tmp_path / "run").exists()


def test_a_judge_sees_options_that_stand_beside_the_question(tmp_path, chat_server):
    asked = []
    chat_server.answers = lambda text: asked.append(text) or '{"score": 1}'
    made = [published.rows()[2] | {"question": "Which colour?"}]
    (tmp_path / "p.jsonl").write_text('{"index": 3, "completion": "<answer>crimson</answer>"}\n')
    data = published.write(tmp_path / "one.tsv", made)
    judge = Chat("j", chat_server.url)
    bench(data, tmp_path / "run", predictions=tmp_path / "p.jsonl", judge=judge)
    assert len(asked) == 1 and "A. red\\nB. blue" in asked[0], asked


def test_a_judge_that_fails_for_every_answer_has_no_figure(tsv, tmp_path, chat_server):
    """Most answers equal the gold and need no judge: they are no verdicts of one that never replied."""
    chat_server.fails = "Groundtruth"
    records = [{"index": n, "completion": f"<answer>{text}</answer>"} for n, text in enumerate(RIGHT, 1)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    judge = Chat("j", chat_server.url)
    figures = bench(tsv, tmp_path / "run", predictions=tmp_path / "p.jsonl", judge=judge)
    assert figures["judge"] is None and figures["unjudged"] == 8
    assert "no verdict came" in (tmp_path / "run" / "report.md").read_text()
    assert {one["judge"] for one in lines(tmp_path / "run" / "scores.jsonl")} == {None}
    chat_server.fails, chat_server.answers = None, lambda text: '{"score": 1}'
    figures = bench(tsv, tmp_path / "run", predictions=tmp_path / "p.jsonl", judge=judge)
    assert figures["judge"]["right"] == 8, "the same command asks again"


def test_a_judge_sees_what_the_rules_read(tsv, tmp_path, chat_server):
    chat_server.answers = lambda text: '{"score": 1}' if 'Final answer: "quadrilateral"' in text else '{"score": 0}'
    records = [{"index": n, "completion": f"<answer>{text}</answer>"} for n, text in enumerate(RIGHT, 1)]
    records[7]["completion"] = "<think>square</think>\n<answer>quadrilateral</answer>"
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    result = command(
        *["--predictions", tmp_path / "p.jsonl", "--data", tsv, "--output", tmp_path / "run"],
        *["--judge", "j", "--judge-url", chat_server.url],
    )
    assert result.exit_code == 0, result.output
    (last,) = [one for one in lines(tmp_path / "run" / "scores.jsonl") if one["index"] == "8"]
    assert not last["correct"] and last["judge"] == 1.0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["unjudged"] == 0
