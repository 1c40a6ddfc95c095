"""Roots: which messages a message came of, where somebody waits for all that comes of those.

The header `Mq-Roots` names them, travels from a message to its outputs, and is on none that is not
below a root. An item is `<subject of the root's type>/<32 hexadecimal digits>[/<run>]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from mqinfer.endpoint import CHUNK
from mqinfer.identity import ROOTS

if TYPE_CHECKING:
    from mqinfer.app import App

# Joins whose roots come of one another are declared: nobody nests as many.
MAX_ROOTS: Final = 16
_ITEM = re.compile(r"([A-Za-z0-9_.-]{1,200})/([0-9a-f]{32})(?:/([A-Za-z0-9_]{1,40}))?")


class Root(Struct, frozen=True):
    """A message that somebody waits for.

    Attributes:
        kind: the subject of its type.
        token: a hash of what it is, which is its key everywhere.
        run: the replay run, "" for live.
    """

    kind: str
    token: str
    run: str = ""

    def __str__(self) -> str:
        """As in the header."""
        return f"{self.kind}/{self.token}" + (f"/{self.run}" if self.run else "")


# All that comes of a root asks for the same ones, and each message several times.
_remembered = lru_cache(maxsize=8192)


@_remembered
def root_of(kind: str, identity: str, run: str | None) -> Root:
    """A message as a root: in a run it is another one."""
    text = f"{kind}\x1f{identity}\x1f{run or ''}"
    return Root(kind, blake2b(text.encode(), digest_size=16).hexdigest(), run or "")


@_remembered
def parse(value: str | None, run: str | None) -> tuple[Root, ...]:
    """The roots that a header names, of live work or of one run; what is none is passed over.

    A run hears of the roots of live messages: it handles a part of what came of them, and has no
    say about it.
    """
    if not value:
        return ()
    found = map(parse_one, value.split()[:MAX_ROOTS])
    return tuple(
        dict.fromkeys(root for root in found if root is not None and root.run == (run or ""))
    )


def parse_one(item: str) -> Root | None:
    """One root as a header names it; None: it is none."""
    found = _ITEM.fullmatch(item)
    return Root(found[1], found[2], found[3] or "") if found else None


@_remembered
def text(roots: tuple[Root, ...]) -> str:
    """The inverse of `parse`."""
    return " ".join(map(str, roots))


def bulk(headers: Mapping[str, str] | None) -> bool:
    """Whether a message came of a job, by its headers: live ones go before it."""
    return headers is not None and CHUNK in headers.get(ROOTS, "")


def stream(app: App) -> str:
    """The stream of records."""
    return f"{app.name}-settled"


def bucket(app: App) -> str:
    """Where trackers keep what they know of each root."""
    return f"{app.name}-roots"


def subject(app: App, run: str | None, token: str = "*", *, bulk: bool = False) -> str:
    """Where the records of one root go, or of all; `bulk` of those that are chunks of jobs."""
    place = f"run.{run}" if run else "bulk" if bulk else "live"
    return f"settled.{app.name}.{place}.{token}"


def subject_of(app: App, root: Root) -> str:
    """Where the records of a root go."""
    return subject(app, root.run or None, root.token, bulk=root.kind.startswith(CHUNK))
