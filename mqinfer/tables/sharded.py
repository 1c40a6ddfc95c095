"""Sharded: our statements, as a cluster of several shards is told them. Pure.

What everything reads and writes, `T__storage`, is a Distributed table there, and the rows lie in
`T__shard` of each shard, a replicated table as on a cluster of one. All copies of a row have one
`_id`, by which they are laid, so that they meet on one shard, and FINAL, which each shard answers
for its own rows, is exact. By the first column that sorts a table they would meet as well, but few
values of it fill few shards, and 0.0 and -0.0 are one key with two hashes.

How many slots the rows are laid over is written into the table: a cluster that grows leaves every
row, and its later copies, where they were. The monitor's own tables are small and are read beside
the others: they are whole on each server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mqinfer.tables.clustered import EVERYWHERE, on_cluster
from mqinfer.tables.sql import quoted, text_literal

STORAGE_SUFFIX, SHARD_SUFFIX = "__storage", "__shard"
# Of a Distributed table's engine, as system.tables shows it.
SLOTS = re.compile(r"% (\d+)\)")

_OF_ROWS = re.compile(
    r"(CREATE TABLE IF NOT EXISTS|ALTER TABLE|OPTIMIZE TABLE|DELETE FROM|DROP TABLE IF EXISTS"
    r"|SYSTEM SYNC REPLICA) `((?:[^`\\]|\\.)*)__storage`"
)
_COMMENT = re.compile(r"\nCOMMENT '(?:[^'\\]|\\.)*'$")
# What both tables have. All else there is to change is what rows and parts are.
_OF_COLUMNS = re.compile(r" (?:ADD|MODIFY|DROP|RENAME|COMMENT) COLUMN ")
_SYSTEM = re.compile(
    r"FROM (system\.\w+) WHERE database = currentDatabase\(\) AND table = \{storage:String\}"
)
_ROWS = f"replaceRegexpOne({{storage:String}}, '{STORAGE_SUFFIX}$', '{SHARD_SUFFIX}')"
# Within a question of the rows, which each shard answers: of its own parts.
_OWN_PARTS = re.compile(r"(FROM system\.parts WHERE active AND table = '(?:[^'\\]|\\.)*)__storage'")

# Subqueries are asked once, and of all shards; what a profile says must not change answers. Of the
# replicas of another shard the first one that answers is asked, so that rows that were written
# through this server are there.
SETTINGS: dict[str, int | str] = {
    "distributed_product_mode": "global",
    "distributed_group_by_no_merge": 0,
    "skip_unavailable_shards": 0,
    "load_balancing": "in_order",
}
# An insert is over when each shard has its rows, and copies are laid anew and not shard by shard.
WRITING: dict[str, int | str] = {
    **SETTINGS,
    "distributed_foreground_insert": 1,
    "parallel_distributed_insert_select": 0,
}
# Days that are merged on one shard, and not yet on another, are not written again.
CHANGING: dict[str, int | str] = {**WRITING, "optimize_skip_merged_partitions": 1}
# The queue of ON CLUSTER does one thing at a time, and a merge may take an hour.
_NOT_AWAITED = {"alter_sync": 0}


@dataclass(frozen=True, slots=True)
class Shards:
    """A cluster of several shards.

    Attributes:
        cluster: its name.
        database: that has the tables, on each server.
        slots: of its shards; one each, or their weights.
    """

    cluster: str
    database: str
    slots: int


def settings_of(statement: str) -> dict[str, int | str]:
    """The settings with which `statement` is said."""
    return CHANGING | (_NOT_AWAITED if statement.startswith("OPTIMIZE ") else {})


def rows_of(table: str) -> str:
    """The name of the table in which a shard has the rows of `table`."""
    return re.sub(f"{STORAGE_SUFFIX}$", SHARD_SUFFIX, table)


def made(statement: str) -> str | None:
    """The name of the Distributed table that a statement makes; None if it makes none."""
    found = _OF_ROWS.match(statement)
    if found is None or not found[1].startswith("CREATE"):
        return None
    return found[2] + STORAGE_SUFFIX


def told(statement: str, at: Shards) -> list[str]:
    """What is said to one server of the cluster for a statement of ours, one after the other."""
    statement = asked(statement, at)
    found = _OF_ROWS.match(statement)
    if found is None:
        if statement.startswith("KILL MUTATION "):  # of the rows' tables, on each shard
            where = f" ON CLUSTER {text_literal(at.cluster)} WHERE"
            statement = statement.replace(" WHERE", where, 1)
            return [statement.replace("table = {storage:String}", f"table = {_ROWS}")]
        return [on_cluster(statement, at.cluster, EVERYWHERE)]
    verb, rest = found[1], statement[found.end() :]
    where = f" ON CLUSTER {text_literal(at.cluster)}"
    shard, all_shards = f"`{found[2]}{SHARD_SUFFIX}`", f"`{found[2]}{STORAGE_SUFFIX}`"
    if verb.startswith("SYSTEM"):
        return [f"{verb}{where} {shard}{rest}"]
    if verb.startswith("DROP"):
        return [f"{verb} {all_shards}{where}{rest} SYNC", f"{verb} {shard}{where}{rest} SYNC"]
    if verb.startswith("CREATE"):
        comment = _COMMENT.search(rest)
        return [
            on_cluster(f"{verb} {shard}{rest}", at.cluster),
            f"{verb} {all_shards}{where} AS {quoted(at.database)}.{shard}\n"
            f"ENGINE = Distributed({text_literal(at.cluster)}, {text_literal(at.database)}, "
            f"{shard}, cityHash64(`_id`) % {at.slots})" + (comment[0] if comment else ""),
        ]
    if rest.startswith(" MODIFY COMMENT "):
        return [f"{verb} {all_shards}{where}{rest}"]
    changed = [f"{verb} {shard}{where}{rest}"]
    if _OF_COLUMNS.match(rest):
        changed.append(f"{verb} {all_shards}{where}{rest}")
    return changed


def asked(question: str, at: Shards) -> str:
    """A question of ours, or a statement: what the server knows of its parts, all shards know."""
    every = rf"FROM cluster({text_literal(at.cluster)}, \1) WHERE database = currentDatabase() "
    question = _SYSTEM.sub(lambda one: f"{one.expand(every)}AND table = {_ROWS}", question)
    question = _OWN_PARTS.sub(rf"\1{SHARD_SUFFIX}'", question)
    return question.replace("currentDatabase()", text_literal(at.database))


# Before a table is made: over how many slots other servers have it, if they do; how many shards
# answer, and how many names they have for themselves.
LAID = (
    "SELECT (SELECT max(toUInt64OrZero(extract(engine_full, '% (\\\\d+)\\\\)'))) "
    "FROM clusterAllReplicas({cluster:String}, system.tables) WHERE database = {database:String} "
    "AND name = {table:String} AND engine = 'Distributed') AS slots, "
    "(SELECT count() FROM cluster({cluster:String}, system.macros) WHERE macro = 'shard') AS here, "
    "(SELECT uniqExact(substitution) FROM cluster({cluster:String}, system.macros) "
    "WHERE macro = 'shard') AS names SETTINGS skip_unavailable_shards = 1"
)
