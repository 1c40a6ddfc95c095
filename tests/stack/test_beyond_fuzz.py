"""The embedded ClickHouse keeps to its own tables, whatever is put together for it.

The lists of what might reach a file, a program or an address are ClickHouse's own (`system.*` of
the installed chDB), so that what a newer one brings is tried here by itself, in every position.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("chdb")
from tests.support.trap import Trap, trapped

# What may stand in the parentheses of a table function or an engine: most want something of these.
ARGUMENTS = (
    "",
    "'{file}'",
    "'{file}', 'LineAsString'",
    "'{file}', LineAsString, 'a String'",
    "'{url}', 'LineAsString', 'a String'",
    "'{program}', 'TSV', 'a String'",
    "'127.0.0.1:{port}', 'x', 'x', 'x', 'x'",
    "'default', 'http://127.0.0.1:{port}/b/x', 'LineAsString', 'a String'",
    "default, '{folder}', 'a String'",
    "file('{file}', LineAsString)",
)
# {} is the call, {name} a name of its own.
TABLE_POSITIONS = (
    "SELECT * FROM {}",
    "DESCRIBE TABLE {}",
    "INSERT INTO FUNCTION {} SELECT 'x'",
    "INSERT INTO t SELECT 2, * FROM {}",
    "CREATE TABLE {name} AS {}",
    "CREATE VIEW {name} AS SELECT * FROM {}",
    "SELECT * FROM t JOIN {} AS x ON 1",
    "SELECT (SELECT * FROM {} LIMIT 1)",
    "SELECT * FROM loop({}) LIMIT 1",
    "EXPLAIN PLAN SELECT * FROM {}",
    "WITH x AS (SELECT * FROM {}) SELECT * FROM x",
    "SELECT * FROM view(SELECT * FROM {})",
    "SELECT b IN {} FROM t",
)
ENGINE_POSITIONS = (
    "CREATE TABLE {name} (a String) ENGINE = {}",
    "CREATE TEMPORARY TABLE {name} (a String) ENGINE = {}",
    "CREATE OR REPLACE TABLE {name} ENGINE = {} AS SELECT 'x' AS a",
    "ATTACH TABLE {name} (a String) ENGINE = {}",
    "CREATE MATERIALIZED VIEW {name} ENGINE = {} AS SELECT b AS a FROM t",
    "CREATE DATABASE {name} ENGINE = {}",
)
_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trap(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trap]:
    async with trapped(tmp_path_factory.mktemp("fuzz")) as trap:
        yield trap


def listed(trap: Trap, query: str) -> list[str]:
    status, body = trap.ask(f"{query} FORMAT TSVRaw")
    assert status == 200, body
    return body.decode().split()


def named(text: str) -> str:
    return text.replace("{name}", f"n{next(_numbers)}")


def calls(trap: Trap, names: list[str], positions: tuple[str, ...]) -> Iterator[str]:
    """Each name in every position, with the arguments in turn."""
    arguments = itertools.cycle(ARGUMENTS)
    for name in names:
        for position in positions:
            call = f"{name}({next(arguments)})"
            yield trap.bait(named(position).replace("{}", call))


def test_every_table_function_in_every_position(trap: Trap) -> None:
    names = listed(trap, "SELECT name FROM system.table_functions WHERE name != 'loop'")
    assert {"file", "url", "executable", "python"} < set(names)
    assert trap.ask_all(calls(trap, names, TABLE_POSITIONS)) > 1000


def test_every_engine_in_every_position(trap: Trap) -> None:
    names = listed(
        trap,
        "SELECT name FROM (SELECT name FROM system.table_engines "
        "UNION DISTINCT SELECT name FROM system.database_engines)",
    )
    assert {"File", "URL", "Executable", "Filesystem"} < set(names)
    assert trap.ask_all(calls(trap, names, ENGINE_POSITIONS)) > 500


def test_every_function_of_a_path(trap: Trap) -> None:
    names = listed(trap, "SELECT name FROM system.functions WHERE name NOT ILIKE 'sleep%'")
    assert "file" in names
    assert len(names) > 1500
    trap.ask_all(trap.bait(f"SELECT `{name}`('{{file}}'), 1") for name in names)
    few = ("file", "dict", "get", "show", "ai", "has", "current", "query", "url", "format", "to")
    names = [name for name in names if name.lower().startswith(few)]
    trap.ask_all(trap.bait(f"SELECT `{name}`('{{file}}', '{{url}}')") for name in names)


def test_every_source_of_a_dictionary(trap: Trap) -> None:
    names = listed(trap, "SELECT name FROM system.dictionary_sources")
    assert {"file", "http", "executable"} <= {name.lower() for name in names}
    arguments = (
        "PATH '{file}' FORMAT 'LineAsString'",
        "COMMAND '{program}' FORMAT 'CSV'",
        "URL '{url}' FORMAT 'CSV'",
        "HOST '127.0.0.1' PORT {port} TABLE 'x' DB 'x' USER 'x' PASSWORD 'x'",
    )
    columns = "(a UInt64, b String) PRIMARY KEY a"
    made = {
        f"s{number}": trap.bait(
            f"CREATE DICTIONARY s{number} {columns} SOURCE({name}({argument})) LAYOUT(FLAT()) "
            "LIFETIME(0)"
        )
        for number, (name, argument) in enumerate(itertools.product(names, arguments))
    }
    read = (f"SELECT dictGet('{name}', 'b', toUInt64(1))" for name in made)
    trap.ask_all(itertools.chain(made.values(), read))


def test_every_setting_of_a_text(trap: Trap) -> None:
    """In the address and in the statement, with the formats that read schemas and with others."""
    names = listed(trap, "SELECT name FROM system.settings WHERE type = 'String'")
    assert "format_template_row" in names
    formats = itertools.cycle(listed(trap, "SELECT name FROM system.formats WHERE is_output"))
    special = ("Template", "Protobuf", "CapnProto", "AvroConfluent")
    values = [trap.bait(text) for text in ("{file}", "{schema}:M", "{url}", "{new}")]
    values_of_others = values[::2]

    def tried(case: tuple[str, str]) -> None:
        name, value = case
        of_formats = name.startswith(("format_", "output_", "input_"))
        if not of_formats and value not in values_of_others:
            return
        for form in special if of_formats else (next(formats),):
            trap.ask(f"SELECT 1 AS a FORMAT {form}", **{name: value})
            trap.ask(f"SELECT 1 AS a FORMAT {form} SETTINGS {name} = '{value}'")
            trap.ask(f"SELECT * FROM format({form}, 'x')", **{name: value})

    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(tried, itertools.product(names, values)))) > 200
    trap.look_through()


# --- spelled oddly, and wrapped -------------------------------------------------------------------

BLANKS = (" ", "\n", "\t", " /* x */ ", "/**/ ", " -- x\n", " #! x\n", "\r\n", " /* ' */ ", "\f")
BEYOND = (
    "file('{file}', LineAsString)",
    "url('{url}', LineAsString, 'line String')",
    "executable('{program}', TSV, 'line String')",
    "(SELECT file('{file}') AS line)",
    "(SELECT `fi\\x6ce`('{file}') AS line)",
    "(SELECT arrayJoin(arrayMap(file, ['{file}'])) AS line)",
    "(SELECT line FROM VALUES('line String', file('{file}')))",
    "loop(file('{file}', LineAsString))",
    "view(SELECT file('{file}') AS line)",
    "viewIfPermitted(SELECT file('{file}') AS line ELSE null('line String'))",
    "format(Values, 'line String', $x$(file('{file}'))$x$)",
    "format(Values, 'line String', '(file(\\'{file}\\'))')",
    "format(Template, 'line String', 'x')",
    "`{file}`",
    "default.`{file}`",
)
STATEMENTS = (
    "SELECT * FROM {}",
    "SELECT count(), any(line) FROM {} GROUP BY ALL",
    "SELECT * FROM (SELECT * FROM {}) AS x",
    "WITH x AS (SELECT line FROM {}) SELECT (SELECT any(line) FROM x)",
    "SELECT 'x' AS line UNION ALL SELECT line FROM {}",
    "SELECT * FROM t LEFT JOIN (SELECT line FROM {}) AS x ON 1",
    "SELECT a FROM t WHERE b IN (SELECT line FROM {})",
    "SELECT throwIf(1, line) FROM {}",
    "SELECT toUInt8(any(line)) FROM {}",
    "SELECT 1 PARALLEL WITH SELECT * FROM {}",
    "EXPLAIN SYNTAX SELECT * FROM {}",
    "INSERT INTO t SELECT 2, line FROM {}",
    "INSERT INTO t (b) WITH x AS (SELECT line FROM {}) SELECT line FROM x",
    "INSERT INTO t VALUES (3, (SELECT any(line) FROM {}))",
    "CREATE TABLE {name} ENGINE = Memory AS SELECT line FROM {}",
    "CREATE VIEW {name} AS SELECT line FROM {}",
    "CREATE MATERIALIZED VIEW {name} REFRESH EVERY 1 HOUR ENGINE = Memory AS SELECT line FROM {}",
    "ALTER TABLE t UPDATE b = (SELECT any(line) FROM {}) WHERE a != 1",
    "DESCRIBE (SELECT line FROM {})",
    "SELECT * FROM {} INTO OUTFILE '{new}'",
    "SELECT 1 AS line INTO OUTFILE '{new}' FORMAT CSV",
    "INSERT INTO t (b) FROM INFILE '{file}' FORMAT LineAsString",
)
ENDINGS = (
    "",
    " SETTINGS max_threads = 1",
    " SETTINGS readonly = 0, dialect = 'clickhouse'",
    " SETTINGS input_format_values_interpret_expressions = 1",
    " FORMAT Template SETTINGS format_template_row = '{file}'",
    " FORMAT Native",
    ";",
)


@st.composite
def odd_statements(draw: st.DrawFn) -> str:
    beyond = draw(st.sampled_from(BEYOND))
    if draw(st.booleans()):
        beyond = f"(SELECT * FROM {beyond})"
    text = draw(st.sampled_from(STATEMENTS)).replace("{}", beyond)
    words = (text + draw(st.sampled_from(ENDINGS))).split(" ")
    # Keywords have no case; names have, and then they are unknown, which is as good.
    if draw(st.booleans()):
        words = [word.swapcase() if word.isalpha() else word for word in words]
    return "".join(word + draw(st.sampled_from(BLANKS)) for word in words)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=odd_statements(), post=st.booleans())
def test_odd_spellings_and_wraps(trap: Trap, text: str, post: bool) -> None:
    trap.ask(trap.bait(named(text)), post=post)


def test_nothing_of_all_that_was_kept(trap: Trap) -> None:
    trap.look_through()
