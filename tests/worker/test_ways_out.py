"""Every way out of the engine leaves an answer, a dead letter, or a line in the log and a count.

The last test lists the places that acknowledge or end a message: the others go each of these ways.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import mqinfer
from mqinfer import App, Backoff, Message, Reject, Row, Settings
from mqinfer.adapters.scan import Scanner
from mqinfer.identity import IDENTITY, MSG_ID, ONLY, RUN, retry_id
from mqinfer.metrics import StageMetrics
from mqinfer.operate.status import TaskStatus, gather, warnings
from mqinfer.ports import Database
from mqinfer.testing import Harness
from mqinfer.worker.tally import Counts, Tally, read
from tests.support.bucket import Memory


class Photo(Message):
    n: int


class Told(Message):
    n: int


class Grade(Row, table="ways_grade", order_by="n"):
    n: int


class Handed(Message, foreign_ids=False):
    n: int


async def states(harness: Harness) -> dict[str, TaskStatus]:
    broker: Any = harness.services.broker
    found = await gather(harness.app, Scanner(broker.client))
    for line in warnings(found):
        print(line)
    return {task.name: task for task in found.tasks}


async def test_headers_of_strangers_hide_nothing_and_what_is_passed_over_is_told(
    nats: Settings,
) -> None:
    app = App("ways")

    @app.stage
    async def tell(photo: Photo) -> Told:
        return Told(photo.n)

    @app.stage(attempts=2, backoff=Backoff(initial=0.01))
    async def fail(photo: Photo) -> None:
        raise Reject("no") if photo.n == 2 else ValueError("no")

    strange = [
        {},
        {ONLY: "fail"},
        {ONLY: "nobody", RUN: "r"},
        {ONLY: "fail", MSG_ID: retry_id("dead.elsewhere.fail", 7, "2026")},
        {RUN: "r", MSG_ID: "used last month", "Mq-Ancestors": "a b", "Mq-Dead-Stage": "tell"},
        {IDENTITY: "i", "Mq-Stage": "tell", "Mq-Models": "x=1"},
    ]
    async with Harness(app, nats) as harness:
        for n, headers in enumerate(strange):
            await harness.publish_bytes("ways.photo", b'{"n": %d}' % n, headers)
        await harness.drain()
        assert [told.n for told in await harness.messages(Told)] == list(range(len(strange)))
        letters = await harness.dead()
        assert sorted(letter.origin[1] for letter in letters) == list(range(1, len(strange) + 1))
        assert {letter.run for letter in letters} == {None}  # they can be sent back
        assert all(not task.skipped for task in (await states(harness)).values())

        # What `dead retry` sends back is for one stage; the other says that it passes it over.
        back = {ONLY: "fail", MSG_ID: retry_id("dead.ways.fail", 1, "2026"), IDENTITY: "ways:1"}
        await harness.publish_bytes("ways.photo", b'{"n": 9}', back)
        # And one that was answered comes again: its output is a repeat.
        await harness.publish_bytes("ways.photo", b'{"n": 0}', {IDENTITY: "ways:1"})
        with capture_logs() as logs:
            await harness.drain()
        (line,) = (line for line in logs if line["event"].startswith("passed over"))
        assert (line["stage"], line["id"], line["only"]) == ("tell", "ways:1", "fail")
        found = await states(harness)
        assert (found["tell"].skipped, found["tell"].repeats) == (1, 1)
        assert (found["fail"].skipped, found["fail"].dead) == (0, len(strange) + 2)
        assert len(await harness.messages(Told)) == len(strange)


async def test_a_row_under_a_strangers_run_is_shown_and_what_is_no_dead_letter_is_told(
    nats: Settings, db: Database, url: str
) -> None:
    app = App("wayrows")

    @app.stage
    async def grade(photo: Photo) -> Grade:
        return Grade(photo.n)

    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    async with Harness(app, settings) as harness:
        for kind in ("photo", "ways_grade"):
            await harness.publish_bytes(f"wayrows.{kind}", b'{"n": 1}', {RUN: "r"})
        await harness.publish_bytes("dead.wayrows.grade", b"?")
        with capture_logs() as logs:
            await harness.drain()
        assert len(await db.query("SELECT * FROM ways_grade")) == 2
        assert "no dead letter of mqinfer" in str(logs)
        sink = (await states(harness))["sink-mqinfer_dead_letters"]
        assert sink.dropped == 1


async def test_a_foreign_id_is_none_where_its_type_says_so(nats: Settings) -> None:
    app = App("handed")

    @app.stage
    async def tell(handed: Handed) -> Told:
        if handed.n == 3:
            raise Reject("no")
        return Told(handed.n)

    async with Harness(app, nats) as harness:
        for n in range(4):  # a bridge's, which say of each that it is the same
            await harness.publish_bytes("handed.handed", b'{"n": %d}' % n, {IDENTITY: "same"})
        await harness.drain()
        assert [told.n for told in await harness.messages(Told)] == [0, 1, 2]
        (letter,) = await harness.dead()
        assert letter.headers[IDENTITY] == "handed:4"


def test_a_stage_cannot_write_what_has_foreign_ids() -> None:
    app = App("handed")

    @app.stage
    async def give(photo: Photo) -> Handed: ...

    (problem,) = app.resolve()[1]
    assert "writes Handed, which has foreign_ids=False" in str(problem)


# --- the counts ---------------------------------------------------------------------------------


async def test_counts_are_added_up_over_processes_and_told_once() -> None:
    bucket, metrics = Memory(), [StageMetrics(), StageMetrics()]
    tallies = [Tally(bucket, lambda one=one: [("s", one)]) for one in metrics]  # type: ignore[misc]
    for tally in tallies:
        await tally.end()
    assert not bucket.values
    for one, times in zip(metrics, (2, 3), strict=True):
        for _ in range(times):
            one.skipped()
        one.duplicates(10)
    for tally in (*tallies, *tallies):
        await tally.end()
    assert read((await bucket.load("s.tally") or (b"", 0))[0]) == Counts(skipped=5, repeats=20)


@pytest.mark.parametrize("value", [None, b"", b"7", b"[]", b'{"skipped": "x"}', b"\xff"])
def test_what_is_no_count_counts_nothing(value: bytes | None) -> None:
    assert read(value) == Counts()


def callers(*methods: str) -> set[tuple[str, str]]:
    """File and function of every call of a method of such a name."""
    found = set()
    for path in Path(mqinfer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(node):
                    if (
                        isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Attribute)
                        and call.func.attr in methods
                    ):
                        found.add((path.name, node.name))
    return found


def test_no_other_place_acknowledges_or_ends_a_message() -> None:
    assert callers("ack", "term") == {
        ("settler.py", "_done"),  # its outputs are stored; repeats are counted
        ("settler.py", "skipped"),  # a line and a count
        ("settler.py", "unwanted"),  # nobody waits for it any more: a count, and who waits is told
        ("settler.py", "passed_over"),  # beyond the end of a run, counted: live work has it
        ("settler.py", "ended"),
        ("burying.py", "ended"),  # a dead letter, or what a shadow says in its place
        ("owner.py", "_token"),  # of a partition that is no more: no message
        ("feed.py", "run"),  # of an index: its shards have it, and where they have read is counted
    }


def test_nothing_else_says_that_to_the_server() -> None:
    saying = {
        path.name
        for path in Path(mqinfer.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, bytes)
        and any(word in node.value for word in (b"+ACK", b"+TERM", b"+NXT"))
    }
    assert saying == {"jetstream.py"}


def test_a_message_that_leaves_without_that_comes_again_and_is_told() -> None:
    assert callers("_leave") == {
        ("settler.py", "_end"),  # of those above
        ("settler.py", "_comes_again"),  # a count, and of those below
        ("settler.py", "hand_back"),  # given back by a stop; the ledger has it
        ("settler.py", "let_go"),  # a line and a count; the ledger has it
        ("settler.py", "holds"),  # its lease is lost, a line: another worker has it
    }
    ends = ("_done", "skipped", "unwanted", "dead", "ended")
    assert {found for found in callers("_end") if found[0] == "settler.py"} == {
        ("settler.py", name) for name in ends
    }
    assert callers("_comes_again") == {
        ("settler.py", "_give_back"),  # a line, and what it was in the ledger
        ("settler.py", "written"),
        ("settler.py", "_not_buried"),  # a line: it comes again until its dead letter is stored
    }
    assert callers("let_go") == {
        ("claims.py", "let_go"),
        ("claims.py", "takes"),
        ("claims.py", "turned"),
        ("runner.py", "tick"),  # its partition is another worker's: as above
    }
