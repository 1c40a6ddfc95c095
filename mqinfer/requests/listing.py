"""Listing: the requests that are kept, for people who look."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.requests import places
from mqinfer.requests import state as states

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.requests.state import Answer, State
    from mqinfer.streams import Streams


async def listed(app: App, streams: Streams, endpoint: str | None = None) -> AsyncIterator[State]:
    """The requests that are kept, of all endpoints or of one, those that changed last at the end.

    Raises:
        Unavailable: NATS does not answer.
    """
    bucket = places.bucket(app)
    subject = f"$KV.{bucket}.{endpoint or '*'}.*"
    now = time.time()
    async for stored in streams.messages(f"KV_{bucket}", subject):
        try:
            state = states.decode(stored.data)
        except msgspec.MsgspecError:
            continue  # a stranger's
        if state.expires > now:
            yield state


def facts(state: State, answers: tuple[Answer, ...]) -> dict[str, Any]:
    """A request as JSON has it.

    Args:
        state: of the request.
        answers: of it, wherever they are kept.
    """
    found = {
        "id": state.id,
        "endpoint": state.endpoint,
        "status": state.status,
        "created": state.created,
        "deadline": state.deadline,
        "expires": state.expires,
        "answers": [{"type": one.type, "data": plain(one)} for one in answers],
        "errors": msgspec.to_builtins(state.errors),
    }
    if state.ended:
        found["ended"] = state.ended
    return found


def plain(answer: Answer) -> Any:
    """An answer as JSON has it; what msgpack alone can say is Base64 there."""
    body = answer.body
    if "msgpack" in body.content_type:
        found = msgspec.msgpack.decode(body.payload)
    else:
        found = msgspec.json.decode(body.payload)
    return msgspec.json.decode(msgspec.json.encode(found, enc_hook=str))
