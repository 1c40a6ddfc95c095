"""`mqinfer check`: every problem that can be known before anything runs, a line each."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqinfer.app import App
    from mqinfer.operate.check import Report
    from mqinfer.ports import InferenceServer
    from mqinfer.settings import Settings
    from mqinfer.stage import Stage


def check(
    app: options.AppName,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="The wiring alone; ask no server.")
    ] = False,
    servers: options.Servers,
    as_json: options.AsJson = False,
) -> None:
    r"""Check wiring, models and their inputs, tables, streams and servers.

    Changes nothing. Each problem is one line that names the stage; exit code 1 if there is any.
    What waits in the stream is read as this code would read it, a sample for each stage, and what
    would die of a type that changed is told; so it is with the rows that are stored.
    Input names are read from the handlers' code; dtypes and shapes are compared where the app
    declares them: app.model("m", inputs={"image": Tensor("uint8", (480, 640, 3))}).

    \b
      mqinfer check plants:app
      mqinfer check plants:app --offline        in CI, without servers
    """
    settings = options.load_settings(**asdict(servers))
    options.quiet_logging(settings)
    loaded = load_app(app)
    report = interrupt.run(_check(loaded, settings, offline))
    if as_json:
        facts = {
            "app": loaded.name,
            "problems": report.problems,
            "checked": report.checked,
            "notes": report.notes,
        }
        print_json(facts)
    else:
        for line in report.checked:
            print(f"ok       {line}")
        for line in report.notes:
            print(f"note     {line}")
        for line in report.problems:
            print(f"problem  {line}")
    if report.problems:
        raise Failed


async def _check(app: App, settings: Settings, offline: bool) -> Report:
    from mqinfer.operate import check as checks

    report, stages = checks.check_wiring(app)
    if offline:
        return report
    async with contextlib.AsyncExitStack() as stack:
        asked: dict[str, checks.Check] = {"NATS": functools.partial(_streams, app, settings)}
        if checks.uses_models(stages):
            from mqinfer import wiring

            server = wiring.triton(settings)
            stack.push_async_callback(server.close)
            aliases = await _aliases(app, settings)
            asked["Triton"] = functools.partial(_models, stages, server, aliases)
        if checks.uses_tables(stages):
            from mqinfer import wiring

            database = wiring.clickhouse(settings)
            stack.push_async_callback(database.close)
            asked["ClickHouse"] = functools.partial(checks.check_tables, app, stages, database)
        await checks.gather(report, asked)
    return report


async def _aliases(app: App, settings: Settings) -> dict[tuple[str, str], str] | None:
    """The versions that aliases name; None where NATS does not say, which is told of NATS."""
    from mqinfer import wiring
    from mqinfer.errors import PermissionDenied, Unavailable
    from mqinfer.inference.aliases import followed

    if not followed(app):
        return {}
    try:
        async with wiring.jetstream(app, settings, "check") as broker:
            found = await wiring.aliases(app, broker).all()
    except (Unavailable, PermissionDenied):
        return None
    return {key: alias.version for key, alias in found.items()}


async def _models(
    stages: Mapping[str, Stage],
    server: InferenceServer,
    aliases: Mapping[tuple[str, str], str] | None,
    report: Report,
) -> None:
    from mqinfer.adapters.spread import Spread
    from mqinfer.operate.addresses import check_addresses
    from mqinfer.operate.check import check_models

    if isinstance(server, Spread):
        await check_addresses(stages, await server.servers(), report)
    await check_models(stages, server, report, aliases)


async def _streams(app: App, settings: Settings, report: Report) -> None:
    from mqinfer import wiring
    from mqinfer.adapters.scan import Scanner
    from mqinfer.operate.check import check_streams
    from mqinfer.operate.unclaimed import check_unclaimed
    from mqinfer.operate.waiting import check_waiting

    async with wiring.jetstream(app, settings, "check") as broker:
        streams = Scanner(broker.client)
        await check_streams(app, streams, report)
        await check_waiting(app, streams, report)
        await check_unclaimed(app, streams, report)
