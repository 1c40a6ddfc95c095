"""Overload and outage: told before the body is read, with a time to come again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from mqinfer import App, Message
from mqinfer.gateway import load
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import until
from tests.support.gateway import Served, serving

ASK = "/v1/endpoints/grade/requests"


async def refused(served: Served) -> httpx.Response | None:
    """An answer that refuses, which comes although the body never ends."""

    head = (
        f"POST {ASK} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: 20\r\n\r\n"
    )
    base = served.http.base_url
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        writer.write(head.encode() + b"{")
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)
    except TimeoutError:
        return None
    finally:
        writer.close()
    first, *lines = raw.decode().split("\r\n")
    return httpx.Response(
        int(first.split()[1]), headers=[tuple(one.split(": ", 1)) for one in lines if one]
    )


async def test_a_backlog_refuses_more_until_it_is_worked_off(nats: Settings) -> None:
    async with serving(nats, max_backlog=20) as served:
        answers = []

        async def full() -> bool:
            answers.append(await served.ask(name="a", leaves=1))
            return answers[-1].status_code == 429

        await until(full, "a full backlog")
        assert {one.status_code for one in answers[:-1]} == {202}
        # Within the quarter of a second in which a look counts more may come in.
        assert len(answers) > 9
        last = answers[-1]
        assert last.json()["type"] == "urn:mqinfer:problem:busy"
        assert 1 <= int(last.headers["retry-after"]) <= 7  # nothing was worked off: not known
        unread = await refused(served)
        assert unread is not None
        assert unread.status_code == 429
        # Another endpoint has room.
        assert (await served.ask("see", id="a")).status_code == 202
        async with served.harness.worker():

            async def room() -> bool:
                return (await served.ask(name="a")).status_code == 202

            await until(room, "room")


async def test_the_rate_is_that_of_what_was_worked_off(nats: Settings) -> None:
    now = [0.0]
    async with serving(nats) as served, served.harness.worker():
        services = served.harness.services
        watched = load.Load(served.harness.app, services.broker, 10, lambda: now[0])
        assert await watched.backlog("grade") == 0
        assert watched.rate("grade") == 0
        for _ in range(10):
            assert (await served.ask(name="a", leaves=2, wait=60)).status_code == 200

        async def acknowledged() -> bool:
            # A request may have ended before its last messages are acknowledged.
            lags = [await served.harness.lag(name) for name in ("cut", "weigh", "grade")]
            return lags == [0, 0, 0]

        await until(acknowledged, "all messages to be acknowledged")
        now[0] = 10.0
        assert await watched.backlog("grade") == 0
        # 10 photographs before two stages, and 20 leaves, in ten seconds of this clock.
        assert watched.rate("grade") == pytest.approx(4.0)
        assert load.seconds_until(40, watched.rate("grade"), 0) == 10


async def test_while_nats_is_away_nothing_is_accepted_and_nothing_hangs(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    await server.wait_ready()
    settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
    try:
        async with serving(settings) as served:
            told = (await served.ask(name="a")).json()
            stream = served.http.stream("GET", told["links"]["events"])
            async with stream as events:
                await server.stop()

                async def away() -> bool:
                    return (await served.http.get("/readyz")).status_code == 503

                await until(away, "an outage")
                answer = await served.ask(name="a")
                assert answer.status_code == 503
                assert answer.json()["type"] == "urn:mqinfer:problem:unavailable"
                assert int(answer.headers["retry-after"]) >= 1
                unread = await refused(served)
                assert unread is not None
                assert unread.status_code == 503
                assert (await served.http.get(told["links"]["self"])).status_code == 503
                assert (await served.http.get("/healthz")).status_code == 200
                await server.start()
                await server.wait_ready()

                async def back() -> bool:
                    return (await served.ask(name="a")).status_code == 202

                await until(back, "the end of the outage")
                # What was accepted before is there, and the stream goes on, or says: come again.
                async with served.harness.worker():
                    assert (await served.ended(told["id"]))["status"] == "succeeded"
                    names = [
                        line.removeprefix("event: ")
                        async for line in events.aiter_lines()
                        if line.startswith("event: ")
                    ]
                    assert names[-1] in ("end", "reconnect")
    finally:
        await server.stop()


class Text(Message):
    text: str


class Length(Message):
    n: int


async def test_a_full_stream_refuses_more_and_forgets_nothing(nats: Settings) -> None:
    app = App("full", max_bytes=100_000)

    @app.stage
    async def measure(text: Text) -> Length:
        return Length(len(text.text))

    app.endpoint("measure", Text, answers=Length)
    async with serving(nats, app) as served:
        accepted: list[str] = []
        refusals: list[httpx.Response] = []

        async def ask() -> None:
            answer = await served.ask("measure", text="x" * 20_000)
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            else:
                refusals.append(answer)

        async def fill() -> None:
            """What is kept, and finds no room, waits for some for a few seconds."""
            while not refusals:
                await ask()

        async def refuses() -> bool:
            if (await served.http.get("/readyz")).status_code == 503:
                await ask()
            return bool(refusals)

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            await until(refuses, "a full stream")
        answer = refusals[0]
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:mqinfer:problem:unavailable"
        assert "full" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert len(accepted) > 4
        # Also those that were kept, and whose message found no room, wait for it.
        for identity in accepted:
            kept = (await served.http.get(f"/v1/requests/{identity}")).json()
            assert kept["status"] == "queued"
