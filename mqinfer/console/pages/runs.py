"""Runs: replays that were made, what they would change, and what is done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mqinfer.console.page import Filters, Form, Page, of_form
from mqinfer.console.pages.comparing import KEY, cell, comparison
from mqinfer.errors import ConfigurationError
from mqinfer.replay import consumers, coverage
from mqinfer.replay.promote import Promotions, late, remembered
from mqinfer.replay.run import DISCARD, PROMOTE, UNDO, Run, State, may

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.app import App
    from mqinfer.console.deeds import Told
    from mqinfer.console.site import Site

_MOODS: Final = {
    State.RUNNING: "warn",
    State.STOPPED: "calm",
    State.DONE: "calm",
    State.PROMOTED: "good",
    State.DISCARDING: "warn",
    State.DISCARDED: "calm",
}
_SOON: Final = 1.5  # seconds that an answer waits for what it began
_DEED: Final = "run"


async def look(site: Site, filters: Filters) -> Mapping[str, Any]:
    """All runs, and one of them."""
    found = await site.runs.all()
    found.reverse()
    settled = {run.name: await _settled(site, run) for run in found}
    context: dict[str, Any] = {
        "runs": found,
        "settled": settled,
        "mood": _MOODS,
        "deeds": {run.name: site.deeds.of((_DEED, run.name)) for run in found},
        "filters": filters,
        "chosen": None,
        "key": KEY,
    }
    name = filters.get("run", found[0].name if len(found) == 1 else "")
    if not name:
        return context
    run = next((one for one in found if one.name == name), None)
    if run is None:
        raise ConfigurationError(f"app {site.app.name} has no run {name[:60]!r}")
    tables, problem = _tables(site.app, run)
    return context | {
        "chosen": run,
        "tables": tables,
        "problem": problem,
        "may": {
            "promote": bool(tables) and (may(run, PROMOTE) or _half(run, State.PROMOTED)),
            "undo": bool(tables) and (may(run, UNDO) or _half(run, State.DONE)),
            "discard": may(run, DISCARD) and run.applied,
        },
        "other": filters.get("with", "live"),
        "others": [
            one.name
            for one in found
            if one is not run and one.state not in (State.DISCARDING, State.DISCARDED)
        ],
        # What is compared changes with it, so that it is compared anew.
        "edition": f"{run.state}-{run.order}-{run.retries}-{run.applied}",
        "cell": {name: filters[name] for name in ("table", "column", "old", "new")}
        if {"table", "column", "old", "new"} <= filters.keys()
        else None,
    }


def _half(run: Run, state: State) -> bool:
    """Whether a command that made it so was killed half way, and can be done again."""
    return run.state is state and not run.applied


def _tables(app: App, run: Run) -> tuple[list[str], str | None]:
    """The tables that a run writes to; and why it cannot be told."""
    try:
        return list(coverage.row_types(app, run)), None
    except ConfigurationError as error:  # the app has lost the stage since
        return [], str(error)


async def _settled(site: Site, run: Run) -> int | None:
    """Messages that are settled; None where that is over and known."""
    if run.state not in (State.RUNNING, State.STOPPED):
        return None
    try:
        return await consumers.progress(site.app, run, site.broker, site.runs)
    except ConfigurationError:
        return None


# --- what can be done ---------------------------------------------------------------------------


async def promote(site: Site, request: Request, form: Form) -> Response:
    """Show a run's rows instead of those they supersede."""

    async def work(name: str) -> Told:
        promoted = await Promotions(site.app, site.runs, site.database).promote(name)
        warning = await late(site.app, promoted, site.broker)
        note = remembered(site.app, promoted)
        return f"Run {name} is promoted.", tuple(text for text in (warning, note) if text)

    return await _begin(site, request, form, "promoting", work)


async def undo(site: Site, request: Request, form: Form) -> Response:
    """Show again what was shown before."""

    async def work(name: str) -> Told:
        run = await Promotions(site.app, site.runs, site.database).undo(name)
        return f"Run {name} is {run.state} again; what was shown before is shown.", ()

    return await _begin(site, request, form, "undoing the promotion of", work)


async def discard(site: Site, request: Request, form: Form) -> Response:
    """Delete what a run has left."""

    async def work(name: str) -> Told:
        db = site.database if site.app.rows else None
        await Promotions(site.app, site.runs, db).discard(name)
        return f"Run {name} is discarded: its rows, messages and consumers are deleted.", ()

    return await _begin(site, request, form, "discarding", work)


async def _begin(site: Site, request: Request, form: Form, doing: str, work: Any) -> Response:
    name = of_form(form, "run")
    await site.runs.get(name)  # or it says which there are
    deed = site.deeds.begin((_DEED, name), f"{doing} run {name}", lambda: work(name))
    try:
        await asyncio.wait_for(deed.over.wait(), _SOON)
    except TimeoutError:
        return site.said(request, f"Now {deed.what}; the page shows when it is done.")
    return site.said(request, deed.said, bad=deed.bad, more=deed.more)


PAGE: Final = Page(
    name="runs",
    title="Runs",
    look=look,
    filters=("run", "with", "table", "column", "old", "new"),
    every=2.0,
    parts={"comparison": comparison, "cell": cell},
    actions={"promote": promote, "undo": undo, "discard": discard},
)
