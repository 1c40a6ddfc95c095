"""`mqinfer rename`: a stage that was renamed goes on where it was."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.rename import Renamed
    from mqinfer.settings import Settings


def rename(
    app: options.AppName,
    old: Annotated[str, typer.Argument(metavar="OLD", help="What the stage was called.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is called now.")],
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Let a stage that was renamed go on where it was.

    A stage's consumer has its name: under a new one it would begin anew. Stop the workers of the
    stage, rename it in the code, and call this before they start again. Nothing is lost; what the
    old consumer had acknowledged out of order may be handled a second time.

    \b
      mqinfer rename plants:app grade grade_leaf
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    done = interrupt.run(_rename(loaded, settings, old, new))
    if as_json:
        print_json(asdict(done))
        return
    print(f"{new} goes on where {old} was: {done.waiting:,} messages to do")
    if done.again:
        print(
            f"! {done.again:,} of them were handled by {old}, out of order, and will be again: "
            "their outputs are new ones"
        )


async def _rename(app: App, settings: Settings, old: str, new: str) -> Renamed:
    from mqinfer import wiring
    from mqinfer.operate import rename as operation

    async with wiring.jetstream(app, settings, "rename") as broker:
        return await operation.rename(app, old, new, broker)
