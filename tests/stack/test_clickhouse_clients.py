"""Other people's clients against tables like a demo's: what each sends first, and what it needs."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from mqinfer.stack import ClickHouseServer
from tests.stack.wire import http, server

__all__ = ["server"]

SCHEMA = (
    "leaf String, position Tuple(x UInt16, y UInt16), grade LowCardinality(String), score Float32, "
    "taken DateTime64(3, 'UTC'), day Date, tags Array(String), note Nullable(String)"
)
ROWS = 1000


@pytest.fixture(scope="module")
def table(server: ClickHouseServer) -> str:
    http(server, f"CREATE TABLE grades_all ({SCHEMA}) ENGINE = MergeTree ORDER BY leaf")
    http(server, "CREATE VIEW grades AS SELECT * FROM grades_all WHERE leaf != ''")
    insert = (
        "INSERT INTO grades_all SELECT concat('leaf', toString(number)), (number, number + 1), "
        "if(number % 2, 'ill', 'well'), number / 10, "
        "toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC') + number, '2026-01-02', "
        f"[toString(number)], if(number % 2, NULL, 'n') FROM numbers({ROWS})"
    )
    answer = http(server, insert)
    assert answer.status == 200, answer.body
    return "grades"


@pytest.fixture(scope="module")
def engine(server: ClickHouseServer) -> Iterator[Any]:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"clickhousedb://default@127.0.0.1:{server.port}/default")
    yield engine
    engine.dispose()


def test_pandas_reads_by_statement_and_by_name(engine: Any, table: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_sql(f"SELECT * FROM {table} ORDER BY score", engine)
    assert len(frame) == ROWS
    assert frame["leaf"].iloc[3] == "leaf3"
    assert frame["grade"].value_counts().to_dict() == {"well": 500, "ill": 500}
    assert frame["note"].isna().sum() == 500
    assert len(pandas.read_sql_table(table, engine)) == ROWS
    chunks = pandas.read_sql(f"select leaf, score from {table}", engine, chunksize=100)
    assert sum(len(chunk) for chunk in chunks) == ROWS


def test_sqlalchemy_looks_around(engine: Any, table: str) -> None:
    import sqlalchemy

    looked = sqlalchemy.inspect(engine)
    assert {"grades_all", table} <= {*looked.get_table_names(), *looked.get_view_names()}
    assert looked.has_table(table)
    assert not looked.has_table("SELECT * FROM grades")
    assert [column["name"] for column in looked.get_columns(table)][:2] == ["leaf", "position"]
    with engine.connect() as connection:
        count = sqlalchemy.text(f"SELECT count() FROM {table} WHERE score >= :least")
        assert connection.execute(count, {"least": 50.0}).scalar() == 500


# What ibis asks of pandas is deprecated since pandas 3.1.
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")
def test_ibis_with_a_table_of_its_own(server: ClickHouseServer, table: str) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    ibis = pytest.importorskip("ibis")
    backend = ibis.clickhouse.connect(host="127.0.0.1", port=server.port, database="default")
    try:
        grades = backend.table(table)
        assert grades.count().execute() == ROWS
        by_grade = grades.group_by("grade").agg(mean=grades.score.mean()).order_by("grade")
        assert by_grade.execute()["grade"].tolist() == ["ill", "well"]
        wanted = ibis.memtable({"leaf": ["leaf1", "leaf2", "none"], "weight": [1.0, 2.0, 3.0]})
        joined = grades.join(wanted, "leaf").select("leaf", "score", "weight").order_by("leaf")
        found = [
            (row.leaf, round(row.score, 4), row.weight) for row in joined.execute().itertuples()
        ]
        assert found == [("leaf1", 0.1, 1.0), ("leaf2", 0.2, 2.0)]
        assert joined.to_pyarrow().num_rows == 2
        backend.create_table("by_ibis", by_grade.to_pyarrow(), overwrite=True)
        assert backend.table("by_ibis").count().execute() == 2
        assert "by_ibis" in backend.list_tables()
    finally:
        backend.disconnect()


def test_clickhouse_connect(server: ClickHouseServer, table: str) -> None:
    with clickhouse_connect.get_client(dsn=server.url) as client:
        # It asked whether the server honours a protocol version.
        assert client.protocol_version > 0
        result = client.query(f"SELECT * FROM {table} ORDER BY score LIMIT 2")
        assert result.first_row[0] == "leaf0"
        assert result.first_row[2:4] == ("well", 0.0)
        assert result.first_row[4].replace(tzinfo=None) == dt.datetime(2026, 1, 2, 3, 4, 5, 678000)
        with client.query_column_block_stream(f"SELECT leaf, tags FROM {table}") as blocks:
            assert sum(len(block[0]) for block in blocks) == ROWS
        summary = client.command(f"CREATE TABLE by_connect ({SCHEMA}) ENGINE = Memory")
        assert summary.query_id()
        rows = client.query(f"SELECT * FROM {table}").result_rows
        inserted = client.insert("by_connect", rows)
        assert inserted.written_rows == ROWS
        raw = client.raw_query(f"SELECT leaf FROM {table} ORDER BY score LIMIT 1", fmt="CSV")
        assert raw == b'"leaf0"\n'
        streamed = client.raw_stream(f"SELECT leaf FROM {table}", fmt="JSONEachRow")
        assert len(streamed.read().splitlines()) == ROWS


async def test_clickhouse_connect_async(server: ClickHouseServer, table: str) -> None:
    client = await clickhouse_connect.get_async_client(dsn=server.url)
    try:
        assert (await client.query(f"SELECT count() FROM {table}")).result_rows == [(ROWS,)]
        count = 0
        async with await client.query_rows_stream(f"SELECT leaf FROM {table}") as rows:
            async for _ in rows:
                count += 1
        assert count == ROWS
    finally:
        await client.close()


NODE = """
const { createClient } = require('@clickhouse/client');
async function main() {
  const url = process.argv[2];
  for (const compressed of [false, true]) {
    const client = createClient({
      url, compression: { request: compressed, response: compressed },
      session_id: 'js' + compressed,
    });
    if (!(await client.ping()).success) throw new Error('ping');
    await client.command({ query: 'DROP TABLE IF EXISTS by_js' });
    await client.command({
      query: 'CREATE TABLE by_js (id UInt32, name String) ENGINE = MergeTree ORDER BY id',
      clickhouse_settings: { wait_end_of_query: 1, send_progress_in_http_headers: 1 },
    });
    const values = [...Array(500).keys()].map((id) => ({ id, name: 'n' + id }));
    const inserted = await client.insert({ table: 'by_js', values, format: 'JSONEachRow' });
    if (inserted.summary.written_rows !== '500') throw new Error(JSON.stringify(inserted.summary));
    const found = await client.query({
      query: 'SELECT count() AS c FROM by_js WHERE name LIKE {like: String} AND id > {id: UInt32}',
      query_params: { like: 'n1%', id: 99 }, format: 'JSONEachRow', query_id: 'js-' + compressed,
    });
    if (found.query_id !== 'js-' + compressed) throw new Error(found.query_id);
    if (Number((await found.json())[0].c) !== 100) throw new Error('count');
    let rows = 0;
    const stream = await client.query({
      query: 'SELECT number FROM numbers(300000)', format: 'JSONEachRow',
    });
    for await (const part of stream.stream()) rows += part.length;
    if (rows !== 300000) throw new Error('rows ' + rows);
    let code = '';
    try { await client.query({ query: 'SELEC 1' }); } catch (error) { code = error.code; }
    if (code !== '62') throw new Error('code ' + code);
    let late = '';
    try {
      const failing = await client.query({
        query: 'SELECT number, throwIf(number = 3000000) FROM numbers(4000000)',
        format: 'JSONEachRow',
      });
      for await (const part of failing.stream()) rows += part.length;
    } catch (error) { late = String(error.code || error.message); }
    if (!late) throw new Error('a broken answer looked whole');
    const abort = new AbortController();
    const endless = client.query({
      query: 'SELECT sum(sipHash64(number)) FROM system.numbers', abort_signal: abort.signal,
    });
    setTimeout(() => abort.abort(), 500);
    let aborted = false;
    try { await endless; } catch (error) { aborted = true; }
    if (!aborted) throw new Error('not aborted');
    for (let attempt = 0; ; attempt++) {
      try {
        const alive = await client.query({ query: 'SELECT 1 AS one', format: 'JSONEachRow' });
        if (Number((await alive.json())[0].one) !== 1) throw new Error('alive');
        break;
      } catch (error) {
        if (error.code !== '373' || attempt > 600) throw error;  // the session is still locked
        await new Promise((done) => setTimeout(done, 100));
      }
    }
    await client.close();
  }
  console.log('done');
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ClickHouse's client for Node."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", "@clickhouse/client"]
    try:
        done = subprocess.run(command, cwd=folder, timeout=120, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    if done.returncode:
        pytest.skip(f"@clickhouse/client cannot be installed: {done.stderr[-300:]}")
    return folder


def test_the_client_of_node(server: ClickHouseServer, node_folder: Path) -> None:
    (node_folder / "main.js").write_text(NODE)
    done = subprocess.run(
        ["node", "main.js", f"http://127.0.0.1:{server.port}"],
        cwd=node_folder,
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["done"]), done.stderr[-2000:]


def test_grafanas_first_words(server: ClickHouseServer) -> None:
    # clickhouse-go over HTTP, which the plugin is built on: frames around blocks of its revision.
    hello = {"default_format": "Native", "client_protocol_version": "54483", "compress": "1"}
    query = "SELECT displayName(), version(), revision(), timezone()"
    answer = http(server, query, {"User-Agent": "clickhouse-go/2.51.0"}, **hello)
    assert answer.status == 200, answer.body
    assert answer.body[16] == 0x82
    assert json.loads(answer.headers["x-clickhouse-summary"])["result_rows"] == "1"
