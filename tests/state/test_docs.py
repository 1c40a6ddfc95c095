"""The example of docs/state.md, as it stands there."""

from __future__ import annotations

import datetime
import re
import sys
import types
from pathlib import Path

import pytest

from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def test_an_alarm_when_it_gets_worse_on_three_days(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLE.splitlines()) <= 30
    field = types.ModuleType("field")
    monkeypatch.setitem(sys.modules, "field", field)
    exec(compile(EXAMPLE, "docs/state.md", "exec"), vars(field))
    first = datetime.date(2026, 5, 4)
    days = [first + datetime.timedelta(days=number) for number in range(5)]
    async with Harness(field.app, nats) as harness:
        for day, grades in zip(days, [(1, 1), (2, 0), (3, 1), (4, 2), (2, 3)], strict=True):
            await harness.publish(
                *(field.Grade(key, day, grade) for key, grade in zip("pq", grades, strict=True))
            )
        await harness.drain()
        alarms = await harness.messages(field.Alarm)
        assert sorted(alarms, key=lambda alarm: alarm.position) == [  # keys have no order
            field.Alarm("p", days[0]),
            field.Alarm("q", days[2]),
        ]
        assert await harness.state("watch", "p") == field.Health(2, [])
        assert await harness.state("watch", "q") == field.Health(3, days[2:])
    health = field.Health(3, days[:2])
    await field.watch(field.Grade("p", days[2], 4), health)
    assert health == field.Health(4, days[:3])
