"""`mqinfer begin`: where a stage begins that has no consumer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.begin import Begun
    from mqinfer.settings import Settings


def begin(
    app: options.AppName,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage, or sink-<table>.")],
    where: Annotated[
        str,
        typer.Argument(metavar="WHERE", help="oldest, new, a time, or how long ago, such as 2h."),
    ],
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Say where a stage begins that has no consumer yet, or no more.

    A worker asks where a stage begins that is new in an app which ran before, if the stream holds
    messages that it would handle. The answer is in the code, `@app.stage(start="new")`, or this,
    which makes the consumer there. It counts once: later workers go on where the stage is.

    \b
      mqinfer begin plants:app mail new              with what is published from now on
      mqinfer begin plants:app sink-grade oldest     with all that the stream keeps
      mqinfer begin plants:app mail 2h
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    done = interrupt.run(_begin(loaded, settings, stage, where))
    if as_json:
        print_json(asdict(done))
    else:
        print(f"{stage} begins with {done.waiting:,} messages to do")


async def _begin(app: App, settings: Settings, stage: str, where: str) -> Begun:
    from mqinfer import wiring
    from mqinfer.operate import begin as operation

    async with wiring.jetstream(app, settings, "begin") as broker:
        return await operation.begin(app, stage, where, broker)
