"""Tritons and a ClickHouse on hosts of their own, each of which is cut off for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqinfer import wiring
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.models import save_affine

from . import rows_app
from .network import Network, why_no_hosts
from .processes import clickhouse, cluster, connected, triton, worker

NO_HOSTS = why_no_hosts()
pytestmark = pytest.mark.skipif(NO_HOSTS is not None, reason=NO_HOSTS or "")

PORTION = 120


async def _rows(net: Network, settings: Settings) -> None:
    database = wiring.clickhouse(settings)

    async def rows(count: int) -> None:
        """Wait until there are so many, each once."""

        async def there() -> bool:
            try:
                (found,) = await database.query("SELECT count() AS n FROM answer")
            except MqinferError:
                return False
            return bool(found["n"] >= count)

        await until(there, f"{count} rows", timeout=120)

    async def publish() -> None:
        nonlocal published
        numbers = range(published, published + PORTION)
        published += PORTION
        await harness.publish(*(rows_app.Number(number) for number in numbers))

    async def done(name: str) -> bool:
        return await harness.lag(name) == 0

    published = 0
    async with Harness(rows_app.app, settings) as harness:
        await publish()
        await rows(published)
        for name in ("t1", "t2"):  # by the other one
            net[name].cut()
            await publish()
            await rows(published)
            net[name].healed()
        net["c"].deaf()
        await publish()
        await until(lambda: done("answer"), "an answer for each")
        assert not await done("sink-answer")
        net["c"].healed()
        await rows(published)
        found = await database.query("SELECT number, value FROM answer ORDER BY number")
        assert [(row["number"], row["value"]) for row in found] == [
            (number, 2 * number + 1) for number in range(published)
        ]
        assert await harness.dead() == []
    await database.close()


def test_tritons_and_clickhouse_on_hosts_that_are_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("chdb")
    pytest.importorskip("onnxruntime")
    models = tmp_path / "models"
    save_affine(models, "affine")
    with (
        Network(("n", "w", "client", "t1", "t2", "c")) as net,
        cluster([net["n"]], tmp_path) as nats,
        triton(net["t1"], models, tmp_path / "t1") as one,
        triton(net["t2"], models, tmp_path / "t2") as two,
        clickhouse(net["c"], tmp_path / "c") as url,
    ):
        settings = Settings.load(
            {},
            nats_url=nats,
            triton_url=f"{one},{two}",
            clickhouse_url=url,
            blobs=str(tmp_path / "blobs"),
            grace=10.0,
        )
        with worker(net["w"], "tests.hosts.rows_app:app", settings, tmp_path) as process:
            net["client"].run(connected(settings))
            net["client"].run(_rows(net, settings))
            assert process.stop() == 0, process.log.read_text()[-3000:]
