"""Waited: what an app's joins and endpoints wait for, and who is below that. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from mqinfer.completion.record import Kind
from mqinfer.completion.recorder import Asked, Recorder
from mqinfer.joinwiring import below
from mqinfer.message import Message

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.endpoint import Endpoint
    from mqinfer.join import Join
    from mqinfer.stage import Stage

TRACKER: Final = "mqinfer-tracker"
DEADLINE: Final = "mqinfer-deadline-"


class Settled(Message, subject="mqinfer-settled"):
    """Stands for the records, which the tracker reads; no message is one."""


def joins_of(app: App, among: Collection[str] | None = None) -> dict[str, Join]:
    """The joins of an app by name.

    Args:
        app: whose.
        among: names of the stages that count; None is all.
    """
    return {
        stage.name: stage.join
        for stage in app.stages.values()
        if stage.join is not None and (among is None or stage.name in among)
    }


def endpoints_of(app: App, among: Collection[str] | None = None) -> dict[str, Endpoint[Any]]:
    """The endpoints of an app by name; none where a run takes some stages: requests are live."""
    return app.endpoints if among is None else {}


def waits(app: App) -> bool:
    """Whether anybody waits for all that comes of something."""
    return bool(app.endpoints or joins_of(app))


def recorded(app: App, among: Collection[str] | None = None) -> dict[str, Stage]:
    """The stages that are below the root of a join or an endpoint, by name.

    Arguments as of `joins_of`.
    """
    return asked_of(app, among) | _joined(app, among)


def asked_of(app: App, among: Collection[str] | None = None) -> dict[str, Stage]:
    """The stages that are below what an endpoint reads, by name; arguments as of `joins_of`."""
    stages = _chosen(app, among)
    kinds = dict.fromkeys(endpoint.reads for endpoint in endpoints_of(app, among).values())
    return {stage.name: stage for kind in kinds for stage in below(stages, kind, own=True)}


def _joined(app: App, among: Collection[str] | None) -> dict[str, Stage]:
    stages = _chosen(app, among)
    kinds = dict.fromkeys(join.root for join in joins_of(app, among).values())
    return {stage.name: stage for kind in kinds for stage in below(stages, kind)}


def recorder(
    app: App,
    stage: Stage,
    run: str | None,
    among: Collection[str] | None,
    codec: Codec,
    max_payload: Callable[[], int],
) -> Recorder | None:
    """What records the messages of a stage; None where it is below no root.

    Args:
        app: whose stage.
        stage: the stage.
        run: the replay run, or None.
        among: names of the stages that the run takes; None is all.
        codec: payload encoder.
        max_payload: gives what the server takes, in bytes.
    """
    if stage.name not in recorded(app, among):
        return None
    stages, joins, endpoints = _chosen(app, among), joins_of(app, among), endpoints_of(app, among)
    wanted: dict[str, frozenset[str]] = {}
    for join in joins.values():
        root = join.root.__mqinfer__.subject
        kinds = frozenset(kind.__mqinfer__.subject for kind in join.of)
        wanted[root] = wanted.get(root, kinds) | kinds
    for endpoint in endpoints.values():
        wanted[endpoint.root] = wanted[endpoint.chunk] = endpoint.wanted
    is_root = any(join.root is stage.reads for join in joins.values())
    names = [one.root for one in endpoints.values() if one.reads is stage.reads]
    readers = _readers(stages, stage.reads)
    return Recorder(
        app,
        stage.name,
        run,
        root=readers if is_root else None,
        asked=Asked(frozenset(names), readers, _joins(joins, stage.reads)) if names else None,
        kind=stage.reads.__mqinfer__.subject,
        kinds={
            kind: Kind(kind.__mqinfer__.subject, _readers(stages, kind), _joins(joins, kind))
            for kind in stage.writes
        },
        wanted=wanted,
        codec=codec,
        max_payload=max_payload,
        bulk_kinds=bulk_kinds(app),
    )


def bulk_kinds(app: App) -> frozenset[type[Message]]:
    """The types whose messages, where they come of jobs, have a subject and consumers of their own.

    So live ones never wait behind them. Rows go with all others: tables take them in blocks; and
    so does what has an order, in which all of a key are.
    """
    return frozenset(
        stage.reads
        for stage in asked_of(app).values()
        if not stage.reads.__mqinfer__.ordered and stage.reads.__mqinfer__.table is None
    )


def item(app: App, endpoint: Endpoint[Any]) -> Kind:
    """Who waits for the items of a job of an endpoint, which are no answers of their chunk."""
    return Kind("", _readers(app.stages, endpoint.reads), _joins(joins_of(app), endpoint.reads))


def _chosen(app: App, among: Collection[str] | None) -> Mapping[str, Stage]:
    return {name: stage for name, stage in app.stages.items() if among is None or name in among}


def _readers(stages: Mapping[str, Stage], kind: type[Message]) -> tuple[str, ...]:
    return tuple(name for name, stage in stages.items() if stage.reads is kind)


def _joins(joins: Mapping[str, Join], kind: type[Message]) -> tuple[str, ...]:
    return tuple(name for name, join in joins.items() if join.root is kind)
