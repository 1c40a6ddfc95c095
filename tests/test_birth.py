"""Birth: it is read from the id of the first input, and from nothing else."""

from __future__ import annotations

import datetime
import time
import uuid

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.birth import BIRTH_SQL, new_id
from mqinfer.flow.deadletter import dead_letter
from mqinfer.flow.job import Job
from mqinfer.identity import ANCESTORS, parse_header_block, safe_id
from tests.support.flow import Delivered

NONE = datetime.datetime(1970, 1, 1)


async def births(db: ClickHouse, *roots: str) -> list[datetime.datetime]:
    """What the server says of rows of these first inputs, or of the first inputs as rows."""
    found = []
    for ancestors in ("[root, 'leaf']", "CAST([], 'Array(String)')"):
        own = "root" if "CAST" in ancestors else "'row'"
        rows = await db.query(
            f"SELECT {BIRTH_SQL} AS born FROM (SELECT {own} AS _id, {ancestors} AS _ancestors, n "
            "FROM (SELECT arrayJoin(arrayEnumerate({roots:Array(String)})) AS n, "
            "{roots:Array(String)}[n] AS root)) ORDER BY n",
            {"roots": list(roots)},
        )
        found.append([row["born"] for row in rows])
    assert found[0] == found[1]
    return found[0]


async def test_a_new_id_tells_the_time(db: ClickHouse) -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}
    assert [safe_id(one) for one in ids] == ids
    for born in await births(db, *ids, *(one.upper() for one in ids[:10])):
        assert before <= round(born.replace(tzinfo=datetime.UTC).timestamp() * 1000) <= after


async def test_an_id_that_ends_in_a_day_tells_it_and_others_tell_none(db: ClickHouse) -> None:
    day = datetime.datetime(2026, 5, 27)
    assert await births(db, "p@2026-05-27", "@2026-05-27", "a@b@2026-05-27") == [day] * 3
    others = (
        "p",
        "",
        "plants:17",
        "2026-05-27",
        "p 2026-05-27",
        "p@2026-05-27T10",
        "p@20260527",
        "p@2026-13-27",
        "p@1999-05-27",
        "p@2100-01-01",
        "p@abcd-ef-gh",
        "user@example-x-yz",
        str(uuid.uuid4()),
        new_id().replace("-", ""),  # might be any digest
        new_id()[:-1] + "g",
        "0" + new_id(),
        "ffffffff-ffff-7fff-bfff-ffffffffffff",  # a clock that was not set
        "00000000-0000-7000-8000-000000000000",
        "\u00fc@\u0000",
    )
    assert await births(db, *others) == [NONE] * len(others)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
async def test_whatever_an_id_is_its_birth_is_none_or_a_day_that_there_may_be(
    db: ClickHouse, roots: list[str]
) -> None:
    safe = [safe_id(root) for root in roots]
    for root, born in zip(safe, await births(db, *safe), strict=True):
        assert born == NONE or (2020 <= born.year <= 2099 and root[-11:-10] == "@")


def test_a_dead_letter_that_is_shortened_keeps_the_first_input() -> None:
    chain = " ".join(["photo@2026-05-27", *(f"{n}" * 60 for n in range(10, 24))])
    headers = {"X": "y" * 70_000, "Z": "z" * 300, ANCESTORS: chain}
    lost = Job(Delivered(sequence=7, headers=headers), 0.0, 0.0)
    header, _ = dead_letter(lost, "s", ValueError("x"), max_payload=1_000_000)
    assert parse_header_block(header)[ANCESTORS] == chain
    assert "X" not in parse_header_block(header)
