"""Large answers of requests that are forgotten are dropped, and none before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqinfer import App, Message
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.blob import BlobStore
from mqinfer.requests import sweeping
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until

NOON = 1_795_780_800.0  # of 2026-11-27
DAY = 86_400.0


@pytest.mark.parametrize("kind", ["memory", "folder"])
async def test_what_is_past_is_dropped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_AT_ONCE", 2)
    store: BlobStore = MemoryStore() if kind == "memory" else FolderStore(tmp_path)
    past = [
        sweeping.path_of(f"grade-{n}", NOON - days * DAY, "d")
        for n in range(3)
        for days in (400, 40, 2)
    ]
    stays = [sweeping.path_of("grade-9", NOON + days * DAY, "d") for days in (-1, 0, 1, 400)]
    stays += ["requests/grade-1.json", "requests/a/b.json", "jobs/2020-01-01/x.json", "x"]
    for path in (*past, *stays):
        await store.put(path, b"[]")
    assert past[2] == "requests/2026-11-25/grade-0.d.json"
    assert await sweeping.drop_past(store, NOON) == len(past)
    assert [path for path in (*past, *stays) if await store.exists(path)] == stays
    assert await sweeping.drop_past(store, NOON) == 0


class Ask(Message):
    n: int


class Long(Message):
    text: str


async def test_a_worker_drops_what_is_past(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("long")

    @app.stage
    async def answer(ask: Ask) -> Long:
        return Long("x" * 100_000 * ask.n)

    app.endpoint("long", Ask, answers=Long, deadline="1m", keep="1h")
    folder = Path(str(nats.blobs)) / "requests"
    async with Harness(app, nats) as harness, harness.worker():
        for n in (0, 1, 1):
            request = await harness.client.request(Ask(n), wait=60)
            assert [len(one.text) for one in request.answers] == [100_000 * n]
        kept = list(folder.glob("*/*.json"))
        assert len(kept) == 2  # and of the small one nothing
    monkeypatch.setattr(sweeping, "EVERY", 0.05)
    monkeypatch.setattr(sweeping, "LATER", -2 * DAY)  # as if it were the day after tomorrow
    async with Harness(app, nats) as harness, harness.worker():
        await until(lambda: not list(folder.glob("*/*.json")), "the answers to be dropped")
