"""`mqinfer replay`, `worker --run` and `runs` on real servers and real processes, with kills."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from mqinfer import wiring
from mqinfer.adapters.scan import Scanner
from mqinfer.cli.load import load_app
from mqinfer.cli.options import load_settings
from tests.support.cli import TIMEOUT, Shell, event, until
from tests.support.clickhouse import ask

COUNT = 300
EAGER = "tests.support.eager"

APP = """
from __future__ import annotations
import asyncio, math, os
from pathlib import Path
from mqinfer import App, Context, Message, Row

app = App("{name}")

class Word(Message, subject="word", key="text"):
    text: str

class Length(Row, table="length_{name}", order_by=("text",)):
    text: str
    length: int

def may_begin() -> bool:
    allowed = Path("allowed")
    begun = Path("handled").read_text().split() if Path("handled").exists() else []
    return len(begun) < (int(allowed.read_text()) if allowed.exists() else math.inf)

@app.stage(max_in_flight=20, ack_wait=10)
async def measure(word: Word, ctx: Context) -> Length:
    if ctx.run:
        while not may_begin():
            await asyncio.sleep(0.02)
        with Path("handled").open("a") as file:
            file.write(word.text + "\\n")
    return Length(text=word.text, length=len(word.text) + bool(ctx.run))
"""


def query(sql: str) -> list[dict[str, Any]]:
    return ask(os.environ["MQINFER_CLICKHOUSE_URL"], sql)


def handled(shell: Shell) -> int:
    path = shell.folder / "handled"
    return len(path.read_text().split()) if path.exists() else 0


def allow(shell: Shell, count: int) -> None:
    """Let the handlers of runs begin that many messages; the others wait."""
    (shell.folder / "part").write_text(str(count))
    (shell.folder / "part").replace(shell.folder / "allowed")


@pytest.fixture
def words(served: Shell) -> Shell:
    """A stream of words, answered by the live stage."""
    served.write(APP, module=served.name)
    lines = "".join(json.dumps({"text": f"w{i}"}) + "\n" for i in range(COUNT))
    Path("words.jsonl").write_text(lines)
    code, _, err = served.run("publish", served.app, "word", "words.jsonl")
    assert code == 0, err
    served.drain()
    return served


def live(shell: Shell) -> dict[str, Any]:
    """The live view's fingerprint."""
    (row,) = query(
        "SELECT count() AS rows, groupBitXor(cityHash64(*)) AS hash "
        f"FROM (SELECT text, length, _id, _run, _published FROM length_{shell.name})"
    )
    return row


def test_killed_resumed_and_joined(words: Shell) -> None:
    before = live(words)
    assert before["rows"] == COUNT
    arguments = ["replay", words.app, "--stage", "measure", "--from-seq", "1", "--run", "r1"]
    for kill in range(3):
        again = ["worker", words.app, "--run", "r1"] if kill else arguments
        reached = handled(words) + 30
        allow(words, reached)
        process = words.start(*again, module=EAGER)
        until(lambda reached=reached: handled(words) == reached)
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT)
    assert live(words) == before
    helpers = [words.start("worker", words.app, "--run", "r1") for _ in range(2)]
    for process in helpers:
        event(process, "started")  # both, before there is anything to do
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
    (words.folder / "allowed").unlink()
    for process in helpers:
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, err
    (counts,) = query(
        "SELECT count() AS rows, uniqExact(text) AS texts, uniqExact(_id) AS ids, "
        "uniqExact(_ancestors[-1]) AS parents, max(_visible) AS shown "
        f"FROM length_{words.name}__storage FINAL WHERE _run = 'r1'"
    )
    assert counts == {"rows": COUNT, "texts": COUNT, "ids": COUNT, "parents": COUNT, "shown": 0}
    assert live(words) == before

    shown = words.json("runs", "show", words.app, "r1")
    assert (shown["state"], shown["total"], shown["settled"]) == ("done", COUNT, COUNT)
    assert shown["answered"] == COUNT
    assert shown["tables"][f"length_{words.name}"]["supersedes"] is None
    assert "; not promoted" in words.run("runs", "show", words.app, "r1")[1]
    (listed,) = words.json("runs", "list", words.app)
    assert (listed["name"], listed["stage"], listed["models"]) == ("r1", "measure", {})

    (table,) = words.json("runs", "compare", words.app, "r1")["tables"]
    assert (table["matched"], table["agree"]) == (COUNT, 0)
    assert table["columns"]["length"]["numbers"]["shift"] == 1
    code, out, _ = words.run("runs", "compare", words.app, "r1")
    assert code == 0
    assert f"{COUNT} rows matched, 0.00 % the same" in out
    assert "changed most" in out

    for _ in range(2):
        assert words.json("runs", "promote", words.app, "r1")["state"] == "promoted"
        (row,) = query(f"SELECT count() AS n, uniqExact(_run) AS runs FROM length_{words.name}")
        assert row == {"n": COUNT, "runs": 1}
    (table,) = words.json("runs", "show", words.app, "r1", "--rows", "7")["tables"].values()
    live_row, run_row = {"run": "", "models": {}}, {"run": "r1", "models": {}}
    assert table["supersedes"] == [{"old": live_row, "new": run_row, "rows": COUNT}]
    assert table["superseded_by"] == []
    assert len(table["pairs"]) == 7
    assert table["pairs"][0].keys() == {"input", "key", "old", "new"}
    assert len(words.json("runs", "show", words.app, "r1")["tables"].popitem()[1]["pairs"]) == COUNT
    code, out, _ = words.run("runs", "show", words.app, "r1", "--rows", "2")
    assert code == 0
    assert re.search(rf"{COUNT} +live +- +r1", out)
    assert len(re.findall(r"text=w\d+ +live +- +r1", out)) == 2
    code, _, err = words.run("runs", "discard", words.app, "r1")
    assert (code, "undo that first" in err) == (2, True)
    for _ in range(2):
        assert words.json("runs", "undo", words.app, "r1")["state"] == "done"
        assert live(words) == before
    for _ in range(2):
        assert words.json("runs", "discard", words.app, "r1")["state"] == "discarded"
        assert live(words) == before
    assert words.json("runs", "show", words.app, "r1")["tables"] == {}
    # The live stage has nothing to do with any of it.
    lags = words.json("status", words.app, "--interval", "0")["stages"]
    assert all(stage["lag"] == 0 for stage in lags)


def test_replay_ends_by_itself_and_says_how_far_it_is(words: Shell) -> None:
    code, out, err = words.run(
        "replay", words.app, "-s", "measure", "--since", "1h", "--key", "w7", "--run", "one"
    )
    assert code == 0, err
    assert "run one: 1 messages of stage measure" in out
    assert "run one is done" in out
    code, out, err = words.run(
        "replay", words.app, "-s", "measure", "--from-seq", "5", "--to-seq", "44", "--rate", "80",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["total"] == 40
    assert [events[0]["event"], events[-1]["event"]] == ["started", "ended"]
    assert {event["event"] for event in events[1:-1]} <= {"progress"}
    assert events[-1]["state"] == "done"


def test_a_signal_leaves_the_run_to_be_resumed(words: Shell) -> None:
    allow(words, 30)
    process = words.start(
        "replay", words.app, "-s", "measure", "--from-seq", "1", "--run", "r1", "--share", "0.5"
    )
    until(lambda: handled(words) == 30)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
    process.send_signal(signal.SIGTERM)
    allow(words, COUNT)  # it finishes what it began, and begins no more
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    code, out, _ = words.run("runs", "show", words.app, "r1")
    assert code == 0
    assert "running" in out
    assert "share:       0.5" in out
    assert words.json("runs", "stop", words.app, "r1")["state"] == "stopped"


def test_what_cannot_be_is_a_usage_error(words: Shell) -> None:
    for arguments, text in [
        (("--stage", "nope", "--from-seq", "1"), "has no stage nope"),
        (("--stage", "measure"), "--from-seq N"),
        (("--stage", "measure", "--from-seq", "9999999"), "ahead of the end"),
        (("--stage", "measure", "--from-seq", "1", "--model", "m"), "NAME=VERSION"),
        (("--stage", "measure", "--from-seq", "1", "--model", "m=2"), "has no model m"),
        (("--stage", "measure", "--from-seq", "1", "--rate", "0"), "more than 0"),
        (("--stage", "measure", "--from-seq", "1", "--share", "0"), "a share is more than 0"),
        (("--stage", "measure", "--from-seq", "1", "--share", "1.5"), "at most 1"),
        (("--stage", "measure", "--since", "soon"), "no time"),
    ]:
        code, _, err = words.run("replay", words.app, *arguments)
        assert (code, text in err) == (2, True), err
    code, _, err = words.run("worker", words.app, "--run", "r1", "--drain")
    assert (code, "leave out" in err) == (2, True)
    code, _, err = words.run("worker", words.app, "--run", "r1")
    assert (code, "has no run r1" in err) == (2, True)
    assert words.json("runs", "list", words.app) == []


PICTURES = """
from __future__ import annotations
import base64
from mqinfer import App, Blob, Context, Message, Row

app = App("{name}")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

class Shot(Message, subject="shot"):
    name: str

class Seen(Row, table="seen_{name}", order_by=("name",)):
    name: str
    image: Blob
    verdict: str

@app.stage
async def look(shot: Shot, ctx: Context) -> Seen:
    path = None if shot.name == "inline" else f"shots/{shot.name}.png"
    return Seen(shot.name, Blob(PNG, path=path), f"<b>{ctx.run}</b>")
"""


def test_a_page_with_pictures(served: Shell) -> None:
    app = served.write(PICTURES, module=served.name)
    Path("shots.jsonl").write_text(
        "".join(json.dumps({"name": name}) + "\n" for name in ("one", "inline"))
    )
    assert served.run("publish", app, "shot", "shots.jsonl")[0] == 0
    served.drain()
    arguments = ("replay", app, "-s", "look", "--from-seq", "1", "--run", "r1")
    code, _, err = served.run(*arguments)
    assert code == 0, err
    code, _, err = served.run("runs", "compare", app, "r1", "--html", "page.html")
    assert code == 0, err
    page = Path("page.html").read_text()
    # Live and run keep the picture under two paths; the one that rode inline is the same in both.
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "&lt;b&gt;r1&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "2 rows matched, 0.00 % the same" in page


INPUTS = """
from __future__ import annotations
from mqinfer import App, Blob, Context, Message, Row

app = App("{app}")

class Shot(Message, subject="shot"):
    name: str
    image: Blob
    more: list[Blob] = []

class Verdict(Row, table="verdict_{app}", order_by=("name",)):
    name: str
    verdict: str
    version: str

class Detail(Row, table="detail_{app}", order_by=("name",)):
    name: str
    images: list[Blob]
    version: str

@app.stage
async def look(shot: Shot, ctx: Context) -> list[Verdict | Detail]:
    version = ctx.run or "live"
    verdict = version if shot.name == "path" else "well"
    details = [Detail(shot.name, [shot.image, *shot.more], version)] if shot.name == "many" else []
    return [Verdict(shot.name, verdict, version), *details]
"""
PNG = PICTURES.partition('"iVBOR')[2].partition('"')[0]
SHOTS = [
    {"name": "path", "image": "shots/path.png"},
    {"name": "inline", "image": {"base64": f"iVBOR{PNG}"}},
    {"name": "gone", "image": "shots/gone.png"},
    {"name": "text", "image": "shots/notes.txt"},
    {"name": "many", "image": "shots/path.png", "more": [f"shots/{i}.png" for i in range(9)]},
]
IMAGE = '<img src="data:image/png;base64,'


async def delete(app: str, sequence: int) -> bool:
    """As retention does: a message is gone."""
    async with wiring.jetstream(load_app(app), load_settings(), "test") as broker:
        return await Scanner(broker.client).delete(app.partition(":")[0], sequence)


def test_rows_without_pictures_show_those_of_their_inputs(served: Shell) -> None:
    name = served.name
    source = INPUTS.replace("{app}", name)
    app = served.write(source, module=name)
    folder = Path("blobs/shots")
    folder.mkdir(parents=True)
    (folder / "path.png").write_bytes(base64.b64decode(f"iVBOR{PNG}"))
    (folder / "notes.txt").write_text("no picture")
    Path("shots.jsonl").write_text("".join(json.dumps(shot) + "\n" for shot in SHOTS))
    assert served.run("publish", app, "shot", "shots.jsonl")[0] == 0
    served.drain()
    for run in ("r1", "r2"):
        code, _, err = served.run("replay", app, "-s", "look", "--from-seq=1", f"--run={run}")
        assert code == 0, err

    def compared(*arguments: str) -> tuple[dict[str, Any], dict[str, Any], str]:
        """The table of verdicts, its examples by name, and the page."""
        facts = served.json("runs", "compare", app, "r2", "--html=page.html", *arguments)
        tables = {table["table"]: table for table in facts["tables"]}
        verdicts = tables[f"verdict_{name}"]
        examples = {example["new"]["name"]: example for example in verdicts["examples"]}
        return verdicts, examples, Path("page.html").read_text()

    for other in ("live", "r1"):
        verdicts, examples, page = compared(f"--with={other}")
        assert (verdicts["matched"], verdicts["agree"], verdicts["blobs"]) == (5, 0, [])
        assert [examples[shot["name"]]["sequence"] for shot in SHOTS] == [1, 2, 3, 4, 5]
        image = {"of": "input", "field": "image"}
        assert examples["path"]["blobs"] == [image | {"path": "shots/path.png", "bytes": None}]
        size = len(base64.b64decode(f"iVBOR{PNG}"))
        assert examples["inline"]["blobs"] == [image | {"path": None, "bytes": size}]
        assert [one["field"] for one in examples["many"]["blobs"]] == ["image", *["more"] * 9]
        assert {example["problem"] for example in examples.values()} == {None}
        # One for each of path, inline and many; the row with blobs has the one of many again.
        assert page.count(IMAGE) == 4
        assert "input.image: shots/path.png<" in page
        assert "input.image: inline<" in page
        assert re.search(r"input\.image: shots/gone\.png \([^<]*shots/gone\.png", page)
        assert "input.image: shots/notes.txt (10 bytes, no picture that a browser shows)" in page
        assert "and 2 more" in page
        assert "input.image, old.images, new.images: shots/path.png<" in page
    code, out, _ = served.run("runs", "compare", app, "r2")
    assert code == 0
    assert re.search(r" 1 +input\.image +shots/path\.png\n", out)
    assert re.search(rf" 2 +input\.image +inline, {size} bytes\n", out)

    # A column that differs in every row hides what is the same.
    verdicts, examples, page = compared("--ignore=version")
    assert (verdicts["agree"], verdicts["ignored"]) == (4, ["version"])
    assert (list(verdicts["columns"]), list(examples)) == (["verdict"], ["path"])
    assert page.count('<tr class="changed">') == 1
    verdicts, examples, _ = compared("--ignore=version", "--ignore=verdict")
    assert (verdicts["agreement"], verdicts["columns"], examples) == (1, {}, {})
    code, out, _ = served.run("runs", "compare", app, "r2", "--ignore=version")
    assert (code, "ignored: version\n" in out, "80.00 % the same" in out) == (0, True, True)
    code, out, err = served.run("runs", "compare", app, "r2", "--ignore=version", "--ignore=no")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "compares no column no; it compares: verdict, version" in err

    # What retention has removed since, and what the app cannot read any more.
    assert asyncio.run(delete(app, 1))
    assert asyncio.run(delete(app, 3))
    _, examples, page = compared()
    for shot in ("path", "gone"):
        assert examples[shot]["problem"] == "the stream does not hold it any more"
        assert examples[shot]["blobs"] == []
    assert page.count("its input: the stream does not hold it any more") == 2
    assert examples["inline"]["problem"] is None
    app = served.write(source.replace("name: str", "name: int", 1))
    _, examples, page = compared()
    assert "cannot be decoded: the payload is no Shot" in examples["inline"]["problem"]
    assert "cannot be decoded: the payload is no Shot" in page
