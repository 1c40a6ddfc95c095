"""Clustered: statements that change tables, as a cluster of replicas wants them. Pure.

Everything else is said to one server as ever: a replicated table hands on what is inserted, added,
merged and deleted by itself, and knows a block of rows again by its token on whichever replica it
comes. What has to be said on all of them is what makes a table or a view, what drops it, and its
comment. `sharded` has what several shards want besides.

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
_DROPPED = re.compile(rf"DROP (TABLE|VIEW) IF EXISTS {_NAME}$")
# Texts and names are passed over: a field's default may say anything.
_ENGINE = re.compile(
    r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|\bENGINE = (?P<kind>(?:Replacing)?MergeTree)\b"
    r"(?:\((?P<of>\w*)\))?"
)
A_SHARD = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
EVERYWHERE = "'/clickhouse/tables/all/{database}/{table}', '{shard}-{replica}'"


def on_cluster(statement: str, cluster: str, place: str = A_SHARD) -> str:
    """A statement of ours as it is said to one server of a cluster.

    Args:
        statement: any.
        cluster: its name.
        place: in Keeper, and the replica's name, of a table that is made.
    """
    where = f" ON CLUSTER {text_literal(cluster)}"
    if made := _MADE.match(statement):
        rest = _ENGINE.sub(lambda found: _replicated(found, place), statement[made.end() :])
        return f"{made[0]}{where}{rest}"
    if dropped := _DROPPED.match(statement):
        return f"{statement}{where}{' SYNC' if dropped[1] == 'TABLE' else ''}"
    return _COMMENT.sub(lambda found: f"{found[1]}{where}{found[2]}", statement, count=1)


def _replicated(found: re.Match[str], place: str) -> str:
    if found["kind"] is None:
        return found[0]
    arguments = ", ".join(filter(None, (place, found["of"])))
    return f"ENGINE = Replicated{found['kind']}({arguments})"


# Slots of the shards, where there are several: one each, or their weights. How often this server is
# among the replicas; its macros, which a table's place needs.
SLOTS = (
    "(SELECT if(count() > 1, toUInt64(sum(shard_weight)), count()) FROM (SELECT DISTINCT "
    "shard_num, shard_weight FROM system.clusters WHERE cluster = {cluster:String})) AS slots"
)
FACTS = (
    f"SELECT {SLOTS}, countIf(is_local) AS here, "
    "(SELECT groupArray(macro) FROM system.macros) AS macros "
    "FROM system.clusters WHERE cluster = {cluster:String}"
)


def unfit(cluster: str, slots: int, here: int, macros: list[str]) -> str | None:
    """Why tables cannot be made on a cluster; None if they can."""
    name = f"MQINFER_CLICKHOUSE_CLUSTER={cluster}"
    if slots == 0:
        return f"{name}: ClickHouse knows no cluster of that name (system.clusters)"
    if not here:
        return f"{name}: the server of MQINFER_CLICKHOUSE_URL is no replica of it"
    if missing := {"shard", "replica"} - set(macros):
        return f"{name}: the server has no macro {' and '.join(sorted(missing))} (system.macros)"
    return None
