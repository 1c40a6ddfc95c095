"""Clustered: statements that change tables, as a cluster of replicas wants them. Pure.

Everything else is said to one server as ever: a replicated table hands on what is inserted, added,
merged, dropped and deleted by itself, and knows a block of rows again by its token on whichever
replica it comes. What has to be said on all of them is what makes a table or a view, and its
comment.

A table's place in Keeper follows from its name, so that a server which joins later, or whose table
was made by somebody else, becomes a replica of it. ClickHouse's own default has an id in it that
differs, and a second table of the same name would stand beside the first, without a word.
"""

from __future__ import annotations

import re

from mqinfer.tables.sql import text_literal

_NAME = r"(?:`(?:[^`\\]|\\.)*`|\w+)"
_MADE = re.compile(rf"CREATE (?:TABLE(?: IF NOT EXISTS)?|OR REPLACE VIEW) {_NAME}")
_COMMENT = re.compile(rf"(ALTER TABLE {_NAME})( MODIFY COMMENT )")
# Texts and names are passed over: a field's default may say anything.
_ENGINE = re.compile(
    r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|\bENGINE = (?P<kind>(?:Replacing)?MergeTree)\b"
    r"(?:\((?P<of>\w*)\))?"
)
_PLACE = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"


def on_cluster(statement: str, cluster: str) -> str:
    """A statement of ours as it is said to one server of a cluster."""
    where = f" ON CLUSTER {text_literal(cluster)}"
    if made := _MADE.match(statement):
        rest = _ENGINE.sub(_replicated, statement[made.end() :])
        return f"{made[0]}{where}{rest}"
    return _COMMENT.sub(lambda found: f"{found[1]}{where}{found[2]}", statement, count=1)


def _replicated(found: re.Match[str]) -> str:
    if found["kind"] is None:
        return found[0]
    arguments = ", ".join(filter(None, (_PLACE, found["of"])))
    return f"ENGINE = Replicated{found['kind']}({arguments})"


# How many shards, and on how many of them this server is; its macros, which a table's place needs.
FACTS = (
    "SELECT uniqExact(shard_num) AS shards, countIf(is_local) AS here, "
    "(SELECT groupArray(macro) FROM system.macros) AS macros "
    "FROM system.clusters WHERE cluster = {cluster:String}"
)


def unfit(cluster: str, shards: int, here: int, macros: list[str]) -> str | None:
    """Why tables cannot be made on a cluster; None if they can."""
    name = f"MQINFER_CLICKHOUSE_CLUSTER={cluster}"
    if shards == 0:
        return f"{name}: ClickHouse knows no cluster of that name (system.clusters)"
    if shards > 1:
        return (
            f"{name}: it has {shards} shards, and rows of one table would lie on one of them; name "
            "a cluster of one shard, with all replicas in it"
        )
    if not here:
        return f"{name}: the server of MQINFER_CLICKHOUSE_URL is no replica of it"
    if missing := {"shard", "replica"} - set(macros):
        return f"{name}: the server has no macro {' and '.join(sorted(missing))} (system.macros)"
    return None
