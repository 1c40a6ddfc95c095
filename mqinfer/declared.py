"""Declared: a decorated handler, and the stage it is once its annotations are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mqinfer.errors import WiringError
from mqinfer.join import Join, joined_type, read_deadline
from mqinfer.joinwiring import read_join
from mqinfer.message import Message
from mqinfer.model import Model
from mqinfer.readable import unreadable
from mqinfer.stage import (
    Lifespan,
    Stage,
    models_in,
    read_limits,
    read_signature,
    read_start,
)

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Declared:
    """A decorated handler before its annotations are read."""

    name: str
    handler: Callable[..., Any]
    limits: Mapping[str, object]
    models: tuple[Model, ...]
    lifespan: Lifespan | None
    early: bool
    start: object
    scope: Mapping[str, Any]
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
    return Stage(
        name=name,
        handler=declared.handler,
        signature=signature,
        limits=read_limits(name, declared.limits),
        models=tuple(used.values()),
        lifespan=declared.lifespan,
        early=declared.early,
        start=read_start(name, declared.start, signature.reads),
        join=join,
    )


def unreadables(stages: Mapping[str, Stage]) -> Iterator[WiringError]:
    """Types whose messages no reader could decode; each once."""
    seen: set[type[Message]] = set()
    for stage in stages.values():
        for kind in (stage.reads, *stage.writes):
            if kind not in seen:
                yield from (WiringError(f"stage {stage.name}: {why}") for why in unreadable(kind))
            seen.add(kind)
