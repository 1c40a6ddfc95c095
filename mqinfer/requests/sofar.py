"""So far: the answers of a request that has not ended, as its stream of events has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.requests import events, places
from mqinfer.requests.kept import root_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.requests.state import Answer, State
    from mqinfer.streams import Streams


async def answers_so_far(app: App, streams: Streams, state: State) -> tuple[Answer, ...]:
    """The answers that came of an open request, without those too large for an event.

    Raises:
        Unavailable: NATS does not answer.
    """
    found: dict[str, Answer] = {}
    async for stored in streams.messages(places.stream(app), places.event(app, root_of(state))):
        event = events.decode(stored.data)
        if event.answer is not None:
            found[event.answer.id] = event.answer
    return tuple(found.values())
