"""Shadows on a real Triton that is killed, or whose version is broken or hangs: live goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from mqinfer import App, Backoff, Context, Message, Row, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.choice import chosen
from mqinfer.errors import TableError
from mqinfer.settings import Settings
from mqinfer.shadow.canary import Canaries
from mqinfer.shadow.shadows import Shadows
from mqinfer.stack.triton import TritonServer as Triton
from mqinfer.testing import Harness, until
from tests.support.models import config, save_table, tensor
from tests.support.triton import why_no_triton

SHARE = 0.5

# Version 1 answers, version 2 fails each request, and version 3 waits until there is a file `go`.
VERSION = """
import os
import sys
import time

sys.path[:0] = os.environ["PYTHONPATH"].split(":")
import triton_python_backend_utils as pb_utils

HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = int(os.path.basename(HERE))


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if VERSION == 2:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("it is broken"))
        while VERSION == 3 and not os.path.exists(os.path.join(HERE, "..", "..", "..", "go")):
            time.sleep(0.01)
        numbers = pb_utils.get_input_tensor_by_name(request, "in").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("out", numbers)])
"""


class Sheet(Message, subject="sheet"):
    index: int


class Marked(Row, frozen=True, table="marked", order_by="index"):
    index: int
    value: int


class Counted(Message, subject="counted"):
    index: int


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    for version in "12":
        save_table(root, version, 1.0, "table")
    if why_no_triton() is None:  # the other one has no models of Python
        for version in "123":
            (root / "same" / version).mkdir(parents=True)
            (root / "same" / version / "model.py").write_text(VERSION)
        asked, given = (tensor(name, TensorProto.INT64, ["n", 1]) for name in ("in", "out"))
        text = config([asked], [given], batch=4, backend="python")
        (root / "same" / "config.pbtxt").write_text(text)
    return root


@asynccontextmanager
async def at(app: App, nats: Settings, triton: str, clickhouse: str = "") -> AsyncIterator[Harness]:
    settings = Settings.load(
        {},
        nats_url=nats.nats_url,
        blobs=nats.blobs,
        triton_url=triton,
        clickhouse_url=clickhouse or None,
        grace=5.0,
    )
    async with Harness(app, settings) as harness:
        yield harness


def shadows_of(harness: Harness) -> Shadows:
    return wiring.shadows(harness.app, harness.services.broker)  # type: ignore[arg-type]


async def publish(harness: Harness, first: int, last: int) -> None:
    sheets = (Sheet(index) for index in range(first, last))
    await harness.publish(*sheets, ids=[f"n{index}" for index in range(first, last)])


async def rows(db: ClickHouse, run: str = "") -> list[int]:
    """What the table keeps of a run; a message that was answered twice is there twice."""
    try:
        found = await db.query(
            f"SELECT index FROM marked__storage FINAL WHERE _run = '{run}' ORDER BY index"
        )
    except TableError:
        return []
    return [row["index"] for row in found]


async def records(db: ClickHouse, run: str) -> dict[int, str]:
    """Number -> why it was passed over, "" where it was answered; one record each."""
    try:
        found = await db.query(
            f"SELECT input, skipped FROM mqinfer_run_inputs__storage FINAL WHERE run = '{run}'"
        )
    except TableError:
        return {}
    assert len({row["input"] for row in found}) == len(found)
    return {int(row["input"][1:]): row["skipped"] for row in found}


def reaches(count: int, ask: Callable[[], Any]) -> Callable[[], Any]:
    async def there() -> bool:
        return len(await ask()) >= count

    return there


def share_of(first: int, last: int) -> list[int]:
    return [index for index in range(first, last) if chosen(f"n{index}", SHARE)]


async def test_triton_dies_under_a_shadow(
    nats: Settings, url: str, db: ClickHouse, triton: Triton
) -> None:
    app = App("dies")
    table = app.model("table", version="1")

    @app.stage(models=[table])
    async def mark(sheet: Sheet) -> Marked:
        answer = await table(index=np.array([sheet.index % 100]))
        return Marked(sheet.index, int(answer["value"][0]))

    async with at(app, nats, triton.url, url) as harness, harness.worker():
        shadows = shadows_of(harness)
        await publish(harness, 0, 40)
        await until(reaches(40, lambda: rows(db)), "the rows before")
        run = await shadows.begin("table", "2", SHARE, name="second", late=3600.0)
        await publish(harness, 40, 140)
        triton.kill()
        await publish(harness, 140, 240)
        await triton.bring_up()
        await publish(harness, 240, 280)
        ours = share_of(40, 280)
        await until(reaches(280, lambda: rows(db)), "the live rows")
        await until(reaches(len(ours), lambda: records(db, run.name)), "the records")
        await until(reaches(len(ours), lambda: rows(db, run.name)), "the shadow's rows")
        assert await rows(db) == list(range(280))
        assert await records(db, run.name) == dict.fromkeys(ours, "")
        assert await rows(db, run.name) == ours

        # What is worth nothing any more when Triton is back is passed over, and told so.
        await shadows.end("table")
        await until(lambda: over(harness, run.name), "the end of the first")
        hasty = await shadows.begin("table", "2", SHARE, name="hasty", late=1.0)
        triton.kill()
        await publish(harness, 280, 380)
        ours = share_of(280, 380)
        await until(lambda: waits(harness, hasty.name), "the shadow's messages")
        await triton.bring_up()
        await until(reaches(380, lambda: rows(db)), "all live rows")
        await until(reaches(len(ours), lambda: records(db, "hasty")), "the last records")
        told = await records(db, "hasty")
        assert sorted(told) == ours
        answered = [index for index in ours if not told[index]]
        assert {told[index] for index in ours} <= {"", "too late"}
        await until(reaches(len(answered), lambda: rows(db, "hasty")), "what was in time")
        assert await rows(db, "hasty") == answered
        assert await rows(db) == list(range(380))
        assert await harness.dead() == []


async def over(harness: Harness, run: str) -> bool:
    return (await shadows_of(harness).runs.get(run)).state == "done"


async def waits(harness: Harness, run: str) -> bool:
    """Whether a run's consumer is there, which a worker makes."""
    name = f"run-{run}-mark"
    broker = harness.services.broker
    return await broker.consumer_state(harness.app.name, name) is not None


@pytest.mark.triton
async def test_a_version_that_is_broken_or_hangs_harms_nothing_live(
    nats: Settings, url: str, db: ClickHouse, triton: Triton, repository: Path
) -> None:
    app = App("broken")
    same = app.model("same", version="1")

    @app.stage(models=[same], attempts=2, backoff=Backoff(initial=0.01))
    async def mark(sheet: Sheet) -> Marked:
        answer = await same(**{"in": np.array([sheet.index])})
        return Marked(sheet.index, int(answer["out"][0]))

    async with at(app, nats, triton.url, url) as harness, harness.worker():
        shadows = shadows_of(harness)
        await shadows.begin("same", "2", 1.0, name="fails", late=3600.0)
        await publish(harness, 0, 60)
        await until(reaches(60, lambda: rows(db)), "the live rows")
        await until(reaches(60, lambda: records(db, "fails")), "why each failed")
        told = await records(db, "fails")
        assert all("it is broken" in why for why in told.values()), told
        await shadows.end("same")
        await until(lambda: over(harness, "fails"), "the end of the first")

        # All that is live is answered while the shadow has no answer yet.
        await shadows.begin("same", "3", 1.0, name="hangs", late=2.0)
        await until(lambda: waits(harness, "hangs"), "the shadow's consumer")
        await publish(harness, 60, 160)
        await until(reaches(160, lambda: rows(db)), "the live rows beside")
        await until(reaches(100, lambda: records(db, "hangs")), "what is passed over")
        assert set((await records(db, "hangs")).values()) == {"too late"}
        (repository.parent / "go").touch()
        assert await rows(db) == list(range(160))
        assert await rows(db, "fails") == await rows(db, "hangs") == []
        assert await harness.dead() == []


async def test_a_canary_splits_batches(nats: Settings, triton: Triton) -> None:
    """Each call of the handler asks one version, the one that each of its messages is to have."""
    app = App("splits")
    table = app.model("table", alias="live", version="1")
    calls: list[list[tuple[str, str]]] = []

    @app.stage(models=[table], batch_size=8, batch_wait=0.05)
    async def count(sheets: list[Sheet], contexts: list[Context]) -> list[Counted]:
        answers = await asyncio.gather(*(table(index=np.array([1])) for _ in sheets))
        calls.append([(one.id, two.version) for one, two in zip(contexts, answers, strict=True)])
        return [Counted(sheet.index) for sheet in sheets]

    async with at(app, nats, triton.url) as harness:
        canaries: Canaries = wiring.canaries(app, harness.services.broker)  # type: ignore[arg-type]
        await canaries.aliases.set("table", "live", "1")
        await canaries.let_in("table", "2", SHARE)
        await publish(harness, 0, 100)
        await harness.drain()
        outputs = await harness.messages(Counted)
    assert Counter(one.index for one in outputs) == Counter(range(100))
    seen = [pair for call in calls for pair in call]
    assert sorted(seen) == sorted(
        (f"n{index}", "2" if chosen(f"n{index}", SHARE) else "1") for index in range(100)
    )
    assert max(len(call) for call in calls) > 1
