"""`mqinfer timers`: what is to come."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.timers import Waiting
    from mqinfer.settings import Settings


def timers(
    app: options.AppName,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Only those that this stage set.")
    ] = None,
    cancel: Annotated[
        list[str] | None,
        typer.Option(metavar="TIMER", help="Cancel one (as listed); may be given several times."),
    ] = None,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""List the timers that wait, the next first; or cancel some.

    Of a schedule that is its next tick. A tick that is cancelled is left out; the next one comes.

    \b
      mqinfer timers plants:app
      mqinfer timers plants:app --stage watch --json
      mqinfer timers plants:app --cancel watch/3f0c...
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    if cancel:
        interrupt.run(_cancel(loaded, settings, cancel))
    found = interrupt.run(_waiting(loaded, settings, stage))
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        print("no timer waits")
        return
    rows = [
        (
            one.due.isoformat(timespec="seconds").replace("+00:00", "Z"),
            one.stage or "(a client)",
            one.name or "",
            one.key or "",
            one.subject,
            one.timer,
        )
        for one in found
    ]
    print_table(("due", "set by", "name", "key", "comes on", "timer"), rows)


async def _waiting(app: App, settings: Settings, stage: str | None) -> list[Waiting]:
    from mqinfer import wiring
    from mqinfer.adapters.scan import Scanner
    from mqinfer.operate import timers as operation

    async with wiring.jetstream(app, settings, "timers") as broker:
        return await operation.waiting(app, Scanner(broker.client), stage)


async def _cancel(app: App, settings: Settings, wanted: list[str]) -> None:
    from mqinfer import wiring
    from mqinfer.operate import timers as operation

    async with wiring.jetstream(app, settings, "timers") as broker:
        for one in wanted:
            await operation.cancel_timer(app, wiring.timetable(app, broker), one)
