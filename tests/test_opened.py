"""In other people's programs: models and blobs in tasks, loops and threads of their own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

import mqinfer
from mqinfer import App, Blob, Message, Settings, wiring
from mqinfer.errors import ConfigurationError, NotConnected
from mqinfer.testing import Harness
from tests.support.inference import Server, x

_T = TypeVar("_T")

app = App("web")
model = app.model("double")
other = App("other")
other_model = other.model("double")


class Number(Message, subject="number"):
    value: float


class Double(Message, subject="double"):
    value: float


@app.stage
async def double(number: Number) -> Double:
    return Double(await twice(number.value))


@app.stage
async def see(seen: Double) -> None: ...


class Triton(Server):
    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Triton]:
    """One for each client, in the order in which they are opened."""
    made: list[Triton] = []

    def triton(settings: Settings) -> Any:
        made.append(Triton())
        return made[-1]

    monkeypatch.setattr(wiring, "triton", triton)
    return made


async def twice(value: float, handle: Any = model) -> float:
    return float((await handle(x=x(value)))["y"][0])


async def elsewhere(call: Callable[[], Awaitable[_T]]) -> _T:
    """In a task that was started outside of everything that this one has entered."""

    async def run() -> _T:
        return await call()

    return await asyncio.create_task(run(), context=contextvars.Context())


async def test_a_client_answers_every_task_while_it_is_open(nats: Settings) -> None:
    with pytest.raises(NotConnected, match="a web app's lifespan may hold"):
        await elsewhere(lambda: twice(1))
    async with mqinfer.connect(app, nats) as client:
        assert await twice(1) == await elsewhere(lambda: twice(1)) == 2
        assert await elsewhere(lambda: twice(2, client.model(model))) == 4
        assert await elsewhere(lambda: twice(3, client.model("double"))) == 6
        with pytest.raises(ConfigurationError, match=r"app web declares no model grader.*double"):
            client.model("grader")
        with pytest.raises(ConfigurationError, match="app web declares no model"):
            client.model(other_model)
        kept = client.model(model)
    with pytest.raises(NotConnected):
        await elsewhere(lambda: twice(1))
    with pytest.raises(NotConnected):
        await twice(1, kept)


async def test_of_two_apps_each_answers_its_own_models(
    nats: Settings, servers: list[Triton]
) -> None:
    async with mqinfer.connect(app, nats), mqinfer.connect(other, nats):
        await elsewhere(lambda: twice(1))
        await elsewhere(lambda: twice(2, other_model))
    assert [server.values for server in servers] == [[[1.0]], [[2.0]]]


async def test_of_two_clients_of_one_app_the_caller_says_which(
    nats: Settings, servers: list[Triton]
) -> None:
    async with mqinfer.connect(app, nats) as one, mqinfer.connect(app, nats) as two:
        with pytest.raises(NotConnected, match=r"2 clients are open.*client\.model\('double'\)"):
            await elsewhere(lambda: twice(1))
        await elsewhere(lambda: twice(1, one.model(model)))
        await elsewhere(lambda: twice(2, two.model(model)))
        await twice(3)  # the inner one is what this task entered
    assert [server.values for server in servers] == [[[1.0]], [[2.0], [3.0]]]


async def test_a_loop_of_another_thread_is_answered(nats: Settings) -> None:
    async with mqinfer.connect(app, nats) as client:

        def thread() -> list[float]:
            return [asyncio.run(twice(1)), asyncio.run(twice(2, client.model(model)))]

        context = contextvars.Context()
        found = await asyncio.get_running_loop().run_in_executor(None, context.run, thread)
    assert found == [2.0, 4.0]


async def test_a_client_may_be_closed_by_another_task(nats: Settings) -> None:
    connected = mqinfer.connect(app, nats)
    await connected.__aenter__()
    assert await twice(1) == 2
    await elsewhere(lambda: connected.__aexit__(None, None, None))
    with pytest.raises(NotConnected, match="while the worker runs"):  # what this task entered
        await twice(1)
    async with mqinfer.connect(app, nats):
        assert await twice(1) == await elsewhere(lambda: twice(1)) == 2


async def test_a_worker_in_the_same_program_answers_its_handlers_itself(
    nats: Settings, servers: list[Triton]
) -> None:
    async with Harness(app, nats) as harness, mqinfer.connect(app, nats):
        await harness.publish(Number(4))
        await harness.drain()
        assert await harness.messages(Double) == [Double(8)]
        assert await twice(5) == await elsewhere(lambda: twice(5)) == 10
    # The harness has a client of its own, without a place in the list.
    assert [server.values for server in servers] == [[], [[5.0], [5.0]], [[4.0]]]


async def test_a_blob_made_by_hand_is_read_while_one_client_is_open(nats: Settings) -> None:
    async with mqinfer.connect(other, nats) as client:
        await client.blobs.put("a/b", b"picture")
        assert await elsewhere(lambda: Blob.at("a/b").bytes()) == b"picture"
        assert await asyncio.to_thread(asyncio.run, Blob.at("a/b").bytes()) == b"picture"
        async with mqinfer.connect(app, nats):
            with pytest.raises(NotConnected, match=r"2 clients are open.*bind\(client\.blobs\)"):
                await Blob.at("a/b").bytes()
            assert await Blob.at("a/b").bind(client.blobs).bytes() == b"picture"
    with pytest.raises(NotConnected, match="belongs to no store"):
        await Blob.at("a/b").bytes()
