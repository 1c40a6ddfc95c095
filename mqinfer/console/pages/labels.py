"""Labels: whether models are what they were, what they say how often, and since when."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mqinfer.console import watching
from mqinfer.console.page import Filters, Form, Page, of_form, one_of
from mqinfer.console.pages.examples import examples, picture_of
from mqinfer.errors import ConfigurationError
from mqinfer.monitor.bins import MISSING, range_of
from mqinfer.monitor.lines import Line, lines, spoken
from mqinfer.monitor.timeline import of_version
from mqinfer.monitor.verdict import Word, verdict

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.app import App
    from mqinfer.console.site import Site
    from mqinfer.console.watching import Column, Verdicts
    from mqinfer.monitor.episode import Episode
    from mqinfer.monitor.looking import Standing
    from mqinfer.monitor.timeline import Tallies

WINDOW: Final = "24h"
KEY: Final = "="  # before a key in an address, so that a label of "" is none that is missing
_SHOWN: Final = 40  # labels, unless all are asked for
_DRAWN: Final = 4  # over time
_BESIDE: Final = 3  # other versions
_MUTES: Final = {"1h": 3600.0, "8h": 8 * 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0}
_MOODS: Final = {Word.CHANGED: "bad", Word.STEADY: "good", Word.FEW: "calm", Word.NONE: "calm"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A line as the page draws it.

    Attributes:
        line: itself.
        name: of the key, for a person.
        address: of the key.
        beside: share of it in each of the other versions.
        evidence: that its share changed, or that of its group, as a part of what is an alarm.
        alarm: whether one lasts that is about it, or its group.
    """

    line: Line
    name: str
    address: str
    beside: tuple[float | None, ...]
    evidence: float | None
    alarm: bool


def name_of(key: str, what: str) -> str:
    """A key for a person."""
    if what == "label" or key == MISSING:
        return key or "(empty)"
    return range_of(key) or "(empty)"


async def look(site: Site, filters: Filters) -> Mapping[str, Any]:
    """All that the page shows."""
    every, problems = watching.columns(site)
    window = one_of(filters, "window", watching.WINDOWS) or WINDOW
    context: dict[str, Any] = {
        "problems": problems,
        "unwatched": watching.unwatched(site),
        "window": window,
        "windows": list(watching.WINDOWS),
        "mutes": list(_MUTES),
        "filters": filters,
        "chosen": None,
        "mood": _MOODS,
    }
    if not every:
        return context
    known = await watching.verdicts(site)
    chosen, standing = _choice(site, filters, every, known)
    context |= {
        "standing": _ordered(known),
        "alarms": [
            (one, episode) for one in known.standing for episode in one.episodes if episode.lasts
        ],
        "now": known.at,
        "ended": _ended(known, chosen),
        "chosen": chosen,
        "one": standing,
    }
    context |= await _chosen(site, chosen, standing, known, filters)
    return context


def _ordered(known: Verdicts) -> list[Standing]:
    """Alarms first; then what is compared; of these, labels first."""
    kinds = ["label", "confidence", "input"]

    def rank(one: Standing) -> tuple[Any, ...]:
        kind = kinds.index(one.what) if one.what in kinds else len(kinds)
        return (not one.alarms(known.at), one.reference is None, kind, str(one.series))

    return sorted(known.standing, key=rank)


def _choice(
    site: Site, filters: Filters, every: Sequence[Column], known: Verdicts
) -> tuple[Column, Standing | None]:
    """The column that is shown, and how its version stands."""
    ordered = _ordered(known)
    if name := filters.get("series"):
        chosen = watching.column(site, name, filters.get("model", ""))
    else:
        names = [f"{one.series.table}.{one.series.column}" for one in ordered]
        chosen = watching.column(site, next(iter(names), every[0].name))
    ours = [
        one for one in ordered if chosen.has(one.series.table, one.series.column, one.series.model)
    ]
    if version := filters.get("version"):
        ours = [one for one in ours if one.series.version == version]
    else:  # that of the most rows, alarms before all
        ours.sort(key=lambda one: (not one.alarms(known.at), -one.verdict.rows))
    standing = next(iter(ours), None)
    if chosen.field.by_stage and standing is not None:  # one model at a time
        chosen = replace(chosen, model=standing.series.model)
    return chosen, standing


async def _chosen(
    site: Site, chosen: Column, standing: Standing | None, known: Verdicts, filters: Filters
) -> dict[str, Any]:
    """What is shown of one column."""
    what = chosen.field.what
    window = filters.get("window", WINDOW)
    tallies = await watching.tallies(site, chosen, window)
    version = filters.get("version") or (standing.series.version if standing else None)
    reference = standing.reference.reference if standing and standing.reference else None
    every = lines(of_version(tallies, version), reference)
    counts = {line.key: line.rows for line in every if line.rows}
    lasting = standing is not None and any(one.lasts for one in standing.episodes)
    told = verdict(counts, reference, alarm=lasting)
    key = filters.get("key", "").removeprefix(KEY) if "key" in filters else None
    drawn = [key] if key is not None else spoken(every, _DRAWN)
    over = await watching.shares(site, chosen, window, drawn)
    marks = await watching.marks(site, chosen, over, known.standing)
    first = over.times[0] if over.times else 0
    listed = every if filters.get("top") == "all" else every[:_SHOWN]
    others = _others(tallies, version)
    numbers = any(one is not None for values in over.means.values() for one in values)
    return {
        "what": what,
        "told": told,
        "version": version,
        "others": others,
        "key": key,
        "key_name": None if key is None else name_of(key, what),
        "rows": sum(line.rows for line in every),
        "lines": [_shown(line, what, tallies, others, standing) for line in listed],
        "more": len(every) - len(listed),
        "scale": max((max(line.high, line.before or 0.0) for line in listed), default=1.0) or 1.0,
        "x": list(over.times),
        "shares": [{"name": name_of(one, what), "y": list(over.keys[one])} for one in drawn],
        "means": [{"name": name_of(one, what), "y": list(over.means[one])} for one in drawn]
        if numbers and what == "label"
        else [],
        "marks": [{"x": mark.at, "text": mark.text} for mark in marks if mark.at >= first],
        "has_mean": what == "label" and any(line.mean is not None for line in listed),
    }


def _others(tallies: Tallies, version: str | None) -> list[str]:
    """Other versions, the one with the most rows first."""
    rows = {
        one: sum(tally.rows for tally in keys.values())
        for one, keys in tallies.items()
        if one != version
    }
    return sorted(rows, key=lambda one: -rows[one])[:_BESIDE]


def _shown(
    line: Line,
    what: str,
    tallies: Tallies,
    others: Sequence[str],
    standing: Standing | None,
) -> Shown:
    beside = []
    for other in others:
        rows = sum(tally.rows for tally in tallies[other].values())
        tally = tallies[other].get(line.key)
        beside.append((tally.rows if tally else 0) / rows if rows else None)
    key = line.group or line.key
    lasting = {one.key for one in standing.episodes if one.lasts} if standing else set()
    return Shown(
        line,
        name_of(line.key, what),
        KEY + line.key,
        tuple(beside),
        standing.by_key.get(key) if standing else None,
        key in lasting,
    )


def _ended(known: Verdicts, chosen: Column) -> list[Episode]:
    """Episodes of a column that are over, the newest first."""
    now = [episode for one in known.standing for episode in one.episodes if not episode.lasts]
    return [
        one
        for one in sorted([*now, *known.history], key=lambda one: -one.alarmed)
        if chosen.has(one.table, one.column, one.model)
    ][:20]


# --- what can be done ---------------------------------------------------------------------------


async def acknowledge(site: Site, request: Request, form: Form) -> Response:
    """Somebody looks at an alarm."""
    return await _say(site, request, form, "acknowledge", 0.0)


async def mute(site: Site, request: Request, form: Form) -> Response:
    """An alarm is silent for a time."""
    lasts = of_form(form, "lasts")
    if lasts not in _MUTES:
        raise ConfigurationError(f"a mute lasts one of {', '.join(_MUTES)}")
    return await _say(site, request, form, "mute", _MUTES[lasts])


async def _say(site: Site, request: Request, form: Form, word: str, seconds: float) -> Response:
    monitor = await watching.monitor(site)
    note = of_form(form, "note")[:500]
    said = await monitor.say(of_form(form, "episode"), word, time.time(), seconds, note)
    watching.changed(site)
    return site.said(request, f"The alarm of {said.table}.{said.column} is {said.state}.")


async def accept(site: Site, request: Request, form: Form) -> Response:
    """What is now becomes what later rows are held against."""
    window, series = of_form(form, "window"), of_form(form, "series")
    seconds = watching.WINDOWS.get(window)
    if seconds is None or not series:
        raise ConfigurationError("name a series, and a window to accept")
    monitor = await watching.monitor(site)
    now = time.time()
    made = await monitor.accept([series], now - seconds, now)
    watching.changed(site)
    more = []
    for accepted, alarms in made:
        told = "too short to be held against itself"
        if alarms is not None:
            told = f"would have alarmed {len(alarms):,} times in its own time"
        more.append(f"{accepted.series}: {accepted.reference.rows:,} rows; {told}")
    return site.said(request, "Accepted as reference.", more=tuple(more))


def _has_tables(app: App) -> bool:
    return bool(app.rows)


PAGE: Final = Page(
    name="labels",
    title="Labels",
    look=look,
    filters=("series", "model", "version", "window", "key", "top"),
    parts={"examples": examples, "picture": picture_of},
    actions={"acknowledge": acknowledge, "mute": mute, "accept": accept},
    shown=_has_tables,
)
