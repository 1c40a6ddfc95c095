"""`mqinfer state`: what a stage remembers of its keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.settings import Settings
    from mqinfer.state.reading import Kept

LOOK = 0.5  # seconds between looks of --watch
_WIDE = 100  # characters of a state in the list

Key = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="The value of the messages' key; default: all of them."),
]


def state(
    app: options.AppName,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage that remembers.")],
    key: Key = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what changes.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Let the state of KEY begin anew, also beside workers.")
    ] = False,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Of a replay run.")
    ] = None,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Show what a stage remembers of its keys, or of one; or let one begin anew.

    \b
      mqinfer state plants:app watch                    all keys
      mqinfer state plants:app watch p17 --json
      mqinfer state plants:app watch p17 --watch        as it changes, until Ctrl-C
      mqinfer state plants:app watch p17 --reset        messages that it has seen stay seen
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    if reset and (key is None or watch):
        raise ConfigurationError("--reset is of one KEY, and goes without --watch")
    loaded = load_app(app)
    if reset:
        assert key is not None
        was = interrupt.run(_reset(loaded, settings, stage, key, run))
        if as_json:
            print_json({"stage": stage, "key": key, "reset": was})
        else:
            print(f"the state of {key!r} begins anew" if was else f"there is no state of {key!r}")
        return
    found = interrupt.run(_show(loaded, settings, stage, key, run, watch=watch, as_json=as_json))
    if watch:
        return
    if as_json:
        print_json([_facts(one) for one in found])
    elif key is not None:
        print(_text(found[0]) if found else f"there is no state of {key!r}")
    else:
        rows = [(one.key, f"{one.time:%Y-%m-%d %H:%M:%S}", _text(one)[:_WIDE]) for one in found]
        if rows:
            print_table(("key", "changed (UTC)", "state"), rows)
        print(f"{len(rows):,} states")


async def _show(
    app: App,
    settings: Settings,
    stage: str,
    key: str | None,
    run: str | None,
    *,
    watch: bool,
    as_json: bool,
) -> list[Kept]:
    from mqinfer import wiring
    from mqinfer.codec import Codec
    from mqinfer.message import key_token
    from mqinfer.state.reading import listed

    codec, first = Codec(), 1
    token = None if key is None else key_token(key)
    async with wiring.jetstream(app, settings, "state") as broker:
        streams = wiring.scanner(broker)
        while True:
            found: dict[str, Kept] = {}
            async for one in listed(app, stage, streams, codec, run, token=token, first=first):
                found[one.key] = one
                first = max(first, one.place + 1)
                if watch:
                    _print(one, as_json=as_json)
            if not watch:
                return sorted(found.values(), key=lambda one: one.key)
            await asyncio.sleep(LOOK)


async def _reset(app: App, settings: Settings, stage: str, key: str, run: str | None) -> bool:
    from mqinfer import plan, wiring
    from mqinfer.state.reading import reset

    async with wiring.jetstream(app, settings, "state") as broker:
        return await reset(app, stage, key, broker.bucket(plan.memory_bucket(app)), run)


def _facts(one: Kept) -> dict[str, Any]:
    import msgspec

    fields = None if one.state is None else msgspec.to_builtins(one.state, enc_hook=str)
    facts = {"key": one.key, "state": fields, "sequence": one.sequence, "changed": one.time}
    return facts | ({"problem": one.problem} if one.problem else {})


def _text(one: Kept) -> str:
    if one.problem:
        return f"cannot be read: {one.problem}"
    return "(begins anew)" if one.state is None else repr(one.state)


def _print(one: Kept, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(one), line=True)
    else:
        print(f"{one.time:%Y-%m-%d %H:%M:%S}  {one.key}  {_text(one)}", flush=True)
