"""Of the console what needs no server: shared looks, words, groups, why a stage stands."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.completion.record import First, Kind, Output, Record
from mqinfer.console import payloads, rendering
from mqinfer.console.looks import Look, Looks, Seen
from mqinfer.console.pages.pipeline import how
from mqinfer.errors import Unavailable
from mqinfer.operate.alike import pattern
from mqinfer.operate.newest import newest
from mqinfer.operate.status import TaskStatus
from mqinfer.requests.stretches import of_records
from mqinfer.streams import Stored
from mqinfer.worker.presence import LOST, Present

NOW = datetime.datetime.now(datetime.UTC)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_look_is_shared_by_all_who_watch() -> None:
    clock, made, go = Clock(), 0, asyncio.Event()

    async def make() -> Mapping[str, Any]:
        nonlocal made
        made += 1
        await go.wait()
        return {"n": made}

    async with asyncio.TaskGroup() as group:
        look = Look(make, 0.0, group, clock)
        look._every = 1.0
        watching = [asyncio.create_task(look.now()) for _ in range(50)]
        await asyncio.sleep(0)
        watching[0].cancel()  # whoever asked first goes, and the others see it all the same
        go.set()
        seen = await asyncio.gather(*watching, return_exceptions=True)
        assert {one.state["n"] for one in seen if isinstance(one, Seen)} == {1}
        assert made == 1
        assert (await look.now()).state["n"] == 1
        clock.now += 1.5
        last = await look.now()
        assert last.state["n"] == 2
        clock.now += 1.5
        assert (await look.after(last)).state["n"] == 3
        assert (await look.after(last)).state["n"] == 3  # who comes later than another
        assert made == 3  # and nobody looks while nobody asks


async def test_a_look_that_fails_says_why() -> None:
    async def away() -> Mapping[str, Any]:
        raise Unavailable("NATS does not answer")

    async def broken() -> Mapping[str, Any]:
        raise KeyError("secret")

    async with asyncio.TaskGroup() as group:
        looks = Looks(group)
        assert (await looks.of("a", away, 1.0).now()).problem == "NATS does not answer"
        problem = (await looks.of("b", broken, 1.0).now()).problem
        assert problem is not None
        assert "secret" not in problem
        assert looks.of("a", away, 1.0) is looks.of("a", away, 1.0)
        first = looks.of("a", away, 1.0)
        for number in range(300):
            looks.of(number, away, 1.0)
        assert looks.of("a", away, 1.0) is not first  # what nobody asks for is let go


@given(st.binary(max_size=300), st.sampled_from([None, "application/json", "application/msgpack"]))
def test_any_payload_is_text(payload: bytes, content_type: str | None) -> None:
    shown = payloads.text(payload, content_type)
    assert all(char.isprintable() or char in "\n\t" for char in shown)


def test_payloads() -> None:
    assert (
        payloads.text(b'{"a": [1, "\xc3\xa4"]}', None)
        == '{\n  "a": [\n    1,\n    "\u00e4"\n  ]\n}'
    )
    assert payloads.text(b"plain words", None) == "plain words"
    assert (
        payloads.text(b"\x81\xa1a\xc4\x02hi", "application/msgpack") == '{\n  "a": "(2 bytes)"\n}'
    )
    assert payloads.text(b"\x00\xff", None).startswith("000000  00 ff")
    assert "400,000 characters" in payloads.text(b'"' + b"a" * 400_000 + b'"', None)
    assert payloads.text("\u202eevil".encode(), None) == "\\u202eevil"
    assert payloads.text(b"[" * 100_000, None)


def test_words() -> None:
    assert rendering.number(None) == rendering.rate(None) == "\N{EN DASH}"
    assert rendering.rate(0.25) == "0.2"
    assert rendering.rate(1234.5) == "1,234"
    assert rendering.seconds(0.0123) == "12 ms"
    assert rendering.seconds(300) == "5 min"
    assert rendering.size(1_250_000) == "1.2 MB"
    assert ">30 min ago</time>" in rendering.ago(NOW - datetime.timedelta(minutes=30), NOW)
    assert ">just now</time>" in rendering.ago(NOW, NOW)
    assert ">in 2 h</time>" in rendering.ago(NOW.timestamp() + 7200, NOW)
    assert rendering.address("/labels", {"a": "1", "b": "x y"}, a=None) == "/labels?b=x+y"
    assert pattern("no file 'a b' at 0x12 for 3f2a9c3f2a9c3f2a9c") == pattern(
        "no file 'c' at 0x99 for 0000000000000000ab"
    )


def test_why_a_stage_stands() -> None:
    now = 1000.0
    there = Present("a", 1, 0.0, stages=("cut",), at=now)
    gate = Present("a", 1, 0.0, stages=("cut",), reasons=("stage cut: Triton is away",), at=now)
    other = Present("a", 1, 0.0, stages=("cut",), reasons=("stage grade: no",), at=now)
    lost = Present("a", 1, 0.0, stages=("cut",), at=now - 20)
    assert lost.lost(now)
    assert not Present("a", 1, 0.0, at=now - LOST + 1).lost(now)
    waits = TaskStatus("cut", exists=True, waiting=5, rate=0.0)
    assert how(TaskStatus("cut", exists=True, waiting=5, rate=2.0), [], now).word == "moves"
    assert how(TaskStatus("cut", exists=True), [there], now).word == "idle"
    assert how(TaskStatus("cut"), [], now).why == "no worker has run it yet"
    assert how(waits, [], now).why == "no worker runs it"
    assert how(waits, [lost], now).why == "its worker was lost 20 s ago"
    assert how(waits, [lost, gate], now).why == "stage cut: Triton is away"
    assert how(waits, [other], now).word == "waits"
    busy = TaskStatus("cut", exists=True, in_flight=2, redelivered=1, rate=0.0)
    assert how(busy, [there], now).why == "2 in flight, 1 of them not for the first time"


def test_where_the_time_of_a_request_went() -> None:
    first = First(readers=("cut",), payload=-1, published=int(100e9), headers={})
    cut = Record("r", "cut", "answered", kinds=(Kind("leaf", ("grade",)),), first=first,
                 outputs=(Output("a", 0, 0), Output("b", 0, 1)))  # fmt: skip
    records = [
        (103.0, Record("a", "grade", "dead", error=("failed", "x"))),  # in any order
        (101.0, cut),
        (101.5, Record("b", "grade", "failed")),  # an attempt alone settles nothing
    ]
    one, two = of_records(records)
    assert (one.stage, one.messages, one.settled, one.began, one.ended) == ("cut", 1, 1, 100, 101)
    assert one.mean == pytest.approx(1.0)
    assert (two.stage, two.messages, two.settled, two.dead, two.ended) == ("grade", 2, 1, 1, None)
    assert two.mean == pytest.approx(2.0)
    assert of_records([]) == []


class _Stream:
    """A stream of which some messages are there."""

    def __init__(self, sequences: list[int]):
        self.sequences = sequences

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        last = max(self.sequences, default=0)
        return {"state": {"first_seq": min(self.sequences, default=last + 1), "last_seq": last}}

    async def messages(self, stream: str, subject: str = ">", *, first: int, last: int) -> Any:
        for one in self.sequences:
            if first <= one <= last:
                yield Stored(stream, "a", one, NOW, {}, b"")


@given(st.sets(st.integers(1, 2000), max_size=120), st.integers(1, 30), st.integers(1, 5))
async def test_all_pages_together_are_the_list(there: set[int], count: int, each: int) -> None:
    stream = _Stream(sorted(there))
    seen: list[int] = []
    before: int | None = None
    for _ in range(200):
        page = await newest(
            stream,  # type: ignore[arg-type]
            "s",
            lambda one: one.sequence if one.sequence % each == 0 else None,
            before=before,
            count=count,
        )
        assert len(page.found) <= count
        seen += page.found
        before = page.older
        if before is None:
            break
    assert seen == sorted((one for one in there if one % each == 0), reverse=True)
