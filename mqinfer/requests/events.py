"""Events: what is told of a request on its way, as the stream keeps it. Pure.

Their ids follow from what they say, so that two trackers that say the same say it once.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from mqinfer.identity import MSG_ID, TTL, header_block
from mqinfer.requests.state import Answer


class Event(Struct, frozen=True, omit_defaults=True):
    """Something came of a request.

    Attributes:
        event: "progress", or "answer".
        settled: messages that are done, of what came of the request so far.
        open: those that are not.
        answer: of an answer.
    """

    event: Literal["progress", "answer"]
    settled: int = 0
    open: int = 0
    answer: Answer | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode


def header(token: str, event: Event, lives: float) -> bytes:
    """The header block of an event.

    Args:
        token: of the root that the request is.
        event: what is told.
        lives: seconds after which the server drops it.
    """
    what = event.answer.id if event.answer is not None else f"{event.settled}/{event.open}"
    pairs = {MSG_ID: f"{token}:{what}", TTL: f"{max(1, round(lives))}s"}
    return header_block(pairs)
