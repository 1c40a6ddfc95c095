"""Data: what a deployment does to streams, consumers, tables, requests and models. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mqinfer.deploy.change import Change, Kind, arrow
from mqinfer.tables.tables import same_type, widens
from mqinfer.times import span

if TYPE_CHECKING:
    from mqinfer.deploy.declaration import Declaration, TableFacts
    from mqinfer.deploy.deployment import Deployment
    from mqinfer.deploy.live import Live, LiveStream


def data_changes(
    before: Declaration | None, after: Deployment, declared: Declaration, live: Live
) -> Iterator[Change]:
    """What happens to data.

    Args:
        before: what was applied last; None if nothing was.
        after: what is wanted.
        declared: what the code declares now.
        live: what there is.
    """
    if live.stream is None:
        text = "it is made, with the consumers of all stages, before any process begins"
        yield Change(Kind.BEGIN, f"stream {declared.app}", "new", text)
    else:
        yield from _stream(live.stream, declared)
    if live.partitions is not None and live.partitions != declared.partitions:
        what = f"partitions {live.partitions} -> {declared.partitions}"
        text = "messages of a key would change places and lose their order: they are fixed"
        yield Change(Kind.REFUSED, f"stream {declared.app}", what, text)
    yield from _consumers(declared, live)
    if before is not None:
        yield from _tables(before, declared, live)
        yield from _endpoints(before, declared)
    for table, conflicts in live.servers.conflicts.items():
        for conflict in conflicts:
            yield Change(Kind.REFUSED, f"table {table}", "as it is there", conflict)
    for name, version in after.models.items():
        now = live.aliases.get(name)
        if now == version:
            continue
        served = live.servers.served
        there = () if served is None else served.get(name.split("@")[0], ())
        if served is not None and version not in there:
            text = f"its stages would wait: it serves {', '.join(there) or 'none'}"
            what = f"Triton does not serve version {version}"
            yield Change(Kind.REFUSED, f"model {name}", what, text)
            continue
        text = "every worker follows within two seconds, none restarts; setting it back undoes"
        yield Change(Kind.SWITCH, f"model {name}", f"version {arrow(now, version)}", text)


def _stream(live: LiveStream, declared: Declaration) -> Iterator[Change]:
    where = f"stream {declared.app}"
    if live.max_age != declared.max_age:
        what = f"max_age {span(live.max_age)} -> {span(declared.max_age)}"
        if not live.max_age or declared.max_age < live.max_age:
            text = (
                f"messages older than {span(declared.max_age)} are dropped, {live.expiring:,} of "
                f"{live.messages:,} now; no replay reaches further back"
            )
            yield Change(Kind.DROP, where, what, text)
        else:
            text = "messages that are there are kept longer, too"
            yield Change(Kind.CHANGE, where, what, text)
    if live.max_bytes != declared.max_bytes:
        what = f"max_bytes {_size(live.max_bytes)} -> {_size(declared.max_bytes)}"
        full = declared.max_bytes is not None and live.bytes >= declared.max_bytes
        text = "nothing is dropped; the server reserves it"
        if full:
            text = f"it holds {_size(live.bytes)}: publishers wait until age has made room"
        yield Change(Kind.CHANGE, where, what, text)
    if live.replicas != declared.replicas:
        what = f"replicas {live.replicas} -> {declared.replicas}"
        text = "servers copy what there is while work goes on"
        if declared.replicas < live.replicas:
            text = f"work goes on; the loss of {_servers(declared.replicas)} loses messages"
        yield Change(Kind.CHANGE, where, what, text)
    if live.duplicate_window != declared.duplicate_window:
        windows = span(live.duplicate_window), span(declared.duplicate_window)
        what = f"duplicate_window {arrow(*windows)}"
        text = "a message that is published again is known as a repeat for so long"
        yield Change(Kind.CHANGE, where, what, text)


def _servers(replicas: int) -> str:
    return "its server" if replicas == 1 else f"{replicas // 2 + 1} servers"


def _consumers(declared: Declaration, live: Live) -> Iterator[Change]:
    if live.stream is not None:
        for one in live.beginnings:
            kind = Kind.REFUSED if one.doubtful else Kind.BEGIN
            text = str(one)
            if one.doubtful:
                text += (
                    f"; say where: start= in the code, or `mqinfer begin APP {one.name} new|oldest`"
                )
            what = "consumer deleted" if one.resumes else "new"
            yield Change(kind, f"stage {one.name}", what, text)
    gone: dict[str, int] = {}
    for orphan in live.orphans:  # what comes of jobs, and packs of rows, have one of their own
        name = stage_of(orphan.name)
        if name not in declared.stages and name in live.known:
            gone[name] = gone.get(name, 0) + orphan.waiting
    for name, waiting in gone.items():
        text = (
            f"its consumer stays, with {waiting:,} messages that nobody handles: `mqinfer "
            f"rename` if another stage goes on for it; --prune deletes it and drops them"
        )
        yield Change(Kind.REMOVE, f"stage {name}", "removed", text)


def stage_of(consumer: str) -> str:
    """The stage or sink whose consumer has this name, without its partition."""
    name = consumer.removesuffix("=bulk")
    return name.removesuffix("-packs") if name.startswith("sink-") else name


def _tables(before: Declaration, declared: Declaration, live: Live) -> Iterator[Change]:
    for name, now in declared.tables.items():
        then = before.tables.get(name)
        if then is None:
            text = "the first worker of its sink makes it"
            yield Change(Kind.BEGIN, f"table {name}", "new", text)
        else:
            yield from _table(f"table {name}", then, now)
    for name in before.tables:
        if name not in declared.tables:
            text = "it stays, with its rows; nothing is written to it any more"
            yield Change(Kind.REMOVE, f"table {name}", "removed", text)
    del live


def _table(where: str, then: TableFacts, now: TableFacts) -> Iterator[Change]:
    for column, kind in now.columns.items():
        old = then.columns.get(column)
        if old is None:
            text = "rows that are there have its default"
            yield Change(Kind.CHANGE, where, f"column {column} added ({kind})", text)
        elif not same_type(old, kind):
            what = f"column {column} {old} -> {kind}"
            if widens(old, kind):
                yield Change(Kind.CHANGE, where, what, "the server takes all values over")
            else:
                text = "values would not fit: give the column another name"
                yield Change(Kind.REFUSED, where, what, text)
    for column in then.columns:
        if column not in now.columns:
            text = "it stays, with its values; rows from now on have its default"
            yield Change(Kind.REMOVE, where, f"column {column} removed", text)
    if then.order_by != now.order_by:
        what = f"order_by {', '.join(then.order_by)} -> {', '.join(now.order_by)}"
        text = "a table keeps its sorting key: give the type another table="
        yield Change(Kind.REFUSED, where, what, text)
    if then.keep != now.keep:
        what = f"keep {_kept(then.keep)} -> {_kept(now.keep)}"
        shorter = now.keep is not None and (then.keep is None or now.keep < then.keep)
        if shorter and now.keep is not None:
            text = f"days that began more than {span(now.keep)} ago are dropped whole"
            yield Change(Kind.DROP, where, what, text)
        else:
            yield Change(Kind.CHANGE, where, what, "days that are there are kept longer, too")


def _kept(seconds: float | None) -> str:
    return "for ever" if seconds is None else span(seconds)


def _endpoints(before: Declaration, declared: Declaration) -> Iterator[Change]:
    for name in {**before.endpoints, **declared.endpoints}:
        then, now = before.endpoints.get(name), declared.endpoints.get(name)
        where = f"endpoint {name}"
        if then is None:
            text = "it can be asked when the gateway and the workers of its stages are new"
            yield Change(Kind.BEGIN, where, "new", text)
        elif now is None:
            text = "nobody can ask it; requests under way stay open until they are forgotten"
            yield Change(Kind.REMOVE, where, "removed", text)
        elif then != now:
            for field in ("deadline", "keep"):
                if (old := getattr(then, field)) != (new := getattr(now, field)):
                    what = f"{field} {span(old)} -> {span(new)}"
                    yield Change(Kind.CHANGE, where, what, "of requests from then on")
            if (then.reads, then.answers) != (now.reads, now.answers):
                text = "clients see other fields: keep the old endpoint beside a new one"
                yield Change(Kind.CHANGE, where, "other types", text)


def _size(size: int | None) -> str:
    if size is None:
        return "without limit"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size} B"
