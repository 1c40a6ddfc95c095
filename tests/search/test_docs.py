"""The example of docs/search.md, as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import mqinfer
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.search.support import clustered, exact, holding

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


async def test_the_nearest_of_the_north(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(EXAMPLE.splitlines()) <= 30
    album = types.ModuleType("album")
    monkeypatch.setitem(sys.modules, "album", album)
    exec(compile(EXAMPLE, "docs/search.md", "exec"), vars(album))
    vectors = clustered(60)
    async with Harness(album.app, nats) as harness, holding(harness):
        await harness.publish(
            *(album.Vector(f"p{n}", one.tolist(), "north") for n, one in enumerate(vectors[:50])),
            *(album.Vector(f"s{n}", one.tolist(), "south") for n, one in enumerate(vectors)),
        )

        async def all_there() -> bool:
            return len(await harness.client.search("pictures", vectors[0], 1000)) == 110

        await until(all_there, "all vectors")
        async with mqinfer.connect(album.app, nats):
            wanted = [f"p{n}" for n in exact(vectors[:50], vectors[55], 10)]
            assert await album.like(vectors[55].tolist()) == wanted
