"""Models of Python functions: handlers by hand, and stages that a worker runs, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import mqinfer
from mqinfer import App, Message, Tensor
from mqinfer.errors import (
    BadTensor,
    ConfigurationError,
    ModelError,
    ModelTimeout,
    NotConnected,
    Retry,
    Unavailable,
)
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, Harness

app = App("leaves")
grade = app.model("grade", alias="best", inputs={"leaf": Tensor("uint8", (-1, 2))})
plain = app.model("plain", timeout=0.05)


class Leaf(Message, subject="leaf"):
    pixels: list[list[int]]


class Grade(Message, subject="grade"):
    mean: float
    version: str


@app.stage(attempts=2)
async def judge(leaf: Leaf) -> Grade:
    answer = await grade(leaf=np.array(leaf.pixels, np.uint8))
    return Grade(mean=answer["mean"].item(), version=answer.version)


def mean(leaf: Any) -> dict[str, Any]:
    return {"mean": leaf.mean(), "seen": [True]}


LEAF = Leaf(pixels=[[1, 2], [3, 6]])


async def test_a_handler_called_by_hand() -> None:
    with FakeModels({"grade": mean}) as models:
        assert await judge(LEAF) == Grade(mean=3.0, version="1")
    (call,) = models.calls("grade")
    assert (call.version, call.error, call.inputs["leaf"].tolist()) == ("1", None, LEAF.pixels)
    assert models.calls() == [call]
    with pytest.raises(NotConnected):
        await judge(LEAF)


async def test_answers_of_every_kind_come_as_arrays_of_their_own() -> None:
    constant = np.zeros(2)

    async def slow(x: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"y": x.tolist()}

    x = np.ones(2)
    with FakeModels({"plain": {"y": constant, "n": 3}}) as models:
        answer = await plain(x=x)
        answer["y"][:] = 7
        assert (answer["n"].shape, answer["n"].item(), constant.tolist()) == ((), 3, [0, 0])
        models["plain"] = slow
        assert (await plain(x=x))["y"].tolist() == [1, 1]
        models["plain"] = ModelError("always")
        with pytest.raises(ModelError, match="always"):
            await plain(x=x)
        models["plain"] = lambda **inputs: inputs
        assert (await plain(x=x))["x"].tolist() == [1, 1]


async def test_parts_are_streamed() -> None:
    async def count(x: Any) -> AsyncIterator[dict[str, Any]]:
        for number in range(int(x)):
            yield {"y": number}

    three = np.array(3)
    with FakeModels({"plain": count}) as models:
        assert [part["y"].item() async for part in plain.stream(x=three)] == [0, 1, 2]
        with pytest.raises(ModelError, match="decoupled"):
            await plain(x=three)
        models["plain"] = [{"y": 1}, {"y": 2}]
        assert [part["y"].item() async for part in plain.stream(x=three)] == [1, 2]
        models["plain"] = {"y": 1}
        assert [part["y"].item() async for part in plain.stream(x=three)] == [1]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"leaf": [[1, 2]]}, "'leaf' is a list; pass a NumPy array"),
        (
            {"leaf": np.zeros((1, 2))},
            r"'leaf' is float64 \(1, 2\), the model wants uint8 \(any, 2\)",
        ),
        ({"leaf": np.zeros((1, 3), np.uint8)}, r"uint8 \(1, 3\), the model wants"),
        ({"image": np.zeros((1, 2), np.uint8)}, "input 'leaf' is missing"),
        ({}, "input 'leaf' is missing"),
    ],
)
async def test_what_a_handle_declares_is_checked_as_a_server_does(
    inputs: dict[str, Any], said: str
) -> None:
    with FakeModels({"grade": mean}) as models:
        with pytest.raises(BadTensor, match=said):
            await grade(**inputs)
        (call,) = models.calls()
        assert isinstance(call.error, BadTensor)


async def test_a_function_that_does_not_fit_says_so() -> None:
    with FakeModels({"plain": lambda image: {"y": 1}}) as models:
        with pytest.raises(BadTensor, match=r"does not take the inputs: .*image"):
            await plain(x=np.ones(1))
        models["plain"] = lambda x: x
        with pytest.raises(ModelError, match="outputs by name, not a ndarray"):
            await plain(x=np.ones(1))
        models["plain"] = lambda x: {"y": x["nothing"]}
        with pytest.raises(ModelError, match="model plain: IndexError"):
            await plain(x=np.ones(1))


async def test_versions_and_aliases() -> None:
    pinned = app.model("versions", version="1")
    latest, best = app.model("versions"), app.model("versions", alias="best")
    fakes: Any = {f"versions:{number}": {"y": number} for number in (1, 2, 3)}
    with FakeModels(fakes, aliases={"versions@best": "2"}) as models:
        answers = [await one(x=np.ones(1)) for one in (pinned, latest, best)]
        assert [(one["y"].item(), one.version) for one in answers] == [(1, "1"), (3, "3"), (2, "2")]
        models.aliases["versions@best"] = "1"
        assert (await best(x=np.ones(1))).version == "1"
        del models.aliases["versions@best"]
        assert (await best(x=np.ones(1))).version == "3"
        models.aliases["versions@best"] = "9"
        with pytest.raises(ConfigurationError, match="no version 9 of versions; it has 1, 2, 3"):
            await best(x=np.ones(1))
        with pytest.raises(ConfigurationError, match="no model 'plain'; it has versions"):
            await plain(x=np.ones(1))
    with FakeModels({"versions": {"y": 0}}):
        assert (await pinned(x=np.ones(1))).version == "1"


async def test_errors_and_delays_by_script() -> None:
    with FakeModels({"plain": {"y": 1}}) as models:
        models.fail("plain", "out of memory")
        models.fail("plain", Retry("later"), times=2)
        with pytest.raises(ModelError, match="model plain: out of memory"):
            await plain(x=np.ones(1))
        for _ in range(2):
            with pytest.raises(Retry):
                await plain(x=np.ones(1))
        assert (await plain(x=np.ones(1)))["y"].item() == 1
        models.delay("plain", 3600)
        with pytest.raises(ModelTimeout, match=r"no answer within 0\.05 s"):
            await plain(x=np.ones(1))
        models.delay("plain", 0)
        assert (await plain(x=np.ones(1)))["y"].item() == 1
        assert len(models.calls("plain")) == 6


@pytest.fixture
def fakes() -> Iterator[FakeModels]:
    """A fixture, which is entered in another context than its test runs in."""
    with FakeModels({"grade": mean}) as models:
        yield models


async def test_in_a_fixture_and_in_tasks_and_threads(fakes: FakeModels) -> None:
    assert (await judge(LEAF)).mean == 3.0
    assert (await asyncio.create_task(judge(LEAF))).mean == 3.0
    assert (await asyncio.to_thread(lambda: asyncio.run(judge(LEAF)))).mean == 3.0
    with FakeModels({"grade": {"mean": 9}}):  # the inner one answers
        assert (await judge(LEAF)).mean == 9.0
    assert (await judge(LEAF)).mean == 3.0
    assert len(fakes.calls()) == 4


async def test_stages_that_a_worker_runs(nats: Settings) -> None:
    """With retries and dead letters as ever; the settings name no Triton that is there."""
    with FakeModels({"grade": mean, "plain": {}}) as models:
        models.fail("grade", "once")
        async with Harness(app, nats) as harness:
            await harness.publish(LEAF)
            await harness.drain()
            assert await harness.messages(Grade) == [Grade(mean=3.0, version="1")]
            models.fail("grade", Unavailable("gone"))  # an outage spends no attempt
            models.fail("grade", "twice", times=2)
            await harness.publish(LEAF)
            await harness.drain()
            (letter,) = await harness.dead()
            assert "twice" in letter.reason
        async with mqinfer.connect(app, nats) as client:
            assert (await client.model("plain")(x=np.ones(1))).version == "1"
    assert len(models.calls("grade")) == 5


async def test_a_worker_does_not_begin_without_its_models(nats: Settings) -> None:
    with FakeModels({"other": {}}):
        async with Harness(app, nats) as harness:
            with pytest.raises(ConfigurationError, match="no model 'grade'; it has other"):
                await harness.drain()
