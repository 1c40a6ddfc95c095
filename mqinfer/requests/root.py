"""Root: the message that a request is, as it is published: the first time, and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import CONTENT_TYPE, DEADLINE, ROOTS, given_id, header_block
from mqinfer.requests import places

if TYPE_CHECKING:
    from mqinfer.flow.publishing import Publishes
    from mqinfer.requests.state import State


def header(state: State, subject: str) -> bytes:
    """The header block of the message; the same however often it is made.

    Args:
        state: of the request, which is open.
        subject: of its type, without a key.
    """
    assert state.asked is not None
    pairs = {
        **state.asked.headers,
        CONTENT_TYPE: state.asked.body.content_type,
        **given_id(subject, places.message_id(state.id, state.created)),
        ROOTS: str(places.root_of(state.id, state.created)),
        DEADLINE: repr(state.deadline),
    }
    return header_block(pairs)


async def publish(broker: Publishes, state: State, subject: str, timeout: float) -> None:
    """Publish it, and return when it is stored; the stream drops a repeat.

    Arguments as of `header`, and the seconds that it may take.

    Raises:
        PublishError: it is refused, or not stored in time.
    """
    assert state.asked is not None
    where, payload = state.asked.subject, state.asked.body.payload
    await publish_stored(broker, where, header(state, subject), payload, timeout=timeout)
