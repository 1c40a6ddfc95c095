"""Tracking: comparisons that are logged to MLflow as well, where MLFLOW_TRACKING_URI is set.

What came of it is a line of stderr. It changes nothing of what a command does, nor its exit code.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.run import Run
    from mqinfer.replay.tracked import Record
    from mqinfer.settings import Settings

_SECONDS: Final = 30.0  # that a comparison may take which nobody has asked for but the tracker
_EXAMPLES: Final = 10


def keep(app: App, run: Run, facts: dict[str, Any], page: str | None) -> None:
    """Keep a comparison, if there is a tracker.

    Args:
        app: the app.
        run: the new side.
        facts: the comparison.
        page: the same as HTML; None: it is made, without pictures.
    """
    from mqinfer import wiring

    if wiring.tracker() is None:
        return
    from mqinfer.replay import comparepage
    from mqinfer.replay.tracked import record

    _keep(record(app, run, facts, page or comparepage.page(facts, {})))


def _keep(record: Record) -> None:
    from mqinfer import wiring

    if (tracker := wiring.tracker()) is not None:
        print(tracker.keep(record), file=sys.stderr)


async def shadow(app: App, settings: Settings, facts: dict[str, Any]) -> None:
    """Compare and keep what a shadow said, when it ends, or its version gets live traffic.

    Args:
        app: the app.
        settings: of the servers.
        facts: of the shadow that ends, or of the alias whose version is another now.
    """
    from mqinfer import wiring
    from mqinfer.replay.compare import compare

    if wiring.tracker() is None:
        return
    try:
        async with asyncio.timeout(_SECONDS), AsyncExitStack() as stack:
            broker = await stack.enter_async_context(wiring.jetstream(app, settings, "models"))
            db = wiring.clickhouse(settings)
            stack.push_async_callback(db.close)
            run = _of(await wiring.runs(app, broker).all(), facts)
            if run is None:
                return
            found = await compare(app, run, None, db, examples=_EXAMPLES)
    except (MqinferError, TimeoutError) as error:
        why = str(error) or f"it took more than {_SECONDS:g} s"
        print(f"not logged to MLflow: what the shadow said is not known: {why}", file=sys.stderr)
        return
    await asyncio.to_thread(keep, app, run, found, None)


def _of(runs: list[Run], facts: dict[str, Any]) -> Run | None:
    """The shadow that ends, or the newest one of the version that gets traffic."""
    shadows = [one for one in runs if one.beside is not None and one.state != "discarded"]
    if "run" in facts:
        return next((one for one in shadows if one.name == facts["run"]), None)
    version = facts["canary"]["version"] if facts["canary"] else facts["version"]
    own = [one for one in shadows if one.models.get(facts["model"]) == version]
    return max(own, key=lambda one: one.created, default=None)
