"""The example of docs/timers.md runs."""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mqinfer import Context
from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = Path(__file__).parents[2] / "docs/timers.md"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "App(" in block
    ]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30
    module = ModuleType("garden_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    return module


async def test_the_example_runs(nats: Settings, example: ModuleType) -> None:
    async with Harness(example.app, nats) as harness:
        await harness.publish(example.Photo("p1"), example.Photo("p2"), example.Photo("p1"))
        day = datetime.datetime(2026, 5, 27, 4, tzinfo=datetime.UTC)
        assert await harness.tick("morning", day) == "morning-20260527T040000Z@2026-05-27"
        await harness.drain()
        clock, *timers = sorted(await harness.timers(), key=lambda one: one.subject)
        assert (clock.name, clock.subject) == (
            "every day at 06:00:00 Europe/Berlin",
            "garden.=tick.morning",
        )
        assert [one.subject for one in timers] == ["garden.reminder.p1", "garden.reminder.p2"]
        assert {one.name for one in await harness.timers("watch")} == {"no photo"}
        assert await harness.messages(example.Alarm) == [
            example.Alarm("good morning, it is Wednesday")
        ]


async def test_a_handler_is_called_by_hand(example: ModuleType) -> None:
    context = Context(id="x", stage="watch", sequence=1)
    await example.watch(example.Photo("p1"), context)
    (timer,) = context.timers or ()
    assert timer.message == example.Reminder("p1")
