"""Whole selections against a scripted server: rates that are known, failures, kills, and what is written."""

import base64
import json
import math
import multiprocessing
import os
import random
import signal
from io import BytesIO

import pyarrow.parquet as pq
import pytest
import yaml
from answering import picture, row
from datasets import load_dataset
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from trl_onevision.cli import app
from trl_onevision.engine import EngineError, Sampling, Server
from trl_onevision.recipes import recipe_path
from trl_onevision.select import run as running
from trl_onevision.select.keep import PRESETS, band
from trl_onevision.select.measure import Rewards
from trl_onevision.select.rows import GREY, Rows, SelectError
from trl_onevision.select.run import REPLIES, Wanted, select

ACCURACY = "trl_onevision.rewards.accuracy_reward"
FORMAT = "trl_onevision.rewards.format_reward"
RATES = (0.0, 0.2, 0.5, 0.8, 1.0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No pause before a request is sent again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0)


def run(server, data, output, wanted=None, **sampling):
    sampling = Sampling(**{"k": 4, "batch_size": 8, **sampling})
    engine = Server(server.url, "m", sampling, output / REPLIES)
    rewards = Rewards.named([ACCURACY, FORMAT], [1.0, 0.5])
    return select(Rows(data), engine, rewards, output, wanted, Console(quiet=True))


def records(output):
    return [json.loads(line) for line in (output / "answers.jsonl").read_text().splitlines()]


def files(output):
    """What a run wrote, byte by byte."""
    found = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith(REPLIES)]
    return {str(path.relative_to(output)): path.read_bytes() for path in found}


def mixed(count):
    return [row(n, RATES[n % 5], [picture(n)] if n % 3 else []) for n in range(count)]


def test_pass_rates_are_those_of_the_model_within_the_bounds_of_chance(server, data, tmp_path):
    rows = [row(n, RATES[n % 5]) for n in range(60)]
    summary = run(server, data(rows), tmp_path / "out", k=8)
    found = records(tmp_path / "out")
    for p in RATES:
        of_p = [r["pass_rate"] for n, r in enumerate(found) if RATES[n % 5] == p]
        draws = 8 * len(of_p)
        assert abs(sum(of_p) / len(of_p) - p) <= 4 * math.sqrt(p * (1 - p) / draws), p
    assert len(server.bodies) == len({json.dumps(b, sort_keys=True) for b in server.bodies}) == 480
    assert {b["temperature"] for b in server.bodies} == {1.0} and {b["top_k"] for b in server.bodies} == {-1}
    assert summary.never >= 12 and summary.always >= 12 and summary.kept == summary.rows == 60
    # One answer of four is right, and all have the format
    share = next(r for r in found if r["pass_rate"] == 0.25)
    rewards = [answer["reward"] for answer in share["answers"]]
    assert sorted(set(rewards)) == [0.5, 1.5]
    assert share["reward_std"] == pytest.approx(math.sqrt(8 / 7 * 0.25 * 0.75))


def test_no_row_is_lost_where_half_of_the_requests_fail(server, data, tmp_path):
    folder = data(mixed(30))
    run(server, folder, tmp_path / "whole")
    dice = random.Random(0)
    server.fails = lambda body, before: 500 if dice.random() < 0.5 else None
    run(server, folder, tmp_path / "half")
    assert files(tmp_path / "half") == files(tmp_path / "whole")
    assert len(records(tmp_path / "half")) == 30


def test_a_prompt_that_the_server_refuses_is_told_of_and_costs_no_other_row(server, data, tmp_path):
    server.fails = lambda body, before: 400 if "Row 7:" in str(body) else None
    summary = run(server, data(mixed(12)), tmp_path / "out")
    (refused,) = [record for record in records(tmp_path / "out") if "reason" in record]
    assert refused["id"] == "row-7" and "BadRequestError" in refused["reason"] and not refused["kept"]
    assert summary.kept == 11 and summary.rows == 12 and sum(summary.unmeasured.values()) == 1


@pytest.mark.parametrize("status", [404, 400, 500])
def test_a_server_that_answers_nothing_is_given_up_soon(server, data, tmp_path, status):
    server.fails = lambda body, before: status
    with pytest.raises(EngineError, match=r"rows have no answers, the first: row row-.*the same command"):
        run(server, data(mixed(40)), tmp_path / "out")
    assert len(server.bodies) <= 5 * 4 * 15  # attempts, answers, rows that are under way before eight have failed
    server.fails = lambda body, before: None
    assert run(server, str(tmp_path / "data"), tmp_path / "out").kept == 40


def test_a_server_that_goes_down_half_way_loses_nothing_that_it_said(server, data, tmp_path):
    folder = data(mixed(20))
    server.fails = lambda body, before: 503 if len(server.bodies) > 40 else None
    with pytest.raises(EngineError, match="what was answered is kept"):
        run(server, folder, tmp_path / "out")
    server.fails, before = lambda body, before: None, len(server.bodies)
    run(server, folder, tmp_path / "out")
    assert len(server.bodies) - before == 4 * 20 - 40


def test_a_row_whose_image_is_gone_is_an_error_in_a_line(server, data, tmp_path, monkeypatch):
    def gone(self, index, blind=False):
        raise FileNotFoundError(2, "No such file or directory", "gone.png")

    monkeypatch.setattr(Rows, "asked", gone)
    arguments = ["select", data(mixed(3)), f"--output={tmp_path / 'out'}", f"--server={server.url}", "--model=m"]
    failed = CliRunner().invoke(app, [*arguments, f"--rewards={ACCURACY}"])
    assert failed.exit_code == 1 and "Error: [Errno 2] No such file or directory: 'gone.png'" in failed.output


def test_answers_that_cannot_be_kept_are_said_for_each_row(server, data, tmp_path):
    (tmp_path / "out" / REPLIES).mkdir(parents=True)
    with pytest.raises(SelectError, match="None of 2 rows is kept"):
        run(server, data(mixed(2)), tmp_path / "out")


# A run that is killed


def killed(server, folder, output, kill):
    """A run in a process of its own that is killed when `kill`, called in it, or the server's count, says so."""

    def work():
        kill()
        run(server, folder, output, WRITTEN, blind=True)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


WRITTEN = Wanted([band("0.1:0.9")], "easy", pairs=True, random_control=True)


def test_a_run_that_is_killed_at_20_points_ends_with_the_same_files(server, data, tmp_path):
    folder = data(mixed(16))
    run(server, folder, tmp_path / "whole", WRITTEN, blind=True)
    total = len(server.bodies)
    server.bodies.clear()
    server.sent.clear()
    points = sorted(random.Random(1).sample(range(1, total), 17))
    output, running_now = tmp_path / "killed", []
    for point in points:
        server.on_request = lambda point=point: (
            len(server.sent) >= point and os.kill(running_now[-1].pid, signal.SIGKILL)
        )
        with server.lock:  # no request is answered before it is known whom to kill
            running_now.append(process := killed(server, folder, output, lambda: None))
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not (output / "data").exists()
    server.on_request = lambda: None

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def rename_one_and_die(part, output):
        (part / "data").rename(output / "data")
        die()

    for name, at in [("_record", die), ("write_json", die), ("_publish", rename_one_and_die)]:
        process = killed(server, folder, output, lambda name=name, at=at: setattr(running, name, at))
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    run(server, folder, output, WRITTEN, blind=True)
    assert files(output) == files(tmp_path / "whole")
    # Sent again is only what was under way at a kill
    assert sum(server.sent.values()) <= 17 * 8 and len(server.sent) == total


# What is asked and what is written


def test_rows_stay_as_they_are_and_gain_their_figures(server, data, tmp_path):
    rows = mixed(30)
    folder, output = data(rows), tmp_path / "out"
    summary = run(server, folder, output, WRITTEN, blind=True)
    before = {r["id"]: r for r in pq.read_table(next((tmp_path / "data").rglob("*.parquet"))).to_pylist()}
    after = pq.read_table(next(output.glob("data/train-*.parquet"))).to_pylist()
    for kept in after:
        figures = {name: kept.pop(name) for name in ("pass_rate", "pass_rate_blind", "reward_std")}
        assert kept == before[kept["id"]]
        assert 0.1 <= figures["pass_rate"] <= 0.9
        assert (figures["pass_rate_blind"] is None) == (not kept["images"])
    loaded = load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
    assert len(loaded["train"]) == len(loaded["random"]) == summary.kept == len(after) > 5
    assert loaded["train"]["pass_rate"] == sorted(loaded["train"]["pass_rate"], reverse=True)
    assert {r["id"] for r in loaded["random"]} != {r["id"] for r in loaded["train"]}
    assert all(image.size for r in loaded["train"] for image in r["images"])

    pairs = load_dataset(str(output / "pairs"), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(pairs.column_names) == {"prompt", "images", "chosen", "rejected"} and len(pairs) == len(after)
    for pair, kept in zip(pairs, after, strict=True):
        (chosen,), (rejected,) = pair["chosen"], pair["rejected"]
        assert chosen["content"][0]["text"].endswith(f"<answer>{kept['solution']}</answer>")
        assert rejected["content"][0]["text"].endswith("<answer>-1</answer>")
        assert pair["prompt"][0]["content"][-1]["text"] == kept["prompt"][0]["content"][-1]["text"]
        assert len(pair["images"]) == len(kept["images"])


def test_blind_is_the_same_question_with_grey_of_the_same_size(server, data, tmp_path):
    run(server, data([row(0, 0.5, [picture(0), picture(1)]), row(1, 0.5)]), tmp_path / "out", blind=True)
    images, texts = [], set()
    for body in server.bodies:
        blocks = body["messages"][0]["content"]
        urls = [block["image_url"]["url"] for block in blocks if block["type"] == "image_url"]
        opened = [Image.open(BytesIO(base64.b64decode(url.split(",")[1]))) for url in urls]
        images.append(([i.size for i in opened], [i.getcolors() == [(i.width * i.height, GREY)] for i in opened]))
        texts.add(blocks[-1]["text"])
    two = [(56, 28), (56, 56)]
    assert sorted(images) == sorted([(two, [False] * 2)] * 4 + [(two, [True] * 2)] * 4 + [([], [])] * 4)
    assert len(texts) == 2
    sighted, text_only = records(tmp_path / "out")
    assert sighted["pass_rate_blind"] == sighted["pass_rate"] and text_only["pass_rate_blind"] is None


def test_another_rule_over_the_same_answers_asks_nothing_again(server, data, tmp_path):
    folder, output = data(mixed(20)), tmp_path / "out"
    first = run(server, folder, output, Wanted([band("0:1")]))
    asked = len(server.bodies)
    second = run(server, folder, output, Wanted([band("1:1")]))
    assert len(server.bodies) == asked and second.kept == first.always < first.kept
    assert len(load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))) == second.kept
    with pytest.raises(SelectError, match="None of 20 rows is kept, and nothing was written"):
        run(server, folder, output, Wanted([lambda row: False]))
    assert len(list(output.glob("data/*.parquet"))) == 1
    run(server, folder, output, k=6)
    assert len(server.bodies) == asked + 2 * 20  # the four are known


def test_a_system_message_and_the_place_of_an_image_are_sent_as_they_are(server, data, tmp_path):
    asked = row(3, 1.0, [picture(1)])
    blocks = [{"type": "text", "text": "Look at"}, {"type": "image"}, {"type": "text", "text": "Row 3: right 1 of it"}]
    asked["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": blocks}]
    run(server, data([asked]), tmp_path / "out")
    system, user = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert [block["type"] for block in user["content"]] == ["text", "image_url", "text"]


def test_a_row_that_no_reward_scores_is_told_of(server, data, tmp_path):
    boxes = row(1, 1.0, [picture(1)]) | {"task": "boxes", "solution": '[{"bbox_2d": [1, 1, 9, 9], "label": "a"}]'}
    summary = run(server, data([row(0, 1.0), boxes]), tmp_path / "out")
    assert summary.unmeasured == {"no reward says whether it is right": 1} and summary.kept == 1
    assert records(tmp_path / "out")[1]["reason"] == "no reward says whether it is right"


def test_the_command_takes_a_recipe_or_rewards_and_a_preset(server, data, tmp_path):
    folder, output = data(mixed(20)), tmp_path / "out"
    arguments = ["select", folder, f"--output={output}", f"--server={server.url}", "--model=m", "--extra={}"]
    done = CliRunner().invoke(app, [*arguments, "--recipe=quickstart-grpo", "--preset=vl-cogito", "--order=hard"])
    assert done.exit_code == 0, done.output
    assert "never right" in done.output and "shuffle_dataset: false" in done.output
    length = yaml.safe_load(recipe_path("quickstart-grpo").read_text())["max_completion_length"]
    assert {body["max_tokens"] for body in server.bodies} == {length} and "top_k" not in server.bodies[0]
    rates = pq.read_table(next(output.glob("data/*.parquet")))["pass_rate"].to_pylist()
    assert rates == sorted(rates) and max(rates) <= 0.5

    for more, message in [
        ([], "either --recipe FILE or --rewards"),
        ([f"--rewards={ACCURACY}", "--preset=vl-cogit"], "unknown; expected one of vl-cogito"),
        ([f"--rewards={ACCURACY}", "--keep=0.9"], "expected LOW:HIGH"),
        ([f"--rewards={ACCURACY}", "--temperature=0"], "temperature 0.0: expected 1 or more, and for several above 0"),
        (["--rewards=trl_onevision.rewards.acuracy_reward"], "cannot be imported"),
        ([f"--rewards={ACCURACY}", f"--output={folder}"], "expected a new folder or one of this command"),
    ]:
        failed = CliRunner().invoke(app, [*arguments, *more])
        assert failed.exit_code == 1 and message in failed.output, failed.output


def test_presets_name_their_source():
    assert set(PRESETS) == {"vl-cogito", "gthinker", "temporal-r1", "rap"}
    assert all("arXiv" in preset.source for preset in PRESETS.values())
