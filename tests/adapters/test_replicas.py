"""Several ClickHouse servers used as one: another is asked when one does not answer."""

from __future__ import annotations

import pytest

from mqinfer import Row, Settings, wiring
from mqinfer.adapters.replicas import Replicas
from mqinfer.errors import Unavailable
from mqinfer.ports import Origin
from mqinfer.stack.ports import free_port
from mqinfer.tables.sink import Sink


class Grade(Row, frozen=True, table="grade"):
    position: str


def replicas(*urls: str) -> Replicas:
    found = wiring.clickhouse(Settings.load({"MQINFER_CLICKHOUSE_URL": ", ".join(urls)}))
    assert isinstance(found, Replicas)
    return found


async def test_another_is_asked_from_then_on(url: str) -> None:
    away = f"http://user:a,b@127.0.0.1:{free_port()}/default"
    both = replicas(away, url)
    both.load()
    await both.ping()  # what only reads is asked again at once
    await both.settle("grade")  # there is one server alone
    rows = [(Grade("p"), Origin(id="a")), (Grade("q"), Origin(id="b"))]
    assert await Sink(both, Grade, app="graded").write(rows) == {}
    assert await both.query("SELECT count() AS n FROM grade") == [{"n": 2}]
    async with both.rehearsal("grade__storage", ["position"], ["String"]) as rehearse:
        await rehearse([["p"]])
    await both.close()
    # What may have been taken is not sent again: whoever sent it hears that, and does.
    both = replicas(away, url)
    with pytest.raises(Unavailable):
        await both.command("DROP TABLE grade__storage")
    await both.command("DROP TABLE grade__storage")
    await both.close()


async def test_all_are_away() -> None:
    both = replicas(*(f"http://127.0.0.1:{free_port()}" for _ in range(2)))
    with pytest.raises(Unavailable):
        await both.ping()
    await both.close()
