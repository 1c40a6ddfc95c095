"""Pipeline: how far every stage is, why one does not move, who works, and with which models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mqinfer.console import watching
from mqinfer.console.page import Filters, Form, Page, of_form
from mqinfer.console.pages.beside import beside, end_canary, end_shadow, promote_canary
from mqinfer.console.rendering import rate
from mqinfer.errors import MqinferError
from mqinfer.inference.aliases import followed
from mqinfer.operate.graph import Graph, Node, graph_of
from mqinfer.operate.layout import Layout, layout
from mqinfer.operate.models import require_served, rows, uses
from mqinfer.operate.status import AppStatus, TaskStatus, gather, rates, warnings
from mqinfer.replay.adopting import adopt_moved
from mqinfer.times import span
from mqinfer.worker import presence

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.console.site import Site
    from mqinfer.ports import ModelVersion
    from mqinfer.worker.presence import Present

_FRESH: Final = 15.0  # seconds after which an earlier look says nothing of the rate now
_MODELS: Final = 10.0  # seconds between looks at Triton
_CHAR: Final = 7.4  # pixels of a letter, about

Mood = Literal["good", "warn", "bad", "calm"]


@dataclass(frozen=True, slots=True)
class Told:
    """How a stage is, in words.

    Attributes:
        mood: whether somebody should look.
        word: how it is.
        why: why it does not move, or "".
    """

    mood: Mood
    word: str
    why: str = ""


async def look(site: Site, filters: Filters) -> dict[str, Any]:
    """All of it."""
    del filters
    status, (workers, now) = await asyncio.gather(
        gather(site.app, site.streams), presence.seen(site.app, site.streams)
    )
    last = site.memory.get("status")
    before = last if isinstance(last, AppStatus) and status.at - last.at <= _FRESH else None
    site.memory["status"] = status
    status = rates(status, before)
    told = {task.name: how(task, workers, now) for task in status.tasks}
    graph = graph_of(site.app)
    lines = {task.name: _line(task) for task in status.tasks}
    return {
        "status": status,
        "lag": sum(task.lag for task in status.tasks),
        "in_flight": sum(task.in_flight for task in status.tasks),
        "told": told,
        "warnings": warnings(status),
        "workers": workers,
        "lost": [one for one in workers if one.lost(now)],
        "now": now,
        "graph": graph,
        "laid": _laid(graph, lines) if graph.nodes else None,
        "lines": lines,
        "classes": _classes(graph, told),
        "names": {node.id: node.name for node in graph.nodes},
        "models": await _models(site),
    }


def how(task: TaskStatus, workers: Sequence[Present], now: float) -> Told:
    """How a stage is, and why it does not move.

    Args:
        task: as it was seen.
        workers: that are there, and that are lost.
        now: seconds since the epoch, by the server's clock.
    """
    there = [one for one in workers if task.name in one.stages and not one.lost(now)]
    lost = [one for one in workers if task.name in one.stages and one.lost(now)]
    if not task.exists:
        return Told("calm", "not begun", "" if there else "no worker has run it yet")
    if task.rate:
        return Told("good", "moves")
    if not task.lag:
        return Told("calm", "idle")
    reasons = [line for one in there for line in one.reasons if _about(line, task.name)]
    if reasons:
        return Told("bad", "stands", "; ".join(dict.fromkeys(reasons)))
    if not there:
        if lost:
            since = span(now - max(one.at for one in lost))
            return Told("bad", "stands", f"its worker was lost {since} ago")
        if not task.pulling and not task.in_flight:
            return Told("bad", "stands", "no worker runs it")
    if task.in_flight:
        count = f"{task.in_flight:,} in flight"
        again = f", {task.redelivered:,} of them not for the first time" * bool(task.redelivered)
        return Told("warn" if task.rate == 0 else "good", "works", f"{count}{again}")
    return Told("warn", "waits", "a worker is there, and takes none at the moment")


def _about(line: str, name: str) -> bool:
    """Whether a reason not to pull is about a stage, or about all of the worker."""
    return line.startswith(f"stage {name}: ") or not line.startswith("stage ")


# --- the drawing --------------------------------------------------------------------------------


def _line(task: TaskStatus) -> str:
    """What stands below the name of a stage or table."""
    if not task.exists:
        return "not begun"
    dead = f" · {task.dead:,} dead" if task.dead else ""
    return f"{task.lag:,} to do · {rate(task.rate)}/s{dead}"


def task_of(node: Node) -> str:
    """The stage or sink that a node of the graph stands for."""
    return f"sink-{node.name}" if node.kind == "table" else node.name


def _laid(graph: Graph, lines: Mapping[str, str]) -> Layout:
    def size(node: Node) -> tuple[float, float]:
        if node.kind not in ("stage", "table"):
            return max(48.0, _CHAR * len(node.name) + 24), 32.0
        # Not the line's own length, or the drawing would move with every digit.
        told = len(lines.get(task_of(node), "")) // 4 * 4 + 4
        return max(150.0, _CHAR * len(node.name) + 24, 6.2 * told + 20), 48.0

    return layout(graph, size)


def _classes(graph: Graph, told: Mapping[str, Told]) -> dict[str, str]:
    """How each node is drawn."""
    moods = {"bad": " stuck", "warn": " waits"}
    found = {}
    for node in graph.nodes:
        one = told.get(task_of(node)) if node.kind in ("stage", "table") else None
        found[node.id] = node.kind + (moods.get(one.mood, "") if one else "")
    return found


# --- models -------------------------------------------------------------------------------------


async def _models(site: Site) -> dict[str, Any] | None:
    """What is used and served; None where the app uses none."""
    if not site.app.models:
        return None
    served = await site.looks.of(("served",), lambda: _served(site), _MODELS).now()
    problems = [] if served.problem is None else [f"Triton: {served.problem}"]
    named = None
    try:
        named = await site.aliases.all()
    except MqinferError as error:
        problems.append(f"the aliases: {error}")
    pairs = set(followed(site.app))
    return {
        "uses": uses(site.app, named),
        "served": served.state.get("served"),
        "loose": [alias for key, alias in (named or {}).items() if key not in pairs],
        "problems": problems,
        "beside": await beside(site, named),
    }


async def _served(site: Site) -> dict[str, Any]:
    found: dict[str, list[ModelVersion]] = {}
    for one in await site.triton.versions():
        found.setdefault(one.model, []).append(one)
    return {"served": found}


async def set_alias(site: Site, request: Request, form: Form) -> Response:
    """Let an alias name another version."""
    model, alias, version = (of_form(form, name).strip() for name in ("model", "alias", "version"))
    site.aliases.require(model, alias)
    if version:
        require_served(model, version, await site.triton.versions(), "of `mqinfer models` sets it")
        before = await site.aliases.set(model, alias, version)
    else:
        before = await site.aliases.unset(model, alias)
    if version:
        db = site.database if site.app.rows else None
        await adopt_moved(site.app, site.runs, db, model, version)
        watching.changed(site)
    was = before.version if before else "not set"
    text = f"{model}@{alias}: {was} → {version or 'not set'}; workers follow within two seconds"
    return site.said(request, text)


async def count_rows(site: Site, request: Request) -> Response:
    """How many rows of each table came from which version: a question that takes its time."""
    return site.render(request, "pipeline_rows.html", rows=await rows(site.app, site.database))


PAGE: Final = Page(
    name="pipeline",
    title="Pipeline",
    look=look,
    parts={"rows": count_rows},
    actions={
        "alias": set_alias,
        "shadow": end_shadow,
        "canary": end_canary,
        "promote": promote_canary,
    },
)
