"""Names: of the inner tasks of an app's joins, and who reads what below their roots. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from mqinfer.completion.record import Kind
from mqinfer.completion.recorder import Recorder
from mqinfer.joinwiring import below
from mqinfer.message import Message

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.join import Join
    from mqinfer.stage import Stage

TRACKER: Final = "mqinfer-joins"
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


def recorded(app: App, among: Collection[str] | None = None) -> dict[str, Stage]:
    """The stages that are below the root of a join, by name; arguments as of `joins_of`."""
    stages = _chosen(app, among)
    found: dict[str, Stage] = {}
    for root in dict.fromkeys(join.root for join in joins_of(app, among).values()):
        found |= {stage.name: stage for stage in below(stages, root)}
    return found


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
    stages, joins = _chosen(app, among), joins_of(app, among)
    wanted: dict[str, set[str]] = {}
    for join in joins.values():
        kinds = wanted.setdefault(join.root.__mqinfer__.subject, set())
        kinds |= {kind.__mqinfer__.subject for kind in join.of}
    is_root = any(join.root is stage.reads for join in joins.values())
    return Recorder(
        app,
        stage.name,
        run,
        root=_readers(stages, stage.reads) if is_root else None,
        kind=stage.reads.__mqinfer__.subject,
        kinds={
            kind: Kind(
                kind.__mqinfer__.subject,
                _readers(stages, kind),
                tuple(name for name, join in joins.items() if join.root is kind),
            )
            for kind in stage.writes
        },
        wanted=wanted,
        codec=codec,
        max_payload=max_payload,
    )


def _chosen(app: App, among: Collection[str] | None) -> Mapping[str, Stage]:
    return {name: stage for name, stage in app.stages.items() if among is None or name in among}


def _readers(stages: Mapping[str, Stage], kind: type[Message]) -> tuple[str, ...]:
    return tuple(name for name, stage in stages.items() if stage.reads is kind)
