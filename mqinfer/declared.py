"""Declared: a decorated handler, and the stage it is once its annotations are read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mqinfer.errors import WiringError
from mqinfer.join import Join, joined_type, read_deadline
from mqinfer.joinwiring import read_join
from mqinfer.lifespan import Lifespan, misused
from mqinfer.marker import mismarked
from mqinfer.message import Message
from mqinfer.model import Model
from mqinfer.readable import unreadable
from mqinfer.schedule import Schedule
from mqinfer.signature import read_signature
from mqinfer.stage import Stage, models_in, read_later, read_limits, read_start
from mqinfer.tick import Tick, tick_of

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Declared:
    """A decorated handler before its annotations are read."""

    name: str
    handler: Callable[..., Any]
    limits: Mapping[str, object]
    models: tuple[Model, ...]
    lifespan: Lifespan | None
    scope: Mapping[str, Any]
    early: bool = False
    start: object = None
    later: object = ()
    clock: Schedule | None = None
    join: tuple[object, object, float | str | None] | None = None  # root, of=, deadline=


def stage_of(declared: Declared, max_age: float) -> Stage:
    """The stage of a handler.

    Args:
        declared: as it was written.
        max_age: of the app's messages, in seconds.

    Raises:
        WiringError: what does not fit.
    """
    name = declared.name
    if not _NAME.fullmatch(name) or name.startswith(("sink-", "run-", "mqinfer-")):
        raise WiringError(
            f"stage {name!r}: a name is letters, digits, - and _, not beginning with "
            "'sink-', 'run-' or 'mqinfer-'; give it one with name="
        )
    for wrong in misused(f"stage {name}", declared.lifespan):
        raise wrong
    used = {
        (model.name, model.version, model.alias): model
        for model in (*declared.models, *models_in(declared.handler))
    }
    join = None
    if declared.join is None:
        signature = read_signature(name, declared.handler, declared.scope)
    else:
        root, of, given = declared.join
        joined = joined_type(name)
        signature, kind, kinds = read_join(name, declared.handler, root, of, declared.scope, joined)
        deadline = read_deadline(name, given, max_age)
        join = Join(name, kind, kinds, deadline, joined)
    clocked = declared.clock is not None
    if clocked != (signature.reads is Tick) or (clocked and signature.batch):
        raise WiringError(
            f"stage {name}: a Tick is taken, one at a time, by a stage of @app.every or "
            "@app.cron, and by no other"
        )
    if clocked:
        signature = replace(signature, reads=tick_of(name))
    return Stage(
        name=name,
        handler=declared.handler,
        signature=signature,
        limits=read_limits(name, declared.limits),
        models=tuple(used.values()),
        lifespan=declared.lifespan,
        early=declared.early,
        start=read_start(name, declared.start, signature.reads),
        later=read_later(name, declared.later),
        clock=declared.clock,
        join=join,
    )


def declared_in(depth: int) -> dict[str, Any]:
    """Types declared inside of a function are found in the frame that declares the stage.

    Args:
        depth: frames above this one.
    """
    frame = inspect.currentframe()
    for _ in range(depth):
        frame = frame.f_back if frame else None
    return dict(frame.f_locals) if frame and frame.f_locals is not frame.f_globals else {}


def unreadables(stages: Mapping[str, Stage]) -> Iterator[WiringError]:
    """Types whose messages no reader could decode, or whose markers mark nothing; each once."""
    seen: set[type[Message]] = set()
    for stage in stages.values():
        for kind in (stage.reads, *stage.sends):
            if kind not in seen:
                whys = (*unreadable(kind), *mismarked(kind))
                yield from (WiringError(f"stage {stage.name}: {why}") for why in whys)
            seen.add(kind)
