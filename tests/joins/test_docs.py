"""The example of docs/joins.md runs, and gives what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mqinfer import Context, Died
from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = Path(__file__).parents[2] / "docs" / "joins.md"


async def test_the_example_of_the_page(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    example = ModuleType("joins_example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    exec(compile(text, str(PAGE), "exec"), vars(example))
    async with Harness(example.app, nats) as harness:
        await harness.publish(example.Photo("five", 5), example.Photo("none", 0))
        await harness.drain()
        found = {one.photo: one for one in await harness.messages(example.Report)}
    failed = ["integer division or modulo by zero"]
    assert found == {
        "five": example.Report("five", 2, 4, failed),
        "none": example.Report("none", 0, 0, []),
    }
    context = Context(
        id="1", stage="report", sequence=1, died=[Died("grade", "x", "failed", "bad")]
    )
    by_hand = await example.report(example.Photo("a", 2), [example.Grade(0, True)], context)
    assert by_hand == example.Report("a", 1, 1, ["bad"])
