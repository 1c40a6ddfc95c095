"""Several inference servers as one: who is asked, who is left out, what is lost when one dies."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqinfer import App, Message
from mqinfer.adapters.addresses import Addresses
from mqinfer.adapters.spread import Spread
from mqinfer.adapters.triton import TritonClient, open_triton
from mqinfer.errors import ConfigurationError, ModelError, ModelUnavailable, Unavailable
from mqinfer.inference.calls import ServerLost
from mqinfer.inference.inference import Inference
from mqinfer.model import Answer, Model
from mqinfer.operate import check
from mqinfer.operate.addresses import check_addresses
from mqinfer.ports import ModelReply, ModelVersion
from mqinfer.testing import until
from tests.support.inference import DEADLY, DOUBLE, Leaps, Server, ask, slots, x
from tests.support.models import save_table
from tests.support.triton import serving


class Fake(Server):
    """One of several; `versions` is what its repository holds."""

    closed = False

    async def versions(self) -> list[ModelVersion]:
        if self.down is not None:
            raise Unavailable(self.down)
        return [
            ModelVersion(info.name, version, info.name not in self.gone)
            for info in self.models.values()
            for version in info.versions
        ]

    async def close(self) -> None:
        self.closed = True


def items(server: Fake) -> int:
    return sum(count for _, _, count in server.requests)


@pytest.fixture
def fakes() -> dict[str, Fake]:
    return {"a": Fake(), "b": Fake(), "c": Fake()}


@pytest.fixture
async def spread(fakes: dict[str, Fake]) -> AsyncIterator[Spread]:
    spread = spread_over(fakes)
    yield spread
    await spread.close()
    assert all(fake.closed for fake in fakes.values())


def spread_over(fakes: Mapping[str, Fake]) -> Spread:
    async def look() -> dict[str, str | None]:
        return dict.fromkeys(fakes)

    return Spread(look, lambda address, name: fakes[address])


async def infer(spread: Spread, value: float = 1.0, version: str | None = None) -> ModelReply:
    return await spread.infer("double", version, {"x": x(value)[np.newaxis]}, timeout=60)


async def test_calls_go_to_who_has_the_least_to_do(spread: Spread, fakes: dict[str, Fake]) -> None:
    fakes["a"].gate.clear()
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(infer(spread)) for _ in range(3)]
        await until(
            lambda: fakes["a"].under_way == 1 and sum(f.under_way for f in fakes.values()) == 1
        )
        for _ in range(10):
            await infer(spread)
        assert len(fakes["a"].requests) == 1
        fakes["a"].gate.set()
    assert all(task.done() for task in held)


async def test_each_gets_its_part(spread: Spread, fakes: dict[str, Fake]) -> None:
    random.seed(1)
    async with Inference(spread, limit=slots(3)) as inference:
        await asyncio.gather(*ask(inference, *map(float, range(1200))))
    assert sum(map(items, fakes.values())) == 1200
    assert min(map(items, fakes.values())) >= 200


async def test_one_that_dies_is_left_out_and_taken_back(
    spread: Spread, fakes: dict[str, Fake]
) -> None:
    async with Inference(spread, limit=slots(3)) as inference:
        await asyncio.gather(*ask(inference, 1.0, 2.0))
        fakes["b"].down = "connection refused"
        answers = await asyncio.gather(*ask(inference, *map(float, range(300))))
        assert [answer["y"].tolist() for answer in answers] == [[2.0 * n] for n in range(300)]
        # The whole is never down.
        assert inference.blocked([Model("double")]) is None
        fakes["b"].requests.clear()
        fakes["b"].down = None
        await until(lambda: "connection" not in repr(spread))
        while not fakes["b"].requests:
            await asyncio.gather(*ask(inference, *map(float, range(100))))


async def test_the_last_that_falls_away_tells_of_them_all(
    spread: Spread, fakes: dict[str, Fake]
) -> None:
    await infer(spread)
    for name, fake in fakes.items():
        fake.down = f"{name} is away"
    for _ in range(2):
        with pytest.raises(ServerLost):
            await infer(spread)
    with pytest.raises(Unavailable, match="a is away; b is away; c is away"):
        await infer(spread)


async def test_the_whole_is_down_when_all_are(spread: Spread, fakes: dict[str, Fake]) -> None:
    async with Inference(spread, limit=slots(3)) as inference:
        await asyncio.gather(*ask(inference, 1.0))
        for name, fake in fakes.items():
            fake.down = f"{name} is away"
        waiting = ask(inference, *map(float, range(20)))
        await until(lambda: inference.blocked([Model("double")]))
        assert "a is away; b is away; c is away" in (inference.blocked([Model("double")]) or "")
        with pytest.raises(Unavailable, match="a is away; b is away; c is away"):
            await spread.ready()
        with pytest.raises(Unavailable, match="is away"):
            await spread.versions()
        assert not any(call.done() for call in waiting)
        fakes["c"].down = None
        assert len(await asyncio.gather(*waiting)) == 20


async def test_an_item_that_kills_servers_is_suspect_before_it_reaches_the_next(
    spread: Spread, fakes: dict[str, Fake]
) -> None:
    with pytest.raises(ServerLost):
        await infer(spread, DEADLY)
    async with Inference(spread, limit=slots(1), clock=Leaps()) as inference:
        await asyncio.gather(*ask(inference, 1.0))
        calls = ask(inference, *(DEADLY if n == 5 else float(n) for n in range(8)))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert "while this item was alone" in str(answers.pop(5))
        innocents = [answer["y"].tolist() for answer in answers if isinstance(answer, Answer)]
        assert innocents == [[2.0 * n] for n in range(8) if n != 5]


async def test_a_model_is_asked_for_where_it_is(spread: Spread, fakes: dict[str, Fake]) -> None:
    fakes["a"].gone = fakes["b"].gone = {"double"}
    for _ in range(10):
        assert (await infer(spread)).outputs["y"].tolist() == [[2.0]]
    assert not fakes["a"].requests
    assert not fakes["b"].requests
    fakes["c"].gone, fakes["b"].gone = {"double"}, set()
    # It is found where it has gone, in the same call.
    assert (await infer(spread)).outputs["y"].tolist() == [[2.0]]
    fakes["b"].gone = {"double"}
    with pytest.raises(ModelUnavailable):
        await infer(spread)
    with pytest.raises(ModelUnavailable):
        await spread.describe("double", "7")


async def test_the_latest_is_the_latest_of_all_and_a_pinned_one_is_anywhere(
    spread: Spread, fakes: dict[str, Fake]
) -> None:
    fakes["c"].models["double"] = replace(DOUBLE, versions=("1", "2", "10"))
    assert (await spread.describe("double")).versions == ("1", "2", "10")
    assert {(await infer(spread)).version for _ in range(10)} == {"10"}
    random.seed(1)
    for _ in range(30):
        assert (await infer(spread, version="1")).version == "1"
    assert all(("double", "1", 1) in fake.requests for fake in fakes.values())
    found = await spread.versions()
    assert {one.version for one in found} == {"1", "2", "10"}
    assert len(found) == 3


async def test_a_model_that_died_on_one_is_answered_by_the_others(
    spread: Spread, fakes: dict[str, Fake]
) -> None:
    fakes["a"].dead = True
    async with Inference(spread, limit=slots(3)) as inference:
        answers = await asyncio.gather(*ask(inference, *map(float, range(200))))
        assert [answer["y"].tolist() for answer in answers] == [[2.0 * n] for n in range(200)]
        assert inference.blocked([Model("double")]) is None
        assert len(fakes["a"].requests) <= 3
    fakes["b"].dead = fakes["c"].dead = True
    for _ in range(2):
        with pytest.raises(ServerLost):
            await infer(spread)


async def test_a_refusal_is_the_items_own(spread: Spread, fakes: dict[str, Fake]) -> None:
    with pytest.raises(ModelError, match="may be negative"):
        await infer(spread, -1.0)
    assert (await infer(spread)).version == "2"
    assert sum(len(fake.requests) for fake in fakes.values()) == 2


async def test_servers_come_and_go_with_their_name() -> None:
    fakes = {"a": Fake(), "b": Fake(), "c": Fake()}
    there = ["a", "b"]
    now = 0.0

    async def look() -> dict[str, str | None]:
        return dict.fromkeys(there, "triton")

    spread = Spread(look, lambda address, name: fakes[address], fixed=False, clock=lambda: now)
    fakes["a"].gate.clear()
    fakes["b"].gate.clear()
    held = [asyncio.create_task(infer(spread)) for _ in range(2)]
    await until(lambda: fakes["a"].under_way and fakes["b"].under_way)
    there[:] = ["b", "c"]
    now = 100.0
    await spread.ready()
    await until(lambda: "c:" in repr(spread))
    assert not fakes["a"].closed  # it has something to do
    for fake in fakes.values():
        fake.gate.set()
    await asyncio.gather(*held)
    await until(lambda: fakes["a"].closed)
    await until(lambda: fakes["c"].described)
    random.seed(1)
    await asyncio.gather(*(infer(spread) for _ in range(8)))
    assert fakes["c"].requests
    assert len(fakes["a"].requests) == 1
    await spread.close()


# --- addresses ----------------------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """DNS gives these, whatever is asked; none is no answer."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror("no such name")
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, 0, 0, "", (one, port))
            for one in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


async def test_a_name_with_several_addresses_is_several_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Addresses(["grpcs://triton:8001", "10.0.0.9:1"])
    answering(monkeypatch, "10.0.0.2", "10.0.0.1", "10.0.0.2")
    expected = {
        "grpcs://10.0.0.1:8001": "triton",
        "grpcs://10.0.0.2:8001": "triton",
        "10.0.0.9:1": None,
    }
    assert await found.look() == expected
    answering(monkeypatch)  # what was known stays
    assert await found.look() == expected
    # Both families lead to the same server.
    answering(monkeypatch, "::1", "127.0.0.1")
    assert await found.look() == {"grpcs://triton:8001": None, "10.0.0.9:1": None}
    answering(monkeypatch, "fd00::1", "fd00::2", "127.0.0.1")
    assert await Addresses(["triton:8001"]).look() == {
        "[fd00::1]:8001": "triton",
        "[fd00::2]:8001": "triton",
    }


async def test_a_name_that_is_not_known_is_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    found = Addresses(["nowhere:8001"])
    assert (found.fixed, await found.look()) == (False, {"nowhere:8001": None})
    assert Addresses(["127.0.0.1:8001", "grpc://[::1]:2"]).fixed


async def test_one_address_is_one_client() -> None:
    assert isinstance(open_triton("127.0.0.1:8001"), TritonClient)
    assert isinstance(open_triton("127.0.0.1:8001,127.0.0.1:8001"), TritonClient)
    assert isinstance(open_triton("127.0.0.1:8001, 127.0.0.1:8002"), Spread)
    with pytest.raises(ConfigurationError, match="ftp://x:1"):
        open_triton("127.0.0.1:8001,ftp://x:1")


# --- real servers -------------------------------------------------------------------------------


class Ask(Message, subject="ask"):
    value: int


app = App("several")
table, other = app.model("table"), app.model("other")


@app.stage
async def look_up(message: Ask) -> None:
    await table(index=np.array([message.value], np.int64))
    await other(index=np.array([message.value], np.int64))


async def test_two_tritons_share_the_calls_and_one_may_be_killed(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tritons = []
        for name in "ab":
            (tmp_path / name / "models").mkdir(parents=True)
            save_table(tmp_path / name / "models", "1", 1.0)
            if name == "b":
                save_table(tmp_path / name / "models", "1", 3.0, name="other")
            folder = tmp_path / name
            tritons.append(await stack.enter_async_context(serving(folder, folder / "models")))
        one, two = tritons
        server = open_triton(f"{one.url},{two.url}", keepalive=1.0)
        assert isinstance(server, Spread)
        stack.push_async_callback(server.close)

        async def report() -> check.Report:
            report, stages = check.check_wiring(app)
            await check_addresses(stages, await server.servers(), report)
            await check.check_models(stages, server, report)
            return report

        found = await report()
        assert not found.problems
        assert f"Triton at {one.url}: has table, lacks other" in found.checked
        assert f"Triton at {two.url}: has other, table" in found.checked

        inference = await stack.enter_async_context(Inference(server))
        answered = 0
        going = True

        async def work(number: int) -> None:
            nonlocal answered
            while going:
                number = (number + 1) % 100
                answer = await inference("table", None, {"index": np.array([number], np.int64)})
                assert answer["value"].tolist() == [float(number)]
                answered += 1

        async def more(calls: int) -> None:
            seen = answered
            await until(lambda: answered >= seen + calls)

        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(work(number))
            await more(500)
            one.kill()
            await until(lambda: repr(server).count("under way") == 1)
            assert inference.blocked([Model("table")]) is None
            await more(500)
            [problem] = (await report()).problems
            assert problem.startswith(f"Triton at {one.url}: ")
            await one.start()
            await until(lambda: repr(server).count("under way") == 2)
            two.kill()
            await more(500)
            going = False
