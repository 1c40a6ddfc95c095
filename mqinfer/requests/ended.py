"""Ended: the message that a request has ended, where whoever asked wants to be told at an address.

A worker publishes it when it sees the end in the bucket, before it acknowledges it there: so it is
told once at least, and under an id of its own, whoever dies. Whoever tells the address is a stage
that reads it, with attempts and dead letters like any other (`mqinfer.gateway.webhooks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.blob import Blob
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import CONTENT_TYPE, given_id, header_block
from mqinfer.message import Message
from mqinfer.requests import places
from mqinfer.requests import state as states

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.flow.publishing import Publishes
    from mqinfer.requests.state import State


class RequestEnded(Message, subject="request_ended"):
    """A request has ended, and somebody is to be told.

    Attributes:
        id: of the request.
        url: where to tell it.
        tenant: who asked.
        state: of the request, as the bucket has it.
        answers: where they are too large for the state.
    """

    id: str
    url: str
    tenant: str
    state: bytes
    answers: Blob | None = None


def told(app: App) -> bool:
    """Whether a stage of the app tells addresses."""
    return any(stage.reads is RequestEnded for stage in app.stages.values())


async def publish(app: App, broker: Publishes, state: State, timeout: float) -> None:
    """Publish that a request has ended, and return when it is stored; the stream drops a repeat.

    Args:
        app: whose.
        broker: to publish.
        state: of the request, which has a webhook.
        timeout: seconds that it may take.

    Raises:
        PublishError: it is refused, or not stored in time.
    """
    answers = Blob.at(state.stored) if state.stored else None
    message = RequestEnded(state.id, state.webhook, state.tenant, states.encode(state), answers)
    payload, wire = Codec().write(message)
    subject = app.subject(RequestEnded)
    identity = places.message_id(state.id, state.created)
    header = {CONTENT_TYPE: CONTENT_TYPES[wire], **given_id(subject, identity)}
    await publish_stored(broker, subject, header_block(header), payload, timeout=timeout)
