"""The example of docs/gateway.md runs, and gives what the page says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mqinfer.settings import Settings
from tests.support.gateway import serving

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"


async def test_the_example_of_the_page(
    nats: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text()
    declared, asked, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in f"{declared}{asked}".splitlines() if line.strip()]) <= 30
    example = ModuleType("gateway_example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    exec(compile(declared, str(PAGE), "exec"), vars(example))
    async with serving(nats, example.app) as served, served.harness.worker():
        assert "http://127.0.0.1:8080" in asked
        asked = asked.replace("http://127.0.0.1:8080", str(served.http.base_url))
        client = compile(f"{asked}\ngateway.close()\n", str(PAGE), "exec")
        capsys.readouterr()
        await asyncio.to_thread(exec, client, {})
        printed = next(one for one in capsys.readouterr().out.splitlines() if one[:3] == "202")
    assert f"It prints `{printed}`." in text
