"""Hooks around handlers: what they are given, in every shape, and what they cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mqinfer import App, Context, Message, Reject
from mqinfer.backoff import Backoff
from mqinfer.hooks import run
from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = Path(__file__).parents[1] / "docs" / "around.md"
SOON = Backoff(initial=0.01, maximum=0.05)


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


class Report(Message):
    total: int


async def test_every_shape(nats: Settings) -> None:
    app = App("shapes")
    seen: list[tuple[str, Any]] = []

    @app.stage
    async def cut(photo: Photo) -> AsyncIterator[Leaf]:
        for n in range(photo.n):
            yield Leaf(n)

    @app.stage(attempts=2, backoff=SOON)
    def grade(leaf: Leaf) -> Grade:
        if leaf.n == 2:
            raise ValueError("bad")
        return Grade(leaf.n)

    @app.stage(batch_size=10)
    async def note(grades: list[Grade]) -> None:
        pass

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade]) -> Report:
        return Report(photo.n + sum(grade.n for grade in grades))

    @app.around
    async def outer(message: Any, context: Any, call: Any) -> None:
        try:
            outputs = await call()
        except ValueError as error:
            seen.append(("failed", (message, context.attempt, str(error))))
            return  # swallowed: it counts all the same
        name = context[0].stage if isinstance(context, list) else context.stage
        seen.append((name, (message, list(outputs))))

    @app.around(stages=["cut"])
    async def inner(message: Photo, context: Context, call: Any) -> None:
        seen.append(("inner", message.n))
        await call()

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(3))
        await harness.drain()
        assert await harness.messages(Report) == [Report(4)]
        assert [letter.headers["Mq-Dead-Error"] for letter in await harness.dead()] == [
            "ValueError"
        ]
    assert seen[:2] == [("inner", 3), ("cut", (Photo(3), [Leaf(0), Leaf(1), Leaf(2)]))]
    assert [what for name, what in seen if name == "failed"] == [
        (Leaf(2), 1, "bad"),
        (Leaf(2), 2, "bad"),
    ]
    noted = [what for name, what in seen if name == "note"]
    assert sorted(grade.n for grades, _ in noted for grade in grades) == [0, 1]
    assert [results for _, results in noted] == [[None] * len(grades) for grades, _ in noted]
    assert ("report", (Photo(3), [Report(4)])) in seen


async def number(photo: Photo) -> Leaf:
    return Leaf(photo.n)


async def returns_nothing(message: Any, context: Any, call: Any) -> None:
    await call()


async def never_calls(message: Any, context: Any, call: Any) -> None:
    pass


async def calls_twice(message: Any, context: Any, call: Any) -> None:
    await call()
    await call()


async def refuses(message: Any, context: Any, call: Any) -> None:
    raise Reject("not this one")


@pytest.mark.parametrize(
    ("hook", "error"),
    [
        (returns_nothing, None),
        (never_calls, "returned without awaiting call()"),
        (calls_twice, "runs the handler once"),
        (refuses, "not this one"),
    ],
)
async def test_what_a_hook_may_do(hook: Any, error: str | None) -> None:
    async def handler() -> int:
        return 1

    if error is None:
        assert await run([hook, hook], None, None, handler) == 1
    else:
        with pytest.raises((RuntimeError, Reject), match=re.escape(error)):
            await run([returns_nothing, hook], None, None, handler)


async def test_a_cancellation_cannot_be_swallowed() -> None:
    begun = asyncio.Event()

    async def swallows(message: Any, context: Any, call: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await call()

    async def swallows_its_own(message: Any, context: Any, call: Any) -> None:
        await call()
        with contextlib.suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.Event().wait()

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def answers() -> int:
        return 1

    for hook, handler in ((swallows, waits), (swallows_its_own, answers)):
        begun.clear()
        task = asyncio.create_task(run([hook, returns_nothing], None, None, handler))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), hook


def test_mistakes_are_told_with_all_others() -> None:
    app = App("t")
    app.stage(name="s")(number)

    def plain(message: Any, context: Any, call: Any) -> None: ...

    async def few(message: Any, call: Any) -> None: ...

    async def yields(message: Any, context: Any, call: Any) -> AsyncIterator[None]:
        yield

    for hook in (plain, few, yields, 3):
        app.around(hook)  # type: ignore[type-var]
    app.around(stages=["s", "other"])(returns_nothing)
    stages, problems = app.resolve()
    assert [str(problem).partition(";")[0] for problem in problems] == [
        "app.around plain: it is no async function",
        "app.around few: it takes (message: 'Any', call: 'Any') -> 'None'",
        "app.around yields: it yields",
        "app.around int: 3 cannot be called",
        "app.around returns_nothing: there is no stage 'other'",
    ]
    assert stages["s"].around == (returns_nothing,)


async def test_the_example_of_the_page(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    example = ModuleType("around_example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    exec(compile(text, str(PAGE), "exec"), vars(example))
    async with Harness(example.app, nats) as harness:
        await harness.publish(example.Photo("a", "ours"), example.Photo("b", "theirs"))
        await harness.drain()
        assert await harness.messages(example.Seen) == [example.Seen("a")]
        (dead,) = await harness.dead()
    assert "nobody knows theirs" in dead.headers["Mq-Dead-Reason"]
    assert len(example.seconds["look"]) == 2
