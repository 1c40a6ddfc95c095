"""That the benchmarks run, and check what they measure: at the smallest scale, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import (
    asking,
    jobs,
    latency,
    load,
    ordered,
    replay,
    requests,
    scale,
    search,
    servers,
    sink,
    start,
    timers,
    views,
)
from benchmarks.results import Options, Result
from benchmarks.times import quantile
from examples.requests.torchfile import read_weights


def options(folder: Path) -> Options:
    return Options(folder, scale=0.01, repeat=1, say=lambda _: None)


def figures(result: Result) -> dict[str, list[float]]:
    """The medians of every row by its name."""
    return {row.name: [figure.median for figure in row.figures.values()] for row in result.rows}


async def test_start(tmp_path: Path) -> None:
    result = await start.measure(options(tmp_path))
    assert len(result.rows) == 3
    assert all(seconds > 0 for row in figures(result).values() for seconds in row)
    assert len(result.goals) == 2


async def test_search(tmp_path: Path) -> None:
    some = msgspec.structs.replace(options(tmp_path), only=["10k", "100k"])
    result = await search.measure(some)
    # Sizes in process, both bare and ours; in ClickHouse; the smallest through NATS.
    assert len(result.rows) == 7
    assert all(row.figures["recall@10"].median > 0.8 for row in result.rows)
    assert len(result.goals) == 3


async def test_servers(tmp_path: Path) -> None:
    result = await servers.measure(options(tmp_path))
    assert "our own server" in figures(result)
    assert all(value > 0 for row in figures(result).values() for value in row)


async def test_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it costs nothing to start: the limit and mqinfer.
    monkeypatch.setattr(requests, "CONTENDERS", requests.CONTENDERS[:2])
    result = await requests.measure(options(tmp_path))
    assert [row.name for row in result.rows] == [requests.DIRECT, requests.OURS]
    for p50, p99, rate, of_many, processor in figures(result).values():
        assert 0 < p50 <= p99
        assert rate > 0
        assert of_many > 0
        assert processor > 0
    above, *beside = result.goals
    assert -1000 < above.found < 1000
    assert not any(goal.met for goal in beside)  # of whom nothing was measured


async def test_jobs(tmp_path: Path) -> None:
    result = await jobs.measure(options(tmp_path))
    found = figures(result)
    # So small a job may be done, on a busy machine, before what is measured beside it begins.
    assert found.pop("a job's rows")[0] >= 0
    assert all(value > 0 for row in found.values() for value in row)
    (goal,) = result.goals
    assert goal.at_most
    assert goal.found > 0


async def test_answers_are_checked() -> None:
    handlers: list[Any] = []
    told = [b'{"y": 1.0}', b'{"y": 3.0}', b'{"y": 4.0}']

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # it goes
            for body in told:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /predict HTTP/1.1\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                await writer.drain()
                writer.write(body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        plan = asking.Plan((port,), "/predict", '{"x": %d}', answer=r'"y": ([0-9.]+)', lead=0.0)
        found = await asking.ask(msgspec.structs.replace(plan, most=2))
        assert (found.counted, found.asked) == (2, 2)
        with pytest.raises(RuntimeError, match="a wrong answer for 2"):
            await asking.ask(msgspec.structs.replace(plan, most=3))
        told.pop()
        with pytest.raises(RuntimeError, match="a connection was lost"):
            await asking.ask(msgspec.structs.replace(plan, most=3))
        with pytest.raises(RuntimeError, match="status 200"):
            await asking.ask(msgspec.structs.replace(plan, status=202))
        await asyncio.gather(*handlers)


def test_answers_in_chunks_are_whole_with_the_last() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert asking._response(bytearray(head[:-2])) is None
    assert asking._response(bytearray(head + b'a\r\n{"y": 1.0}\r\n')) is None
    whole = bytearray(head + b'a\r\n{"y": 1.0}\r\n0\r\n\r\n')
    found = asking._response(whole)
    assert found is not None
    assert found[0] == 200
    assert b'"y": 1.0' in found[1]


async def test_replay(tmp_path: Path) -> None:
    result = await replay.measure(options(tmp_path))
    assert len(result.rows) == 3
    assert all(rate > 0 for row in figures(result).values() for rate in row)


async def test_sink(tmp_path: Path) -> None:
    pytest.importorskip("chdb")
    # Less than of the others: it starts fifteen workers, whatever there is to do.
    result = await sink.measure(msgspec.structs.replace(options(tmp_path), scale=0.002))
    assert all(value > 0 for row in figures(result).values() for value in row)
    assert {goal.at_most for goal in result.goals} == {True, False}


async def test_views(tmp_path: Path) -> None:
    pytest.importorskip("chdb")
    # Blocks and days are as many at any scale.
    result = await views.measure(msgspec.structs.replace(options(tmp_path), scale=0.0005))
    assert len(result.rows) == 2
    assert all(seconds > 0 for row in figures(result).values() for seconds in row)
    assert result.goals[-1].met  # what is read, not how long it takes


async def test_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "faststream" else find(name)
    )
    result = await latency.measure(options(tmp_path))
    assert len(result.rows) == 2 * len(latency.SHARES)  # hand-written, mqinfer
    for _rate, p50, p99, p999 in figures(result).values():
        assert 0 < p50 <= p99 <= p999
    assert any("left out" in note for note in result.notes)
    # What cannot be measured is not met: all that stands beside FastStream.
    assert not any(goal.met for goal in result.goals if "FastStream" in goal.what)


async def test_scale_on_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One backlog, which two processes drain further: each is a process or two more.
    monkeypatch.setattr(scale, "SINGLE", scale.SINGLE[1:2])
    monkeypatch.setattr(scale, "CLUSTER", ())
    result = await scale.measure(options(tmp_path))
    assert len(result.rows) == 2 * len(set(scale.scaled(options(tmp_path), scale.SINGLE)))
    memory = [row.figures["memory of a worker"].median for row in result.rows]
    assert all(10 < megabytes < 1000 for megabytes in memory)


async def test_a_wrong_count_is_an_error(tmp_path: Path) -> None:
    async with load.servers(tmp_path) as (_, jetstream):
        await load.create(jetstream, "counted")
        assert await load.fill(jetstream, "counted.in", load.items(0, 2500)) == 2500
        await load.expect(jetstream, "counted", "counted.in", 2500)
        with pytest.raises(RuntimeError, match="2,500 messages instead of 2,499"):
            await load.expect(jetstream, "counted", "counted.in", 2499)


async def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no module 'nowhere'"):
        async with load.process(tmp_path / "log", "mqinfer", "worker", "nowhere:app") as process:
            await process.process.wait()


def test_quantiles() -> None:
    assert [quantile(range(1, 101), q) for q in (0.5, 0.99, 0.999)] == [50, 99, 100]
    assert quantile([3.0], 0.5) == 3.0


def test_a_pickle_that_holds_more_than_weights_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="no place"):
        read_weights(io.BytesIO(pickle.dumps(Path)))
    with pytest.raises(pickle.UnpicklingError, match="format before"):
        read_weights(io.BytesIO(pickle.dumps(1)))


async def test_timers(tmp_path: Path) -> None:
    (row,) = (await timers.measure(options(tmp_path))).rows
    assert row.figures["set/s"].median > 0
    assert row.figures["late alone, median"].median >= 0


async def test_ordered(tmp_path: Path) -> None:
    result = await ordered.measure(options(tmp_path))
    assert [row.name for row in result.rows] == [case.name for case in ordered.CASES]
    for row in result.rows:
        assert row.figures["messages/s"].median > 0
        assert row.figures["worker µs"].median >= 0  # of so few the clock may tell nothing
        assert row.figures["worker, MB"].median > 10
