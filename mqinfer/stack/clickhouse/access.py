"""What the embedded ClickHouse lets its one user do, said in the engine's own terms.

chDB has ClickHouse's access control when it is given a configuration: grants (which table and
database engines, and no sources: files, addresses), settings that keep their values, and an empty
folder where it looks for files. All is made from `allowed.toml`: what is not there, such
as a function that a newer chDB brings, is refused. What the engine knows no grant for is left to
`refuse`.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import chdb

from mqinfer.stack.errors import StackConfigurationError

_ALLOWED = tomllib.loads(Path(__file__).with_name("allowed.toml").read_text())
_VALUES = {
    "allow_introspection_functions": "0",
    # It looks functions up by itself, past those that are replaced below.
    "input_format_values_deduce_templates_of_expressions": "0",
}
_ENGINES = (
    "(SELECT name FROM system.table_engines UNION ALL SELECT name FROM system.database_engines)"
)
# Looked for here; there is nothing, and nobody but the engine's owner can put anything.
_FOLDERS = (
    "user_files_path",
    "user_scripts_path",
    "format_schema_path",
    "custom_local_disks_base_directory",
    "dictionaries_lib_path",
)


def allowed(name: str) -> frozenset[str]:
    """Give one of the lists of words in `allowed.toml`."""
    return frozenset(_ALLOWED[name].split())


class Access:
    """The configuration of one engine.

    Args:
        folder: Where it is written, anew at each start.

    Attributes:
        refused: Functions, table functions and engines of the installed chDB that must not be
            called, in lower case.
    """

    def __init__(self, folder: Path) -> None:
        self._config = folder / "config.xml"
        shutil.rmtree(folder, ignore_errors=True)
        empty = folder / "empty"
        empty.mkdir(parents=True)
        folder.chmod(0o700)
        # Asked in memory first (30 ms): the engine reads its users only when it opens.
        connection = chdb._chdb.connect(":memory:")  # type: ignore[attr-defined]
        try:
            self._functions = _others(connection, "system.functions", allowed("functions"))
            self.refused = frozenset(
                {
                    *(name.lower() for name in self._functions),
                    *(
                        name.lower()
                        for table, known in (
                            ("system.table_functions", "table_functions"),
                            (_ENGINES, "engines"),
                        )
                        for name in _others(connection, table, allowed(known))
                    ),
                    "disk",  # SETTINGS disk = disk(...) makes one
                }
                - {name.lower() for name in allowed("table_functions") | allowed("engines")}
            )
            (folder / "users.xml").write_text(_users(connection))
        finally:
            connection.close()
        self._config.write_text(_server(folder / "users.xml", empty))

    def connect(self, path: str) -> Any:
        """Open a connection to the engine's directory, as the user who may do what is granted."""
        # The stubs of chdb leave out the class that everything of it is built on.
        return chdb._chdb.connect(f"{path}?config-file={self._config}")  # type: ignore[attr-defined]

    def settle(self, connection: Any) -> None:
        """Make the engine an ordinary one; to be called once, on its first connection.

        chDB's database `default` is laid over the whole filesystem: any path is a table. The same
        tables are attached as an ordinary database, under which a path is just an unknown name.

        Raises:
            StackConfigurationError: The engine did not take up its configuration.
        """
        granted = " ".join(_names(connection, "SHOW GRANTS"))
        if re.search(r"\b(ALL|FILE|URL|READ|SOURCES)\b", granted):
            raise StackConfigurationError(
                f"chdb does not heed {self._config}, without which it would read any file for "
                "whoever reaches its port: choose a folder without ? and & in its path"
            )
        rows = connection.query("SELECT engine, uuid FROM system.databases WHERE name = 'default'")
        engine, uuid = (part.strip('"') for part in rows.bytes().decode().strip().split(","))
        if engine == "Overlay":
            connection.query("DETACH DATABASE default")
            connection.query(f"ATTACH DATABASE default UUID '{uuid}' ENGINE = Atomic")
        # One of Python's takes the place of the engine's, also in texts that are evaluated later:
        # expressions among the values of an INSERT, queries of dictionaries.
        for name in self._functions:
            chdb.create_function(name, _refuse, ["String"], "String", on_null="pass")


def _refuse(argument: str) -> str:
    raise PermissionError(
        f"the embedded ClickHouse reads no files and asks no services ({argument})"
    )


def _names(connection: Any, query: str) -> list[str]:
    text: str = connection.query(query, "TSVRaw").bytes().decode()
    return text.splitlines()


def _others(connection: Any, table: str, known: frozenset[str]) -> list[str]:
    return [name for name in _names(connection, f"SELECT name FROM {table}") if name not in known]


def _users(connection: Any) -> str:
    """Write the one user; whatever is named to the engine must exist in it."""
    privileges = set(_names(connection, "SELECT privilege FROM system.privileges"))
    engines = set(_names(connection, f"SELECT name FROM {_ENGINES}"))
    grants = [
        f"GRANT {', '.join(privileges.intersection(_ALLOWED['privileges']))} ON *.*",
        *(f"GRANT TABLE ENGINE ON {name}" for name in engines & allowed("engines")),
    ]
    settings = _names(connection, "SELECT name FROM system.settings WHERE alias_for = ''")
    tables = set(_names(connection, "SELECT name FROM system.merge_tree_settings"))
    pattern = re.compile(_ALLOWED["fixed_settings_pattern"])
    fixed = [name for name in settings if name in allowed("fixed_settings") or pattern.search(name)]
    fixed += [f"merge_tree_{name}" for name in tables & allowed("fixed_table_settings")]
    values = _tags((name, value) for name, value in _VALUES.items() if name in fixed)
    constraints = _tags((name, "<const/>") for name in fixed)
    return (
        "<clickhouse>"
        f"<profiles><default>{values}<constraints>{constraints}</constraints></default></profiles>"
        "<quotas><default/></quotas><users><default><password/>"
        "<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>"
        f"<grants>{_tags(('query', grant) for grant in grants)}</grants>"
        "</default></users></clickhouse>\n"
    )


def _server(users: Path, empty: Path) -> str:
    return (
        f"<clickhouse><users_config>{escape(str(users))}</users_config>"
        f"{_tags((name, escape(f'{empty}/')) for name in _FOLDERS)}"
        "<access_control_improvements><table_engines_require_grant>true"
        "</table_engines_require_grant></access_control_improvements></clickhouse>\n"
    )


def _tags(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<{name}>{text}</{name}>\n" for name, text in pairs)
