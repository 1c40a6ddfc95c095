"""Watching: what the Labels page knows of an app's models, each of it asked once for all viewers.

Verdicts follow from closed steps of ten seconds, so that they are asked for every ten seconds. What
was counted is asked for as a whole now and then, and the rows since are counted every time: a row
shows at once, and a look reads only what is new. Nobody waits for what is renewed: what was known
a moment ago is shown until it is there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.monitor.happened import Happening
from mqinfer.monitor.looking import Monitor, Standing
from mqinfer.monitor.reference import STEP
from mqinfer.monitor.timeline import Mark, Shares, Tallies, Timeline, added, deployments
from mqinfer.monitor.watched import watched
from mqinfer.worker import presence

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.console.site import Site
    from mqinfer.message import Row
    from mqinfer.monitor.episode import Episode
    from mqinfer.monitor.watched import Field
    from mqinfer.worker.presence import Present

WINDOWS: Final = {
    "1h": 3600.0,
    "24h": 86_400.0,
    "7d": 7 * 86_400.0,
    "30d": 30 * 86_400.0,
    "all": 400 * 86_400.0,
}
_VERDICTS: Final = 10.0  # seconds between looks
_WHOLE: Final = 20.0
_STALE: Final = 60.0  # seconds that something may be old while a newer one is made
_NEWEST: Final = 30  # seconds behind which a step is counted as a whole
_EPOCH: Final = "labels: epoch"
_MONITOR: Final = "labels: monitor"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is watched.

    Attributes:
        row: the row type of its table.
        field: itself.
        model: whose answers are meant, where several models answer in it; "": all of them.
    """

    row: type[Row]
    field: Field
    model: str = ""

    def has(self, table: str, column: str, model: str) -> bool:
        """Whether a series, or an episode of one, is of this column."""
        ours = (table, column) == (self.table, self.field.column)
        return ours and self.model in ("", model)

    @property
    def whose(self) -> str:
        """The model whose answers these are; "" where that is none, or several."""
        return self.model or self.field.model

    @property
    def table(self) -> str:
        """Its table's name."""
        return str(self.row.__mqinfer__.table)

    @property
    def name(self) -> str:
        """As the page calls it."""
        return f"{self.table}.{self.field.column}"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How everything stands.

    Attributes:
        at: seconds since the epoch.
        standing: of every series.
        history: episodes that ended with their reference, the newest first.
    """

    at: float
    standing: tuple[Standing, ...]
    history: tuple[Episode, ...]


def columns(site: Site) -> tuple[list[Column], list[str]]:
    """What is watched, and what is wrong with the marks."""
    found, problems = watched(site.app)
    return [Column(one.row, field) for one in found for field in one.fields], [
        str(problem) for problem in problems
    ]


def unwatched(site: Site) -> list[str]:
    """Tables of the app of which nothing is."""
    ours = {one.row for one in watched(site.app)[0]}
    return [table for table, row in site.app.rows.items() if row not in ours]


def column(site: Site, name: str, model: str = "") -> Column:
    """A column by its name, and the model whose answers are meant where there are several.

    Raises:
        ConfigurationError: none is called so, or the model does not answer there; says which do.
    """
    every, _ = columns(site)
    for one in every:
        if one.name == name:
            models = sorted({asked for _, asked in one.field.by_stage})
            if model and models and model not in models:
                raise ConfigurationError(
                    f"no model {model[:60]!r} answers in {name}; these do: {', '.join(models)}"
                )
            return replace(one, model=model) if models else one
    known = ", ".join(one.name for one in every) or "none"
    raise ConfigurationError(f"no column {name[:80]!r} is watched; these are: {known}")


async def monitor(site: Site) -> Monitor:
    """The monitor, with the tables that it needs; one for all looks: it knows where to go on.

    Raises:
        ConfigurationError: no field of the app is marked, or one is marked wrongly.
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer.
    """
    found = site.memory.get(_MONITOR)
    if not isinstance(found, Monitor):
        found = Monitor(site.app, site.database)
        await found.ensure()
        site.memory[_MONITOR] = found
    return found


def changed(site: Site) -> None:
    """Somebody said something of an alarm: what is known of verdicts is old."""
    site.memory[_EPOCH] = _epoch(site) + 1


def _epoch(site: Site) -> int:
    found = site.memory.get(_EPOCH, 0)
    assert isinstance(found, int)
    return found


async def verdicts(site: Site) -> Verdicts:
    """How everything stands: of the last day, whatever is drawn."""
    found: Verdicts = await _shared(
        site, ("verdicts", _epoch(site)), partial(_verdicts, site), _VERDICTS
    )
    return found


async def _verdicts(site: Site) -> Mapping[str, Any]:
    now = time.time()
    looking = await monitor(site)
    standing = await looking.look(now, await _happenings(site))
    history = await looking.history()
    return {"found": Verdicts(now, tuple(standing), tuple(reversed(history)))}


async def _happenings(site: Site) -> list[Happening]:
    """Aliases that moved, and workers that were all started anew; what cannot be asked is none."""
    found = []
    with contextlib.suppress(MqinferError):
        for alias in (await site.aliases.all()).values():
            text = f"{alias.model}@{alias.alias} was set to {alias.version}"
            found.append(Happening(alias.set.timestamp(), text, alias.model))
    with contextlib.suppress(MqinferError):
        workers, now = await presence.seen(site.app, site.streams)
        there = [one for one in workers if not one.run and not one.lost(now)]
        found += deployed(site.app, there)
    return found


def deployed(app: App, workers: Sequence[Present]) -> list[Happening]:
    """When the workers that write the rows of a table were started, the first of them.

    As long as an older one works, none of them was a deployment: somebody joined.
    """
    found = []
    for table, row in app.rows.items():
        stages = {stage.name for stage in app.stages.values() if row in stage.writes}
        started = [one.started for one in workers if stages & {*one.stages}]
        if started:
            text = f"all workers of {table} were started, a deployment"
            found.append(Happening(min(started), text, table=table))
    return found


async def tallies(site: Site, chosen: Column, window: str) -> Tallies:
    """What was counted of a column in a window, up to now."""
    make = partial(_whole, site, chosen, WINDOWS[window])
    until, whole = await _shared(site, ("tallies", chosen.name, chosen.model, window), make, _WHOLE)
    return added(whole, await _timeline(site, chosen).newest(until))


async def _whole(site: Site, chosen: Column, window: float) -> Mapping[str, Any]:
    now = time.time()
    until = int(now - _NEWEST) // STEP * STEP
    return {"found": (until, await _timeline(site, chosen).tallies(now - window, until))}


async def shares(site: Site, chosen: Column, window: str, keys: Sequence[str]) -> Shares:
    """How often keys were said over time."""
    make = partial(_shares, site, chosen, WINDOWS[window], keys)
    key = ("shares", chosen.name, chosen.model, window, *keys)
    found: Shares = await _shared(site, key, make, _VERDICTS)
    return found


async def _shares(
    site: Site, chosen: Column, window: float, keys: Sequence[str]
) -> Mapping[str, Any]:
    now = time.time()
    since = now - window
    if window == WINDOWS["all"]:
        first = await _timeline(site, chosen).first()
        since = max(since, now - 60 if first is None else first)
    return {"found": await _timeline(site, chosen).shares(since, now, keys)}


async def marks(
    site: Site, chosen: Column, shown: Shares, standing: Sequence[Standing]
) -> list[Mark]:
    """What happened to a column's model: versions that began, aliases, references, alarms."""
    found = deployments(shown.began, chosen.whose)
    for one in standing:
        if not chosen.has(one.series.table, one.series.column, one.series.model):
            continue
        if one.reference is not None:
            of = f" of {one.series.version}" if one.series.version else ""
            found.append(Mark(one.reference.made, f"reference{of}"))
        found += [Mark(float(episode.alarmed), "alarm") for episode in one.episodes]
    try:
        aliases = await site.aliases.all()
    except MqinferError:
        aliases = {}  # the chart is worth having without them
    for alias in aliases.values():
        if alias.model == chosen.whose:
            found.append(Mark(alias.set.timestamp(), f"{alias.alias} → {alias.version}"))
    return sorted(found, key=lambda mark: mark.at)


def _timeline(site: Site, chosen: Column) -> Timeline:
    return Timeline(site.database, chosen.row, chosen.field, chosen.model)


async def _shared(site: Site, key: tuple[Any, ...], make: Any, every: float) -> Any:
    """What a look found.

    Raises:
        MqinferError: why it found nothing.
    """
    seen = await site.looks.of(key, make, every).soon(_STALE)
    return seen.found()["found"]
