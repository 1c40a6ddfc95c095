"""Tables: what newcomers do wrong with ClickHouse, and what the line that tells them has to say."""

from __future__ import annotations

from tests.firsthour.desk import ROW, Mistake

WORK = "worker {name}:app --drain --no-wait"
CHECK = "check {name}:app"
CLICKHOUSE = {"MQINFER_CLICKHOUSE_URL": "{clickhouse}"}
NOBODY = {"MQINFER_CLICKHOUSE_URL": "http://default@127.0.0.1:1/default"}  # nobody listens there
OTHER = """\
from mqinfer import App, Message, Row

app = App("{name}b")


class Word(Message):
    text: str


class Size(Row, table="{name}_length", order_by="text"):
    text: str
    length: %s


@app.stage
async def weigh(word: Word) -> Size:
    return Size(word.text, %s)
"""
BY_HAND = """\
from {name} import app

STATEMENT = "ALTER TABLE {name}_length__storage DROP COLUMN length"
"""

TABLES = (
    Mistake(
        name="No ClickHouse at the address",
        edits=(ROW,),
        run=(WORK,),
        environ=NOBODY,
        code=1,
        says=("ClickHouse at 127.0.0.1:1 does not answer: nobody listens there", "CLICKHOUSE_URL"),
    ),
    Mistake(
        name="A wrong password of ClickHouse",
        edits=(ROW,),
        run=(WORK,),
        environ={"MQINFER_CLICKHOUSE_URL": "{intruder}"},
        code=1,
        says=("Authentication failed", "MQINFER_CLICKHOUSE_URL"),
    ),
    Mistake(
        name="A database that ClickHouse does not have",
        edits=(ROW,),
        run=(WORK,),
        environ={"MQINFER_CLICKHOUSE_URL": "{clickhouse}_not"},
        code=1,
        says=("does not exist", "create it", "MQINFER_CLICKHOUSE_URL"),
    ),
    Mistake(
        name="The port of ClickHouse's other protocol",
        run=(CHECK,),
        environ={"MQINFER_CLICKHOUSE_URL": "clickhouse://default@127.0.0.1:9000"},
        says=("MQINFER_CLICKHOUSE_URL=", "it must be a URL such as http://"),
    ),
    Mistake(
        name="Two apps with one table",
        edits=(ROW,),
        run=(WORK, "worker {name}_b:app --drain --no-wait"),
        files={"{name}_b.py": OTHER % ("int", "1")},
        environ=CLICKHOUSE,
        says=("belongs to app words, and app", "give its row type another table=", "shared=True"),
    ),
    Mistake(
        name="A column gets another type",
        edits=(ROW,),
        run=(WORK, "worker {name}_b:app --drain --no-wait"),
        files={"{name}_b.py": (OTHER % ("str", '"1"')).replace('App("{name}b")', 'App("{name}")')},
        environ=CLICKHOUSE,
        says=("column 'length': it has Int64, the field wants String", "another name"),
    ),
    Mistake(
        name="A table is changed by hand",
        edits=(ROW,),
        run=(WORK, "shell {name}_hand:app -c await(tables(STATEMENT))", WORK),
        files={"{name}_hand.py": BY_HAND},
        environ=CLICKHOUSE,
        says=("has no column 'length', and the field has no default: give it one",),
    ),
)
