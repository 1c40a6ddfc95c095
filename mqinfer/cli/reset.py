"""`mqinfer reset`: an app under development begins anew."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.app import App
    from mqinfer.operate.reset import Held
    from mqinfer.settings import Settings

_STACK = "mqinfer"  # what the NATS of `mqinfer up`, and of compose/, calls itself


def reset(
    app: options.AppName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    really: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The app's name, where the servers are not those of `mqinfer up` here.",
        ),
    ] = None,
    servers: options.Servers,
) -> None:
    r"""Delete an app's streams, states, dead letters and tables, so that it begins anew.

    For whoever works on an app. Asks before; refuses while workers run. Servers other than those
    of `mqinfer up` on this machine may be somebody's production: there the app has to be named
    with --really. Blobs stay.

    \b
      mqinfer reset plants:app
      mqinfer reset plants:app --yes                   in a script
      mqinfer reset plants:app --really plants         on servers elsewhere
    """
    settings = options.load_settings(**asdict(servers))
    options.quiet_logging(settings)
    loaded = load_app(app)
    if really is not None and really != loaded.name:
        raise ConfigurationError(f"--really {really}: the app is called {loaded.name}")
    interrupt.run(
        _reset(loaded, settings, ask=not yes and really is None, named=really is not None)
    )


async def _reset(app: App, settings: Settings, *, ask: bool, named: bool) -> None:
    from mqinfer import wiring
    from mqinfer.operate import reset as operation
    from mqinfer.worker.presence import seen

    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(wiring.jetstream(app, settings, "reset"))
        db = wiring.clickhouse(settings)
        stack.push_async_callback(db.close)
        if not named and (why := _elsewhere(app, settings, broker)) is not None:
            raise ConfigurationError(
                f"{why}, and may be somebody's production: --really {app.name} deletes all that "
                f"app {app.name} has there"
            )
        workers, now = await seen(app, wiring.scanner(broker))
        if there := [one for one in workers if not one.lost(now)]:
            raise ConfigurationError(
                f"{len(there)} workers of app {app.name} run: stop them first ("
                + ", ".join(f"{one.host}:{one.pid}" for one in there[:5])
                + ")"
            )
        what = await operation.held(app, broker, db)
        if not what.streams and not what.tables:
            print(f"app {app.name} has nothing there")
            return
        _tell(app, what)
        if ask:
            _ask(app)
        await operation.reset(app, what, broker, db)
    print("deleted; the next worker begins anew")


def _elsewhere(app: App, settings: Settings, broker: JetStream) -> str | None:
    """Why the servers may be others than those of `mqinfer up` here; None if they are these."""
    if not _local(settings.nats_servers):
        return "NATS is not on this machine"
    if app.rows and not _local([settings.clickhouse_url]):
        return "ClickHouse is not on this machine"
    if broker.client.server_name != _STACK:  # a port that is forwarded to somewhere
        return f"NATS calls itself {broker.client.server_name!r}: it is none of `mqinfer up`"
    return None


def _local(urls: Iterable[str]) -> bool:
    hosts = [urlsplit(url).hostname or "" for url in urls]
    return all(host == "localhost" or _loopback(host) for host in hosts)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _tell(app: App, what: Held) -> None:
    print(f"app {app.name} has")
    for name, count in what.streams.items():
        print(f"  stream {name}: {count:,} messages")
    for name, count in what.tables.items():
        print(f"  table {name}: {count:,} rows")


def _ask(app: App) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to be asked: --yes deletes it")
    if not typer.confirm(f"Delete all of it, and what app {app.name} has in shared tables?"):
        raise typer.Abort
