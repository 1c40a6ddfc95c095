"""`mqinfer requests`: requests that are kept: list them, look at one, cancel one."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.cli.request import of_client, tell

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.requests.state import State
    from mqinfer.settings import Settings

group = typer.Typer(
    help="List, show or cancel requests.", no_args_is_help=True, rich_markup_mode=None
)

Identity = Annotated[str, typer.Argument(metavar="ID", help="As `requests list` shows.")]


def list_requests(
    app: options.AppName,
    endpoint: Annotated[str | None, typer.Option(metavar="E", help="Only of this one.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="S", help="Only those: open, succeeded, partial, ...")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="The newest so many.")] = 50,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""List the requests that are kept, those that changed last at the end.

    \b
      mqinfer requests list plants:app
      mqinfer requests list plants:app --endpoint grade --status failed --json
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    found = interrupt.run(_listed(load_app(app), settings, endpoint, status, limit))
    if as_json:
        from mqinfer.requests.listing import facts

        print_json([facts(one, one.answers) for one in found])
        return
    rows = [
        (one.id, one.status, _time(one.created), _time(one.ended), str(len(one.errors)))
        for one in found
    ]
    if rows:
        columns = ("request", "status", "asked (UTC)", "ended", "errors")
        print_table(columns, rows, right=("errors",))
    print(f"{len(rows):,} requests")


async def _listed(
    app: App, settings: Settings, endpoint: str | None, status: str | None, limit: int
) -> list[State]:
    from collections import deque

    from mqinfer import wiring
    from mqinfer.requests.listing import listed

    found: deque[State] = deque(maxlen=limit)
    async with wiring.jetstream(app, settings, "requests") as broker:
        async for one in listed(app, wiring.scanner(broker), endpoint):
            if status in (None, one.status):
                found.append(one)
    return list(found)


def _time(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def show(
    app: options.AppName,
    identity: Identity,
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Show one request: its status, its answers, what went wrong.

    \b
      mqinfer requests show plants:app grade-3f0c...
    """
    settings = options.load_settings(nats_url=nats_url, blobs=blobs)
    options.quiet_logging(settings)
    found, facts = interrupt.run(of_client(load_app(app), settings, identity, cancel=False))
    tell(found, facts, as_json=as_json)


def cancel(
    app: options.AppName,
    identity: Identity,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Cancel a request that has not ended: what comes of it is not worked on any more.

    \b
      mqinfer requests cancel plants:app grade-3f0c...
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    found, facts = interrupt.run(of_client(load_app(app), settings, identity, cancel=True))
    if as_json:
        print_json(facts)
    else:
        print(f"{found.id} is {found.status}")


COMMANDS = {"list": list_requests, "show": show, "cancel": cancel}
