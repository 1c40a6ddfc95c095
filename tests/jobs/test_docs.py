"""The example of docs/jobs.md runs, and gives what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mqinfer.settings import Settings
from mqinfer.testing import Harness

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


async def test_the_example_of_the_page(
    nats: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    example = ModuleType("jobs_example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    monkeypatch.setenv("MQINFER_BLOBS", str(nats.blobs))
    path = tmp_path / "irises.csv"
    path.write_text("custom_id,petal_length,petal_width\na,1.4,0.2\nb,4.7,1.4\nc,-1,1\nd,5,asdfg\n")
    exec(compile(text, str(PAGE), "exec"), vars(example))
    async with Harness(example.app, nats) as harness, harness.worker():
        await example.main(str(path))
    told = capsys.readouterr().out
    assert "partial 4 of 4\n" in told
    assert "1 a succeeded (Species(name='setosa'),) ()\n" in told
    assert "2 b succeeded (Species(name='other'),) ()\n" in told
    assert "3 c failed () (Failure(kind='rejected', reason='no such petal', letter=''),)\n" in told
    assert "4 d failed () (Failure(kind='invalid', reason='the row is no Iris: " in told
    assert "$.petal_width" in told
