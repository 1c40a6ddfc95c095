"""`mqinfer status`: how far every stage and sink is, and what someone should look at."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table, table
from mqinfer.times import span

if TYPE_CHECKING:
    from rich.table import Table

    from mqinfer.app import App
    from mqinfer.operate.status import AppStatus
    from mqinfer.settings import Settings

_COLUMNS = ("stage", "waiting", "in flight", "redelivered", "rate/s", "repeats", "dead", "pulls")


def status(
    app: options.AppName,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it until Ctrl-C.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="Between two looks, which make the rates; 0 is one look."
        ),
    ] = 1.0,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Show lag, rate, messages in flight, dead letters and warnings of every stage and sink.

    Asks JetStream alone, and changes nothing.

    \b
      mqinfer status plants:app
      mqinfer status plants:app --watch
      mqinfer status plants:app --json --interval 0 | jq '.stages[] | {name, lag}'
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    if watch:
        interrupt.run(_watch(loaded, settings, max(interval, 0.1), as_json))
    else:
        found = interrupt.run(_once(loaded, settings, interval))
        if as_json:
            print_json(found.as_dict())
        else:
            _print(found)


async def _looks(app: App, settings: Settings, interval: float) -> AsyncGenerator[AppStatus, None]:
    """One look after another, each with the rates since the one before."""
    from mqinfer import wiring
    from mqinfer.adapters.scan import Scanner
    from mqinfer.operate.status import gather, rates

    async with wiring.jetstream(app, settings, "status") as broker:
        scanner = Scanner(broker.client)
        before = None
        while True:
            now = await gather(app, scanner)
            yield rates(now, before)
            before = now
            await asyncio.sleep(interval)


async def _once(app: App, settings: Settings, interval: float) -> AppStatus:
    async with contextlib.aclosing(_looks(app, settings, interval)) as looks:
        found = await anext(looks)
        return await anext(looks) if interval else found


async def _watch(app: App, settings: Settings, interval: float, as_json: bool) -> None:
    async with contextlib.aclosing(_looks(app, settings, interval)) as looks:
        if as_json:
            async for found in looks:
                print_json(found.as_dict(), line=True)
            return
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
            async for found in looks:
                above = f"{_headline(found)}\n{_stream_line(found)}\n"
                below = "\n".join(f"! {text}" for text in _warnings(found))
                live.update(Group(Text(above), _table(found), Text(below)), refresh=True)


# --- words --------------------------------------------------------------------------------------


def _print(found: AppStatus) -> None:
    print(_headline(found))
    print(_stream_line(found))
    print()
    print_table(_COLUMNS, _rows(found), right=_COLUMNS[1:])
    for text in _warnings(found):
        print(f"! {text}")


def _warnings(found: AppStatus) -> list[str]:
    from mqinfer.operate.status import warnings

    return warnings(found)


def _table(found: AppStatus) -> Table:
    return table(_COLUMNS, _rows(found), right=_COLUMNS[1:])


def _headline(found: AppStatus) -> str:
    lag = sum(task.lag for task in found.tasks)
    return (
        f"app {found.app} at {found.time:%H:%M:%S} UTC: {lag:,} messages to do, "
        f"{found.dead:,} dead letters"
    )


def _stream_line(found: AppStatus) -> str:
    stream = found.stream
    if not stream.exists:
        return f"stream {stream.name}: not there yet"
    limit = f" of {_size(stream.max_bytes)}" if stream.max_bytes else ""
    age = f", kept {span(stream.max_age)}" if stream.max_age else ""
    since = ""
    if stream.oldest is not None:
        old = (datetime.datetime.now(datetime.UTC) - stream.oldest).total_seconds()
        since = f", the oldest {span(max(old, 0))} old"
    return (
        f"stream {stream.name}: {stream.messages:,} messages, {_size(stream.bytes)}{limit}, "
        f"sequences {stream.first:,} to {stream.last:,}{since}{age}{_states(found)}"
    )


def _states(found: AppStatus) -> str:
    """A line of its own, where stages remember."""
    kept = found.states
    return "" if kept is None else f"\nstates: {kept.messages:,} keys, {_size(kept.bytes)}"


def _rows(found: AppStatus) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for task in found.tasks:
        if not task.exists:
            rows.append((task.name, "-", "-", "-", "-", "-", f"{task.dead:,}", "-"))
            continue
        rate = "-" if task.rate is None else f"{task.rate:,.1f}"
        numbers = (task.waiting, task.in_flight, task.redelivered)
        ends = (task.repeats, task.dead, task.pulling)
        rows.append((task.name, *(f"{n:,}" for n in numbers), rate, *(f"{n:,}" for n in ends)))
    return rows


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
