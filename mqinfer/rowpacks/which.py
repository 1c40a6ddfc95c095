"""Which rows travel packed, and under which names their packs do. Pure.

A pack has a subject of its own, and its sink reads that by a consumer of its own: beside workers of
a version that knows of no packs, the consumer of single rows keeps its filter, so those neither see
a pack nor make the others miss one. A layout that older readers would misread takes another token.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mqinfer.message import Message, Row

if TYPE_CHECKING:
    from mqinfer.app import App

# No type's subject can hold it, so that no consumer's filter takes a pack for a message.
TOKEN = "=pack"
_PACKS = re.compile(rf"([^.]+(?:\.run\.[^.]+)?)\.{TOKEN}\.(.+)")


def may_come_packed(kind: type[Message]) -> bool:
    """Whether a sink must look for packs of a type: this version, or another, may write them."""
    return issubclass(kind, Row) and kind.__mqinfer__.foreign_ids


def packed(app: App, kind: type[Message]) -> bool:
    """Whether what the app writes of a type goes packed: nothing but its table's sink reads it.

    Args:
        app: whose stages may read it.
        kind: a message type.
    """
    info = kind.__mqinfer__
    if not (may_come_packed(kind) and info.pack and info.key is None):
        return False
    return all(stage.reads is not kind for stage in app.stages.values())


def pack_subject(app: App, kind: type[Message], run: str | None = None) -> str:
    """The subject of a type's packs."""
    base = app.name if run is None else f"{app.name}.run.{run}"
    return f"{base}.{TOKEN}.{kind.__mqinfer__.subject}"


def row_subject(subject: str) -> str | None:
    """The subject that a row of a pack has as a message of its own; None: it is no pack's."""
    found = _PACKS.fullmatch(subject)
    return f"{found[1]}.{found[2]}" if found else None


def pack_consumer(consumer: str) -> str:
    """The consumer of packs beside that of single rows."""
    return f"{consumer}-packs"
