"""Changes: each difference between what was applied, what there is, and what is wanted. Pure.

A difference is told by its consequence, for that is what decides whether it may be applied now:
processes that only become more, processes that are replaced one by one, data that goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mqinfer.deploy.change import Change, Kind, arrow
from mqinfer.deploy.data import data_changes
from mqinfer.deploy.declaration import Declaration, StageFacts
from mqinfer.deploy.deployment import Deployment, Served, Workers
from mqinfer.deploy.shards import index_changes

if TYPE_CHECKING:
    from mqinfer.deploy.applied import Applied
    from mqinfer.deploy.live import Live

_SECONDS = ("timeout", "ack_wait", "batch_wait", "snooze_for")
_NOTES = {
    "attempts": "what failed as often already is a dead letter when it fails next",
    "ack_wait": "the first new worker changes the consumer",
}
_SCALES = ("least", "most", "target", "backlog", "cooldown")
_NOTHING = "one by one; nothing is lost"


def changes(
    before: Applied | None, after: Deployment, declared: Declaration, live: Live
) -> list[Change]:
    """Every difference, those that are refused first.

    Args:
        before: what was applied last; None if nothing was.
        after: what is wanted.
        declared: what the code declares now.
        live: what there is.
    """
    found = [*_processes(before, after, live), *_stages(before, after, declared)]
    found += data_changes(before.declaration if before else None, after, declared, live)
    found += index_changes(before, after, declared, live)
    return sorted(found, key=lambda one: one.kind is not Kind.REFUSED)


# --- processes ----------------------------------------------------------------------------------


def _processes(before: Applied | None, after: Deployment, live: Live) -> Iterator[Change]:
    then = before.deployment if before else Deployment(workers={})
    if before is not None:
        yield from _everywhere(then, after)
    for name, group in after.workers.items():
        where = f"workers.{name}"
        if name not in then.workers:
            what = f"{_count(group.least, group.most)} for {_names(group.stages)}"
            yield Change(Kind.BEGIN, where, "new", f"{what} begin")
            continue
        yield from _group(where, then.workers[name], group)
        yield from _missing(where, group, live)
    for name, group in then.workers.items():
        if name not in after.workers:
            runs = {stage for one in after.workers.values() for stage in one.stages}
            left = [stage for stage in group.stages if stage not in runs]
            whose = "other groups run its stages" if not left else f"{_names(left)} end"
            text = f"its processes finish what they have and end; {whose}"
            yield Change(Kind.REMOVE, where := f"workers.{name}", "removed", text)
            del where
    yield from _served("gateway", then.gateway, after.gateway)
    yield from _served("console", then.console, after.console)
    if then.triton != after.triton:
        yield _triton(then, after)


def _everywhere(then: Deployment, after: Deployment) -> Iterator[Change]:
    """What every process has."""
    if then.image != after.image:
        yield Change(
            Kind.RESTART,
            "image",
            arrow(then.image or None, after.image or None),
            f"every process is replaced, {_NOTHING}; both versions work side by side meanwhile",
        )
    for name in sorted({*then.settings, *after.settings}):
        old, new = then.settings.get(name), after.settings.get(name)
        if old != new:
            yield Change(Kind.RESTART, f"settings.{name}", arrow(old, new), f"{_all_restart(name)}")
    if set(then.secrets) != set(after.secrets):
        what = arrow(_names(then.secrets), _names(after.secrets))
        yield Change(Kind.RESTART, "secrets", what, f"every process is replaced, {_NOTHING}")
    if then.alerts != after.alerts:
        text = "the rules are made anew; Prometheus takes them up, no process restarts"
        yield Change(Kind.CHANGE, "alerts", "changed", text)
    if then.k8s != after.k8s:
        yield Change(
            Kind.CHANGE, "k8s", "changed", "its objects are applied anew; see the rendered files"
        )


def _all_restart(name: str) -> str:
    text = f"every process is replaced, {_NOTHING}"
    if name == "blobs":
        return f"{text}; blobs that are in the old store are not found in the new one: copy them"
    if name in ("nats_url", "nats_domain"):
        return f"{text}; what waits in the old server's streams stays there"
    if name == "clickhouse_url":
        return f"{text}; tables are made there, and rows that are stored stay where they are"
    return text


def _group(where: str, then: Workers, now: Workers) -> Iterator[Change]:
    if (then.least, then.most) != (now.least, now.most):
        what = f"processes {_range(then)} -> {_range(now)}"
        if now.least > then.most:
            text = f"{now.least - then.most} more begin; those that run go on"
        elif now.most < then.least:
            text = f"{then.least - now.most} finish what they have and end; the others go on"
        else:
            text = "as many as the backlog needs, within these; those that run go on"
        yield Change(Kind.SCALE, where, what, text)
    rules = [name for name in _SCALES[2:] if getattr(then, name) != getattr(now, name)]
    for name in rules:
        what = f"{name} {arrow(f'{getattr(then, name):g}', f'{getattr(now, name):g}')}"
        yield Change(Kind.SCALE, where, what, "from the next look on; those that run go on")
    if then.stages != now.stages:
        gone = [stage for stage in then.stages if stage not in now.stages]
        new = [stage for stage in now.stages if stage not in then.stages]
        what = " and ".join(
            text
            for text in (f"runs {_names(new)}" * bool(new), f"no {_names(gone)}" * bool(gone))
            if text
        )
        yield Change(
            Kind.RESTART, where, what or "stages", f"its processes are replaced, {_NOTHING}"
        )
    for name in ("max_messages", "max_memory", "cpu", "memory"):
        old, new_value = getattr(then, name), getattr(now, name)
        if old != new_value:
            what = f"{name} {arrow(old, new_value)}"
            yield Change(Kind.RESTART, where, what, f"its processes are replaced, {_NOTHING}")


def _missing(where: str, group: Workers, live: Live) -> Iterator[Change]:
    """What was applied, and does not run."""
    there = sum(set(one.stages) == set(group.stages) for one in live.workers)
    if there < group.least:
        what = f"{there} of {_count(group.least, group.most)} run"
        yield Change(Kind.BEGIN, where, what, f"{group.least - there} begin")


def _served(where: str, then: Served | None, now: Served | None) -> Iterator[Change]:
    if then == now:
        return
    work = "requests that were accepted go on, and are kept" if where == "gateway" else ""
    if now is None:
        text = "it finishes what it is asked and ends; nobody answers there any more"
        yield Change(Kind.REMOVE, where, "removed", f"{text}; {work}" if work else text)
        return
    if then is None:
        yield Change(Kind.BEGIN, where, "new", f"it listens on port {now.port}")
        return
    if then.replicas != now.replicas:
        what = f"replicas {then.replicas} -> {now.replicas}"
        yield Change(Kind.SCALE, where, what, "each answers for all; those that run go on")
    if then.port != now.port:
        what = f"port {then.port} -> {now.port}"
        yield Change(Kind.RESTART, where, what, "clients find it at the new port alone")
    for name in ("options", "cpu", "memory"):
        if (old := getattr(then, name)) != (new := getattr(now, name)):
            if name == "options":
                old, new = _names(old), _names(new)
            text = "it is replaced; streams of events are taken up again by their clients"
            yield Change(Kind.RESTART, where, f"{name} {arrow(old, new)}", text)


def _triton(then: Deployment, after: Deployment) -> Change:
    if after.triton is None:
        text = "it ends; stages with models wait until another serves them (settings.triton_url)"
        return Change(Kind.REMOVE, "triton", "removed", text)
    if then.triton is None:
        return Change(Kind.BEGIN, "triton", "new", "it begins; stages wait until it has its models")
    names = ("image", "gpus", "models")
    if all(getattr(then.triton, name) == getattr(after.triton, name) for name in names):
        what = f"replicas {then.triton.replicas} -> {after.triton.replicas}"
        return Change(Kind.SCALE, "triton", what, "calls are spread over those there are")
    text = "its containers are replaced one by one; calls that were under way are sent again"
    return Change(Kind.RESTART, "triton", "changed", text)


# --- stages -------------------------------------------------------------------------------------


def _stages(before: Applied | None, after: Deployment, declared: Declaration) -> Iterator[Change]:
    if before is None:
        return
    runs = {stage: name for name, group in after.workers.items() for stage in group.stages}
    for name, now in declared.stages.items():
        then = before.declaration.stages.get(name)
        if then is not None and then != now:
            yield from _stage(name, then, now, runs.get(name, ""))


def _stage(name: str, then: StageFacts, now: StageFacts, group: str) -> Iterator[Change]:
    where, workers = f"stage {name}", f"workers.{group} restart {_NOTHING}"
    for limit in now.limits:
        old, new = then.limits.get(limit), now.limits[limit]
        if old == new:
            continue
        unit = " s" * (limit in _SECONDS)
        note = f"; {_NOTES[limit]}" if limit in _NOTES else ""
        yield Change(Kind.RESTART, where, f"{limit} {old}{unit} -> {new}{unit}", workers + note)
    if then.models != now.models:
        what = f"models {arrow(_names(then.models), _names(now.models))}"
        yield Change(Kind.RESTART, where, what, f"{workers}; both answer meanwhile")
    if then.reads != now.reads:
        what = f"reads {then.reads} -> {now.reads}"
        text = f"its consumer is changed; what waits of {then.reads} is nobody's; {workers}"
        yield Change(Kind.DROP, where, what, text)
    if then.ordered != now.ordered:
        text = "its consumer cannot become another: give the stage another name"
        yield Change(Kind.REFUSED, where, f"ordered {arrow(then.ordered, now.ordered)}", text)


def _names(names: object) -> str:
    assert isinstance(names, (tuple, list))
    return ", ".join(names) or "none"


def _range(group: Workers) -> str:
    return f"{group.least}" if group.least == group.most else f"{group.least}..{group.most}"


def _count(least: int, most: int) -> str:
    number = f"{least}" if least == most else f"{least} to {most}"
    return f"{number} process{'' if most == 1 else 'es'}"
