"""Whose a table is: two apps with one table are told, and may share it on purpose."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConflictError, TableError, WiringError
from mqinfer.operate.check import Report, check_tables, check_wiring
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.owners import marked, owners_of
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import DeadLetterRow


class Photo(Message):
    n: int


class Grade(Row, table="grade", order_by="plant"):
    plant: str
    grade: int


class Other(Row, table="grade", order_by="plant"):
    plant: str
    grade: str
    more: int = 0


class Newer(Row, table="grade", order_by="plant"):
    plant: str
    grade: int
    more: int = 0


class Shared(Row, table="grade", order_by="plant", shared=True):
    plant: str
    grade: int


class Resorted(Row, table="grade", order_by="grade"):
    plant: str
    grade: int


async def comment(db: ClickHouse, table: str = "grade__storage") -> str:
    (found,) = await db.query(
        "SELECT comment FROM system.tables "
        "WHERE database = currentDatabase() AND name = {t:String}",
        {"t": table},
    )
    return str(found["comment"])


def app_of(name: str, row: type[Row]) -> App:
    app = App(name)

    async def handler(photo: Any) -> Any: ...

    handler.__annotations__.update({"photo": Photo, "return": row})
    app.stage(name="grader")(handler)
    return app


async def checked(db: ClickHouse, name: str, row: type[Row]) -> list[str]:
    """The problems that `mqinfer check` finds with the app's tables."""
    app, report = app_of(name, row), Report()
    _, stages = check_wiring(app)
    await check_tables(app, stages, db, report)
    return report.problems


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (Other, ", with other columns: grade (Int64 there, String here), more (missing there, "),
        (Grade, ": give its row type another table="),  # the same shape is no wish to share
        (Resorted, ": give its row type another table="),
    ],
)
async def test_another_app_is_told(db: ClickHouse, row: type[Row], columns: str) -> None:
    await ensure_table(db, Grade, "plants")
    assert await comment(db) == "mqinfer: app plants"
    expected = "table grade belongs to app plants, and app zoo declares one of that name" + columns
    with pytest.raises(ConflictError) as error:
        await Sink(db, row, app="zoo").prepare()
    assert expected in str(error.value)
    assert "say shared=True" in str(error.value)
    (problem,) = await checked(db, "zoo", row)
    assert problem.startswith(f"stage sink-grade: {expected}")
    assert await comment(db) == "mqinfer: app plants"
    # Nothing was changed, and its own app goes on, with other versions of its type, too.
    assert await checked(db, "plants", Newer) == []
    await ensure_table(db, Newer, "plants")
    await ensure_table(db, Grade, "plants")
    assert await comment(db) == "mqinfer: app plants"


async def test_apps_share_a_table_on_purpose(db: ClickHouse) -> None:
    await ensure_table(db, Grade, "plants")
    assert await checked(db, "zoo", Shared) == []
    await asyncio.gather(*(ensure_table(db, Shared, "zoo") for _ in range(3)))
    assert await comment(db) == "mqinfer: apps plants, zoo"
    for app in ("plants", "zoo"):
        assert await checked(db, app, Grade) == []  # it is theirs now, whatever they say
        await ensure_table(db, Grade, app)
    with pytest.raises(ConflictError, match="belongs to app plants, zoo, and app farm"):
        await ensure_table(db, Grade, "farm")


async def test_a_table_of_nobody_is_adopted_and_keeps_its_comment(db: ClickHouse) -> None:
    await ensure_table(db, Grade)
    assert await comment(db) == ""
    await db.command("ALTER TABLE grade__storage MODIFY COMMENT 'ask Ada''s team; mqinfer'")
    assert await checked(db, "plants", Grade) == []
    assert await comment(db) == "ask Ada's team; mqinfer"  # a check changes nothing
    await ensure_table(db, Grade, "plants")
    assert await comment(db) == "ask Ada's team; mqinfer; mqinfer: app plants"
    with pytest.raises(ConflictError, match="belongs to app plants, and app zoo"):
        await ensure_table(db, Grade, "zoo")


async def test_tables_of_every_app_have_no_owner(db: ClickHouse) -> None:
    for app in ("plants", "zoo"):
        await ensure_table(db, DeadLetterRow, app)
    assert await comment(db, "mqinfer_dead_letters__storage") == ""


async def test_a_worker_that_may_not_change_tables_works_all_the_same(db: ClickHouse) -> None:
    class Inserts:
        """What an account may do that inserts and reads alone."""

        cluster = None
        query = db.query
        ping = db.ping
        close = db.close
        insert = db.insert

        async def command(self, statement: str) -> None:
            raise TableError(f"not enough privileges: {statement}")

    await ensure_table(db, Grade)
    inserts: Any = Inserts()
    await ensure_table(inserts, Grade, "plants")
    assert await comment(db) == ""


def test_only_rows_are_shared() -> None:
    with pytest.raises(WiringError, match="shared= belongs to a Row"):
        type(Photo)("Wrong", (Message,), {"__annotations__": {}}, shared=True)


NAMES = st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)


@given(st.text(), st.lists(NAMES, min_size=1, max_size=4))
def test_a_mark_stands_behind_what_a_comment_says(text: str, apps: list[str]) -> None:
    once = marked(text, *apps)
    assert set(owners_of(once)) >= set(apps)
    assert marked(once, *apps) == once
    if not owners_of(text):
        assert once.startswith(text)
        assert owners_of(once) == tuple(dict.fromkeys(apps))
