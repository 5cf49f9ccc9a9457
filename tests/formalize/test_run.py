"""Whole runs against a scripted server: what is kept, what is rejected where, and what a killed run does."""

import base64
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parent))

import scripted

from trl_onevision.cli import app
from trl_onevision.data.prepare import prepare
from trl_onevision.formalize import execute

COLUMNS = "id=id,prompt=question,solution=answer,image=file"
OFTEN = [
    "wrong cell",
    "wrong answer",
    "answer lost",
    "leak",
    "rewritten",
    "broken csv",
    "not valid",
    "500 once",
    "cut",
]
ONCE = ["500 always", "slow once", "cut formal", "huge", "no kind", "not json", "repaired", "broken mermaid"]


def arguments(folder, url, output, *more):
    servers = [f"--vision={url},sees", f"--reason={url},thinks"]
    return ["formalize", str(folder), *servers, f"--output={output}", f"--columns={COLUMNS}", *more]


def run(folder, url, output, *more):
    return CliRunner().invoke(app, arguments(folder, url, output, *more))


def rows_of(output):
    return [row for part in sorted((output / "rows").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def rejected_of(output):
    return [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]


def test_of_200_rows_exactly_the_faulty_ones_go_and_each_where_its_fault_is(models, tmp_path):
    faults = [fault for fault in OFTEN for _ in range(8)] + ONCE + [""] * 119 + ["valid mermaid"]
    scripted.ENDS["valid mermaid"] = None
    random.Random(1).shuffle(faults)
    rows = scripted.charts(faults)
    assert len(rows) == 200 and sum(fault not in ("", "valid mermaid") for fault in faults) == 80
    players = models(rows, slow=3.0)
    folder, output = scripted.write(rows, tmp_path / "charts"), tmp_path / "out"
    done = run(folder, players.server.url, output, "--timeout=2", "--price=vision=10/10,reason=10/10")
    assert done.exit_code == 0, done.output

    kept, rejected = rows_of(output), {line["id"]: line for line in rejected_of(output)}
    expected = {row.id: scripted.ENDS[row.fault] for row in rows}
    assert {id: line["stage"] for id, line in rejected.items()} == {id: end for id, end in expected.items() if end}
    assert [row["id"] for row in kept] == [row.id for row in rows if expected[row.id] is None]
    reasons = {row.fault: rejected[row.id]["reason"] for row in rows if row.id in rejected}
    assert "caption" in reasons["leak"] and "row 4 has 3 cells" in reasons["broken csv"]
    assert "Parse error on line" in reasons["broken mermaid"] and "step 2 is wrong" in reasons["not valid"]
    assert "200,000 of its 10,000,000 characters" in reasons["huge"]
    assert "limit of tokens" in reasons["cut"] and "InternalServerError" in reasons["500 always"]
    assert "the csv contradicts the gold" in reasons["wrong cell"] and "poem" in reasons["no kind"]

    # Charts drawn from known data: every kept table answers its question by execution, and is the data.
    by_id = {row.id: row for row in rows}
    tables = [row for row in kept if row["language"] == "csv"]
    for row in tables:
        chart = by_id[row["id"]]
        assert row["formal"] == chart.csv()
        assert execute.answer("csv", row["formal"], chart.question) == str(chart.gold)
        assert f"the csv answers {chart.gold}" in row["verdicts"]
        assert row["conversations"][0] == {"from": "human", "value": f"<image>{chart.question}"}
        assert base64.b64decode(row["image"]) and row["models"] == {"vision": "sees", "reason": "thinks"}
    assert len(tables) == len(kept) - 1
    assert kept[0]["cost"] == {"requests": 5, "prompt_tokens": 500, "completion_tokens": 100, "money": 0.006}
    summary = json.loads((output / "summary.json").read_text())
    assert summary["accepted"] == len(kept) and sum(summary["rejected"].values()) == len(rejected)
    assert summary["asked"]["kind"] == 200 and summary["asked"]["repair"] == 10
    assert summary["money"] == pytest.approx(sum(summary["asked"].values()) * 120 * 10 / 1e6)

    # Nothing is asked again but what failed, and prepare reads the rows for both stages.
    before = len(players.received)
    again = run(folder, players.server.url, output, "--timeout=2")
    assert again.exit_code == 0 and 1 <= len(players.received) - before <= 5
    for purpose in ("sft", "grpo"):
        out = tmp_path / purpose
        from trl_onevision.data.convert import Conversion

        made = prepare("r1-onevision", out, source=str(output / "rows"), conversion=Conversion(purpose=purpose))
        assert made.kept == len(kept) and not made.dropped
    table = pq.read_table(next((tmp_path / "grpo" / "data").glob("*.parquet"))).to_pylist()
    assert {row["id"]: row["solution"] for row in table} == {row["id"]: str(by_id[row["id"]].gold) for row in kept}


def test_the_sheet_shows_both_fates_and_runs_nothing(models, tmp_path):
    rows = scripted.charts(["", "leak", ""])
    players = models(rows)
    folder, output = scripted.write(rows, tmp_path / "charts"), tmp_path / "out"
    (folder / "questions.csv").write_text(
        (folder / "questions.csv").read_text().replace("What is", "<script>alert(1)</script> What is")
    )
    assert run(folder, players.server.url, output).exit_code == 0
    page = (output / "samples.html").read_text()
    assert page.count("<article>") == 3 and page.count("accepted") >= 2 and "rejected at leak" in page
    assert "<script" not in page and "&lt;script&gt;" in page and "default-src 'none'" in page


# A run that is killed


class Killed(subprocess.Popen):
    """`trl-onevision formalize` in a process of its own."""

    def __init__(self, folder, url, output):
        program = "from trl_onevision.cli import app; app()"
        more = ("--concurrency=4", "--boxes=none", "--ocr=none")
        super().__init__(
            [sys.executable, "-c", program, *arguments(folder, url, output, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def stored(output):
    if not (output / "replies.sqlite").exists():
        return set()
    with sqlite3.connect(output / "replies.sqlite") as database:
        try:
            return {key for (key,) in database.execute("SELECT key FROM replies")}
        except sqlite3.OperationalError:  # killed before its table was there
            return set()


def files(output):
    rows = b"".join(path.read_bytes() for path in sorted((output / "rows").glob("*.parquet")))
    return rows, (output / "rejected.jsonl").read_bytes(), (output / "samples.html").read_bytes()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_rows_and_asks_for_nothing_that_it_has(kills, models, tmp_path):
    faults = ["", "", "wrong cell", "leak", "broken csv", "", "wrong answer", "not valid"] * 5
    rows = scripted.charts(faults)
    folder = scripted.write(rows, tmp_path / "charts")
    undisturbed = models(rows)
    whole = Killed(folder, undisturbed.server.url, tmp_path / "whole")
    assert whole.wait(120) == 0, whole.stdout.read()
    total = len(undisturbed.received)
    assert len(set(undisturbed.received)) == total

    players, output = models(rows, pause=0.003), tmp_path / "killed"
    for kill in range(kills):
        held = stored(output)
        start = len(players.received)
        # Points spread over the run: so many new requests, then an end at the very moment that one more arrives.
        point = start + max(1, (total - len(held)) // (kills + 1 - kill))
        process = Killed(folder, players.server.url, output)

        def end(process=process, point=point):
            if len(players.received) >= point:
                process.kill()

        players.on_request = end
        assert process.wait(120) == -signal.SIGKILL, process.stdout.read()
        time.sleep(0.1)  # for answers on their way to nobody
        assert not held & set(players.received[start:])  # what is stored is not asked again
    players.on_request = lambda: None
    held, start = stored(output), len(players.received)
    last = Killed(folder, players.server.url, output)
    assert last.wait(120) == 0, last.stdout.read()
    assert not held & set(players.received[start:])
    assert files(output) == files(tmp_path / "whole")
    assert set(players.received) == set(undisturbed.received)
    # Sent twice is only what was under way at a kill: at most as many as a server is asked at a time.
    twice = sum(count - 1 for count in Counter(players.received).values())
    assert twice <= kills * 8


def test_ctrl_c_stops_between_rows_and_the_same_command_goes_on(models, tmp_path):
    rows = scripted.charts([""] * 12)
    players = models(rows, pause=0.05)
    folder, output = scripted.write(rows, tmp_path / "charts"), tmp_path / "out"
    process = Killed(folder, players.server.url, output)
    players.on_request = lambda: len(players.received) == 8 and os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 1
    assert "same command goes on" in process.stdout.read() and not (output / "rows").exists()
    players.on_request = lambda: None
    again = Killed(folder, players.server.url, output)
    assert again.wait(60) == 0, again.stdout.read()
    assert len(rows_of(output)) == 12


# Options


def test_a_budget_stops_the_run_and_the_next_one_goes_on(models, tmp_path):
    rows = scripted.charts([""] * 6)
    players = models(rows)
    folder, output = scripted.write(rows, tmp_path / "charts"), tmp_path / "out"
    for most, kept in ((12, range(0, 3)), (30, range(6, 7))):
        done = run(folder, players.server.url, output, f"--budget={most}", "--concurrency=2")
        assert done.exit_code == 0, done.output
        assert len(rows_of(output)) in kept
    assert len(players.received) == 30 and len(set(players.received)) == 30


def test_a_dry_run_sends_nothing_and_estimates(models, tmp_path):
    rows = scripted.charts([""] * 30)
    players = models(rows)
    folder, output = scripted.write(rows, tmp_path / "charts"), tmp_path / "out"
    more = ("--dry-run=3", "--price=vision=2/8,reason=0.5/2", "--limit=30")
    done = run(folder, players.server.url, output, *more)
    assert done.exit_code == 0, done.output
    assert not players.received and not output.exists()
    for stage in ("kind", "formal", "reason", "rewrite", "verify"):
        assert done.output.count(f", {stage}, to ") == 3
    assert rows[2].question in done.output and rows[3].question not in done.output
    assert "estimate for 30 rows" in done.output and "at the given prices" in done.output


def test_votes_decide_where_there_is_no_gold(models, tmp_path):
    rows = scripted.charts([""] * 4)
    players = models(rows)
    say = players.text

    def text(row, stage):
        # Of chart 1 every sample says something else.
        said = say(row, stage)
        if stage == "reason" and row.number == 1:
            return said.replace(str(row.gold), str(row.gold + len(players.received)))
        return said

    players.text = text
    folder = scripted.write(rows, tmp_path / "charts")
    columns = "--columns=id=id,prompt=question,image=file"
    servers = [f"--vision={players.server.url},sees", f"--reason={players.server.url},thinks"]
    for votes, kept in (("1/1", []), ("2/3", ["chart-0", "chart-2", "chart-3"])):
        output = tmp_path / votes.replace("/", "-")
        command = [
            "formalize",
            str(folder),
            *servers,
            f"--output={output}",
            columns,
            "--kind=chart",
            f"--votes={votes}",
        ]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert [row["id"] for row in rows_of(output)] == kept
        assert {line["stage"] for line in rejected_of(output)} == {"answer"}
    assert [row["solution"] for row in rows_of(output)] == [str(rows[i].gold) for i in (0, 2, 3)]
    assert rows_of(output)[0]["cost"]["requests"] == 6


def test_one_question_for_a_folder_of_images(models, tmp_path):
    rows = scripted.charts([""] * 2)
    players = models(rows)
    folder = scripted.write(rows, tmp_path / "charts")
    (folder / "questions.csv").unlink()
    servers = [f"--vision={players.server.url},sees", f"--reason={players.server.url},thinks"]
    question = "--question=Which city of the three has the highest sales?"
    output = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["formalize", str(folder), *servers, f"--output={output}", question, "--kind=chart", "--votes=2/2"]
    )
    assert done.exit_code == 0, done.output
    assert [row["conversations"][0]["value"] for row in rows_of(output)] == [
        "<image>" + question.partition("=")[2]
    ] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--votes=3/2"], "1 <= m <= k"),
        (["--price=vision=1"], "money for a million tokens"),
        (["--kind=poem"], "expected one of chart"),
        (["--ocr=tesseract"], "dotted path"),
        (["--boxes=yolo"], "dotted path"),
        (["--boxes=nowhere.find"], "cannot be imported: No module named 'nowhere'"),
        (["--ocr=math.pi"], "'math.pi' cannot be called"),
        (["--vision=sees"], "expected URL,MODEL"),
    ],
)
def test_a_wrong_option_is_named(more, said, tmp_path):
    rows = scripted.charts([""])
    folder = scripted.write(rows, tmp_path / "charts")
    done = run(folder, "http://127.0.0.1:9/v1", tmp_path / "out", *more)
    assert done.exit_code == 1 and said in done.output
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_not_there_ends_the_run_early(tmp_path):
    rows = scripted.charts([""] * 40)
    folder = scripted.write(rows, tmp_path / "charts")
    done = run(folder, "http://127.0.0.1:9/v1", tmp_path / "out", "--concurrency=8", "--timeout=1")
    assert done.exit_code == 1 and "no reply to the first 8 requests" in done.output


def test_a_folder_of_something_else_is_refused(models, tmp_path):
    rows = scripted.charts([""])
    folder = scripted.write(rows, tmp_path / "charts")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("\\end")
    done = run(folder, "http://127.0.0.1:9/v1", tmp_path / "out")
    assert done.exit_code == 1 and "thesis.tex" in done.output
