"""`mqinfer index`: holds shards of indexes; shows, builds, flips and drops generations."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mqinfer import signals
from mqinfer.cli import interrupt, options
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.cli.errors import ExitCode, Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.errors import ConfigurationError
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.cli.indexes import Chosen
    from mqinfer.index import Index
    from mqinfer.settings import Settings

Action = Literal["serve", "status", "check", "build", "flip", "drop", "weights"]


def index(
    app: options.AppName,
    action: Annotated[Action, typer.Argument(help="What to do.", show_choices=True)],
    name: Annotated[
        str | None, typer.Argument(metavar="[INDEX]", help="Default: the only one, or all.")
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of several whose vectors are indexed.")
    ] = None,
    to: Annotated[
        int | None, typer.Option(metavar="N", help="flip, drop: a generation; default the newest.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="flip: also to one that is not read yet.")
    ] = False,
    version: Annotated[
        str | None, typer.Option(metavar="MODEL=VERSION", help="build: of vectors of it alone.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="build: with those of a replay run.")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, max=256, help="build: parts.")] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help="build: f32, bf16, f16 or i8.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="MODEL=WEIGHT", help="weights; repeatable.")
    ] = None,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="serve: the shards of this part, from 1.")
    ] = "1/1",
    snapshot_every: Annotated[
        str, typer.Option(metavar="TIME", help="serve: between snapshots.")
    ] = "5m",
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="serve: /healthz, /readyz, /metrics."),
    ] = None,
    http_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="serve: where to listen.")
    ] = "127.0.0.1",
    process: options.Process,
    as_json: options.AsJson = False,
) -> None:
    r"""Serve an app's indexes, or look after them.

    serve holds all shards in memory until SIGTERM or Ctrl-C; each further process of the same
    part is a replica. A generation is built beside the one that is searched, by whoever serves.

    \b
      mqinfer index plants:app serve
      mqinfer index plants:app serve --part 1/2          half of the shards; 2/2 elsewhere
      mqinfer index plants:app status
      mqinfer index plants:app check                     against ClickHouse
      mqinfer index plants:app build pictures --shards 4 --version lite0=2
      mqinfer index plants:app flip pictures             searches go to the newest
      mqinfer index plants:app drop pictures --to 1      frees its memory
      mqinfer index plants:app weights pictures --set lite0=2
    """
    bind_to_supervisor()
    settings = options.load_settings(**dataclasses.asdict(process))
    loaded = load_app(app)
    if not loaded.indexes:
        raise ConfigurationError(f"app {loaded.name} has no index: declare one with app.index(...)")
    if action == "serve":
        options.configure_logs(settings)
        _serve(loaded, settings, name, _part(part), parse_duration(snapshot_every), http, http_host)
    options.quiet_logging(settings)
    from mqinfer.cli import indexes

    chosen = _chosen(loaded, name, model)
    builds: dict[str, Any] = {"shards": shards, "dtype": dtype, "run": run}
    if version is not None:
        of, _, number = version.partition("=")
        if not of or not number:
            raise ConfigurationError(f"--version is MODEL=VERSION, not {version!r}")
        builds |= {"model": of, "version": number}
    changed = {field: value for field, value in builds.items() if value is not None}
    work = indexes.work(loaded, settings, action, chosen, changed, to, _weights(set_), force=force)
    told = interrupt.run(work)
    if as_json:
        print_json(told.facts)
    else:
        if told.rows:
            print_table(told.head, told.rows)
        for line in told.lines:
            print(line)
    if told.failed:
        print(told.failed, file=sys.stderr)
        raise Failed


def _chosen(app: App, name: str | None, model: str | None) -> list[Chosen]:
    from mqinfer.search.searching import index_of

    found: list[Index] = list(app.indexes.values()) if name is None else [index_of(app, name)]
    return [(one, each) for one in found for each in one.models if model in (None, each)]


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigurationError(f"--part is such as 1/2, the first of two, not {text!r}")
    return int(found[1]) - 1, int(found[2])


def _weights(given: list[str] | None) -> dict[str, float]:
    found = {}
    for one in given or ():
        name, _, text = one.partition("=")
        try:
            found[name] = float(text)
        except ValueError:
            raise ConfigurationError(f"--set is MODEL=WEIGHT, not {one!r}") from None
    return found


def _serve(
    app: App,
    settings: Settings,
    name: str | None,
    part: tuple[int, int],
    every: float,
    port: int | None,
    host: str,
) -> None:
    from mqinfer.cli.worker import run_loop
    from mqinfer.search.searching import index_of

    names = None if name is None else [index_of(app, name).name]

    async def serve() -> int:
        from mqinfer import wiring
        from mqinfer.http import serve_http
        from mqinfer.message import Row
        from mqinfer.search.keeping import Keeping
        from mqinfer.starting import Patience

        main = asyncio.current_task()
        assert main is not None
        patience, kept = Patience(), list[Keeping]()
        stopped = asyncio.Event()

        def stop() -> None:
            stopped.set()
            for one in kept:
                one.stop()

        def not_ready() -> list[str]:
            return kept[0].not_ready() if kept else [patience.reason or "connecting"]

        def metrics() -> bytes:
            return kept[0].metrics() if kept else b""

        async def hold(stack: AsyncExitStack) -> None:
            services = await stack.enter_async_context(
                wiring.services(app, settings, "index", (), patience)
            )
            database = None
            kinds = [kind for one in app.indexes.values() for kind in one.models.values()]
            if any(issubclass(kind, Row) for kind in kinds):
                database = wiring.clickhouse(settings)
                stack.push_async_callback(database.close)
            tools = wiring.keeping(app, services, database, every)
            kept.append(Keeping(app, tools, part=part, names=names))
            if stopped.is_set():
                kept[0].stop()
            await kept[0].run()

        try:
            with signals.handed_to(stop, main.cancel):
                async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                    if port is not None:
                        serving = group.create_task(
                            serve_http(
                                port,
                                host=host,
                                live=lambda: None,
                                ready=not_ready,
                                metrics=metrics,
                            )
                        )
                    try:
                        await hold(stack)
                    finally:
                        if port is not None:
                            serving.cancel()
        except asyncio.CancelledError:
            return ExitCode.INTERRUPTED
        return ExitCode.DONE

    signals.hold()
    raise typer.Exit(run_loop(settings, serve, best="uvloop"))
