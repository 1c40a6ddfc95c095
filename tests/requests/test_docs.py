"""The example of docs/requests.md runs, and gives what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mqinfer.errors import RequestRejected
from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = Path(__file__).parents[2] / "docs" / "requests.md"


async def test_the_example_of_the_page(
    nats: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    example = ModuleType("requests_example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    monkeypatch.setenv("MQINFER_BLOBS", str(nats.blobs))
    exec(compile(text, str(PAGE), "exec"), vars(example))
    async with Harness(example.app, nats) as harness, harness.worker():
        await example.main()
        told = capsys.readouterr().out
        assert re.search(r"grade-[0-9a-f]{32} succeeded \(Grade\(leaf=0, healthy=False\), ", told)
        request = await harness.client.request(example.Photo(100), wait=30)
        with pytest.raises(RequestRejected, match="at most 99 leaves"):
            await request.result()
