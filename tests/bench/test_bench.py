"""`mqinfer bench` on a pipeline of this folder: its figures are checked for sense, not for size."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from mqinfer.adapters.scan import Scanner
from mqinfer.bench import measure
from mqinfer.bench.windows import Counted, Window
from mqinfer.testing import Harness
from tests.bench.app import Photo, app

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def briefly(tmp_path, monkeypatch):
    """Each stage is measured for a moment, in a folder of its own, which goes."""
    monkeypatch.setattr(measure, "SHORTEST", 0.25)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.glob("mqinfer-bench-*")) == []


def found(shell, name, *arguments):
    """What is measured, and what was said meanwhile."""
    code, out, err = shell.run("bench", f"tests.bench.{name}:app", *arguments, "--json")
    assert code == 0, err
    return json.loads(out), err


def test_each_stage_is_measured_and_a_sentence_says_what_bounds_it(shell):
    facts, err = found(shell, "app", "--seconds", "1")
    assert facts["source"] == "generated: 64 x photo, 64 x odd"
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert list(stages) == ["cut", "add", "slow", "refuse"]
    for name in ("cut", "add", "slow"):
        stage = stages[name]
        assert stage["rate"] > 0
        assert 0 < stage["p50"] <= stage["p99"]
        shares = [stage[part] for part in ("code", "models", "other", "publishing")]
        assert sum(shares) == pytest.approx(1.0)
        assert all(0 <= share <= 1 for share in (*shares, stage["waiting"], stage["inserting"]))
        assert stage["loop"] > 0
        assert stage["dead"] == 0
    assert stages["cut"]["each"] == 1
    assert stages["add"]["each"] == 3
    assert stages["refuse"]["handled"] == 0
    assert stages["refuse"]["dead"] > 0
    assert "odd: " in stages["refuse"]["reason"]
    assert "bounds the pipeline" in facts["verdict"]
    assert "slow ..." in err.splitlines()  # no terminal: a line for each part


def test_rows_are_measured_as_they_travel(shell, monkeypatch):
    pytest.importorskip("chdb")
    monkeypatch.setattr(measure, "MOST", 2000)  # less than a block, which waits for more
    facts, _ = found(shell, "rows", "--seconds", "1")
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert list(stages) == ["count", "name", "sink-well", "sink-label"]
    assert facts["rate"] > 0  # a block waits for longer than the pipeline as a whole is given here
    assert all(stage["rate"] > 0 for stage in stages.values())
    assert [stage["each"] for stage in stages.values()] == [1, 1, 5, 1]  # rows, not packs
    assert not any(stage["dead"] for stage in stages.values())


def test_what_mqinfer_feeds_by_itself_is_not_made_up(shell):
    facts, _ = found(shell, "joined", "--seconds", "1")
    assert facts["source"] == "generated: 64 x photo"
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert list(stages) == ["cut", "look", "report", "tell"]  # not the clock's, nor the deadline's
    assert all(stage["rate"] > 0 for stage in stages.values())
    assert not any(stage["dead"] for stage in stages.values())
    code, _, err = shell.run("bench", "tests.bench.joined:app", "--stage", "tick")
    assert code == 2
    assert "the clock feeds tick" in err


def test_a_sink_of_packs_is_told_in_rows():
    window = Window(seconds=2.0, stages={"sink-well": Counted(done=10)})
    found = measure._measured("sink-well", window, 5.0, 4.5)
    assert (found.rate, found.handled, found.each) == (22.5, 45, 5.0)


async def test_samples_are_read_from_the_live_stream_which_stays_as_it_is(told, nats):
    async with Harness(app, nats) as harness:
        await harness.publish(*(Photo(number, f"live-{number}") for number in range(30)))
        scanner = Scanner(harness.services.broker.client)

        async def state():
            names = await scanner._client.api("$JS.API.STREAM.NAMES", timeout=30)
            info = await scanner.stream_info(app.name)
            return sorted(names["streams"]), info["config"], info["state"]

        before = await state()
        out = await told(
            *("bench", "tests.bench.app:app", "--sample", "20", "--seconds", "1", "--stage", "cut")
        )
        assert "benched, messages sampled: 20 x photo; one process" in out
        (row,) = [line.split() for line in out.splitlines() if line.startswith(" cut ")]
        assert float(row[1].replace(",", "")) > 0
        assert "add " not in out
        assert await state() == before


def test_messages_come_from_files(shell):
    (shell.folder / "photos.jsonl").write_text(
        '{"width": 1, "name": "a"}\n\n{"width": 2, "name": "b"}'
    )
    code, out, err = shell.run(
        *("bench", "tests.bench.app:app", "--messages", "photo=photos.jsonl"),
        *("--seconds", "1", "--stage", "cut"),
    )
    assert code == 0, err
    assert "from files: 2 x photo" in out


async def test_ctrl_c_leaves_nothing(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqinfer", "bench", "tests.bench.app:app", "--seconds", "600"),
        env={**os.environ, "PYTHONPATH": ROOT, "TMPDIR": str(tmp_path / "tmp")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    seen = b""
    async with asyncio.timeout(120):
        while b"the whole pipeline" not in seen:
            seen += await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(300):
        _, err = await process.communicate()
    assert process.returncode == 130, err.decode()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sample", "5", "--messages", "x"], "choose one"),
        (["--messages", "none.jsonl"], "of which type? Say TYPE=FILE: photo, odd"),
        (["--messages", "leaf=none.jsonl"], "has no type leaf; it has photo"),
        (["--messages", "photo=none.jsonl"], "No such file"),
        (["--stage", "none"], "has no stage none; it has cut, add"),
        (["--pictures", "none"], "No such file"),
        (["--models", "none"], "there is no such folder"),
    ],
)
def test_mistakes_say_what_to_do(shell, arguments, says):
    code, _, err = shell.run("bench", "tests.bench.app:app", *arguments)
    assert (code, says in err) == (2, True), err


async def test_a_stream_that_is_not_there_is_told(told):
    err = await told("bench", "tests.bench.app:app", "--sample", "5", code=2)
    assert "NATS has no stream benched" in err
