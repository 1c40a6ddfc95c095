"""The timers of a client: set and cancelled from outside of handlers."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.birth import new_id
from mqinfer.codec import CONTENT_TYPES
from mqinfer.identity import safe_id
from mqinfer.later import cancelled, later
from mqinfer.timers import places
from mqinfer.timers.asked import cancel, set_timer

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Message, Wire
    from mqinfer.timers.table import Table
    from mqinfer.worker.services import Services


class ClientTimers:
    """The part of `Client` that sets timers."""

    app: App
    _services: Services
    _timers_ready = False

    def _subject(self, message: Message) -> str:
        raise NotImplementedError

    async def _encoded(self, message: Message) -> tuple[bytes, Wire]:
        raise NotImplementedError

    async def later(
        self,
        message: Message,
        *,
        after: float | str | datetime.timedelta | None = None,
        at: datetime.datetime | None = None,
        name: str | None = None,
        key: object = None,
        id: str | None = None,  # noqa: A002 - the word users know
    ) -> str:
        """Have one message published when it is time, and never before; its id once that is stored.

        Args:
            message: as for `publish`.
            after: from now, in seconds or as text ("1h").
            at: a datetime with a zone; one that is past is now.
            name: the next timer that a client sets under the same name and key replaces it.
            key: tells timers of one name apart.
            id: its identity; a timer that is asked for again under it is set once.

        Raises:
            ValueError: the time, the name or the key cannot be used.
            EncodeError: a value in the message is not what its type says.
            ConfigurationError: this server keeps no timers.
            PublishError: it is too large, or refused.
            Unavailable: the server does not answer; ask again under the same id.
        """
        wish = later(message, after=after, at=at, name=name, key=key)
        table = await self._timers()
        payload, wire = await self._encoded(message)
        identity = safe_id(id) if id else new_id()
        await set_timer(
            table,
            self.app.name,
            wish,
            self._subject(message),
            payload,
            identity=identity,
            content_type=CONTENT_TYPES[wire],
        )
        return identity

    async def cancel(self, name: str, *, key: object = None, stage: str | None = None) -> bool:
        """Let a timer never come; False if none of this name waits.

        Args:
            name: of the timer.
            key: of the timer, if it has one.
            stage: that set it; None is a client.

        Raises:
            ValueError: the name or the key cannot be used.
            Unavailable: the server does not answer.
        """
        wish = cancelled(name, key)
        table = await self._timers()
        slot = places.slot_of(name, wish.key)
        return await cancel(table, places.place(self.app.name, stage or places.CLIENT, slot))

    async def _timers(self) -> Table:
        """The timers of the app; their stream is made when the first is set."""
        table = self._services.timers
        assert table is not None
        if not self._timers_ready:
            await table.ensure(plan.timers_spec(self.app))
            await self._services.broker.ensure_stream(plan.stream_spec(self.app, timers=True))
            self._timers_ready = True
        return table
