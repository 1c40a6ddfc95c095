"""The example of docs/dedup.md, as it stands there."""

from __future__ import annotations

import re
import sys
import types
from hashlib import sha256
from pathlib import Path

import pytest

from mqinfer import Blob
from mqinfer.dedup.standing import Standing
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.dedup.pictures import encoded, photographs

PAGE = (Path(__file__).parents[2] / "docs" / "dedup.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def test_the_later_one_is_a_duplicate(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLE.splitlines()) <= 30
    album = types.ModuleType("album")
    monkeypatch.setitem(sys.modules, "album", album)
    exec(compile(EXAMPLE, "docs/dedup.md", "exec"), vars(album))
    flower = photographs()[1][..., ::-1]
    files = [encoded(flower), encoded(flower, ".jpg")]
    async with Harness(album.app, nats) as harness:
        for number, data in enumerate(files):
            await harness.publish(album.Photo(str(number), Blob(data)))
        await harness.drain("look", "dedup_enter", "dedup_pictures", "dedup_parts")
        first, second = (sha256(data).hexdigest() for data in files)
        for each in (first, second):
            standing = await harness.client.state("dedup_pictures", each, Standing)
            assert standing is not None
            assert standing.original == first
        assert await harness.dead() == []
