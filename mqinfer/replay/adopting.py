"""Adopting: a version that an alias begins to name has the reference that its replay made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from mqinfer.errors import MqinferError
from mqinfer.monitor.looking import adopt
from mqinfer.monitor.watched import watched
from mqinfer.replay.run import State

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Database
    from mqinfer.replay.runs import Runs

log = structlog.get_logger("mqinfer.monitor")


async def adopt_moved(app: App, store: Runs, db: Database | None, model: str, version: str) -> None:
    """Make what the newest run of a version said the reference of its series that have none.

    A shadow counts while it goes on, too. For whoever moves an alias, or lets a canary in: it is no
    error if there is no such run, or if it fails.

    Args:
        app: the app.
        store: its runs.
        db: its tables; None where it has none.
        model: whose alias was moved.
        version: that it names now.
    """
    if db is None or not watched(app)[0]:
        return
    try:
        ended = (State.DONE, State.PROMOTED)
        runs = [run for run in await store.all() if run.state in ended or run.open]
    except MqinferError as error:
        log.warning("no run was adopted as reference", model=model, reason=str(error))
        return
    now = time.time()
    # The newest first: what it made a reference of is left as it is.
    for run in sorted(runs, key=lambda run: run.created, reverse=True):
        await adopt(app, db, run.name, now, of=(model, version))
