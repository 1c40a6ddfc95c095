"""A request may take any time while the server answers questions, and ends when it falls silent."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mqinfer.errors import Unavailable
from mqinfer.inference.link import Link
from mqinfer.inference.watch import Watch
from tests.support.inference import Server, inference_on, until, x


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    link = Link(server)
    link.watch = Watch(server, link.describe, link.spawn, every=0.001)
    yield link
    await link.close()
    assert link.tasks == set()


async def test_a_slow_request_is_no_outage(server: Server, link: Link) -> None:
    server.gate.clear()
    request = asyncio.create_task(link.watch.infer("double", None, {"x": x(1)}))
    await until(lambda: server.described >= 20)
    assert not request.done()
    assert link.availability.reason is None
    server.gate.set()
    assert (await request).outputs["y"].tolist() == [2]
    assert len(server.requests) == 1


async def test_what_is_said_of_a_model_is_a_sign_of_life(server: Server, link: Link) -> None:
    server.gate.clear()
    request = asyncio.create_task(link.watch.infer("double", None, {"x": x(1)}))
    await until(lambda: server.under_way == 1)
    server.gone.add("double")
    await until(lambda: server.described >= 20)
    assert not request.done()
    server.gone.clear()
    server.gate.set()
    await request


async def test_requests_end_when_the_server_is_silent(server: Server, link: Link) -> None:
    server.gate.clear()
    requests = [
        asyncio.create_task(link.watch.infer("double", None, {"x": x(value)})) for value in (1, 2)
    ]
    await until(lambda: server.under_way == 2)
    server.down = "no answer within 3 s"
    for request in requests:
        with pytest.raises(Unavailable, match=r"fell silent: no answer within 3 s"):
            await request
    assert server.cancelled == 2


async def test_one_question_without_an_answer_says_nothing(server: Server, link: Link) -> None:
    server.gate.clear()
    request = asyncio.create_task(link.watch.infer("double", None, {"x": x(1)}))
    await until(lambda: server.under_way == 1)

    async def questions(count: int) -> None:
        wanted = server.described + count
        await until(lambda: server.described >= wanted)

    for _ in range(5):
        server.down = "busy"
        await questions(1)
        server.down = None
        await questions(2)
    assert not request.done()
    server.gate.set()
    await request


async def test_a_silent_server_is_an_outage_for_its_calls(server: Server) -> None:
    async with inference_on(server) as inference:
        link = inference._link
        link.watch = Watch(server, link.describe, link.spawn, every=0.001)
        server.gate.clear()
        call = asyncio.create_task(inference("double", None, {"x": x(1)}))
        await until(lambda: server.under_way == 1)
        server.down = "no answer"
        await until(lambda: link.availability.reason)
        server.down = None
        server.gate.set()
        assert (await call)["y"].tolist() == [2]
        assert inference.statistics().queues[0].resent == 1


async def test_it_looks_no_more_when_nothing_is_under_way(server: Server, link: Link) -> None:
    await link.watch.infer("double", None, {"x": x(1)})
    await until(lambda: link.watch._timer is None)
    assert server.described == 0
