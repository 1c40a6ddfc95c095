"""Telling: what the tracker finds out of a request becomes its end, and on the way its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
import structlog

from mqinfer.dropped import drop_all
from mqinfer.endpoint import ROOT
from mqinfer.errors import MqinferError
from mqinfer.requests import events, places, sweeping
from mqinfer.requests import state as states
from mqinfer.requests.events import Event
from mqinfer.requests.kept import bucket_of, end_request

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.completion.assemble import Tale
    from mqinfer.completion.progress import Progress
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.ports import Broker
    from mqinfer.requests.seen import Seen
    from mqinfer.requests.state import End

log = structlog.get_logger("mqinfer.requests")

INLINE = 64_000  # bytes of answers that are kept with the state; more is stored as a blob
EVENT = 64_000  # bytes of an answer that is told on the way; a larger one is told at the end
_EVENT_TIMEOUT = 30.0


class Telling:
    """Requests as those who wait for roots; see `completion.tracker.Waiting`.

    Args:
        app: whose.
        broker: to publish, and for the bucket.
        store: of blobs.
        seen: states as this worker was given them.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        *,
        broker: Broker,
        store: BlobStore | None,
        seen: Seen,
        now: Callable[[], float] = time.time,
    ):
        self._app = app
        self._broker = broker
        self._store = store
        self._seen = seen
        self._now = now
        self._bucket = bucket_of(app, broker)
        self._subject = {endpoint.root: endpoint.wanted for endpoint in app.endpoints.values()}

    def names(self, kind: str) -> Sequence[str]:
        """Who waits for the requests of an endpoint: whoever asked, under the endpoint's name."""
        return (kind,) if kind in self._subject else ()

    def wanted(self, name: str) -> Collection[str]:
        """The subjects of the answers."""
        return self._subject[name]

    def heeds_first(self, _name: str) -> bool:
        """A request ends once."""
        return True

    def advance(self, name: str, root: Root, records: Sequence[Record], known: Progress) -> None:
        """Tell of answers that came, and how far it is; who misses it hears of it at the end."""
        endpoint = self._app.endpoints[name.removeprefix(ROOT)]
        lives = endpoint.deadline + endpoint.keep
        told = [
            Event("answer", answer=states.answer(output.id, kind, record.data[output.data]))
            for record in records
            for output in record.outputs
            if 0 <= output.data < len(record.data)
            and (kind := record.kinds[output.kind].subject) in self._subject[name]
            and len(record.data[output.data].data) <= EVENT
        ]
        settled, left = known.counts
        for event in (*told, Event("progress", settled, left)):
            self._broker.publish(
                places.event(self._app, root),
                events.header(root.token, event, lives),
                events.encode(event),
                _untold,
                timeout=_EVENT_TIMEOUT,
            )

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        """End the request, unless it has ended.

        Raises:
            MqinferError: that is not possible now.
        """
        del name
        identity = places.asked_by(told.id)
        if places.parts(identity) is None:
            return  # a stranger's message, which has the headers of a request and is none
        end = await self._small(identity, root, states.end_of(told))
        known = self._seen.take(root)
        after = await end_request(self._bucket, identity, root, end, self._now, known)
        if end.stored and (after is None or after.stored != end.stored):
            assert self._store is not None
            await drop_all(self._store, [end.stored])  # it had ended, or was forgotten

    async def _small(self, identity: str, root: Root, end: End) -> End:
        """An end whose answers are stored, where they are many."""
        if states.size_of(end.answers) <= INLINE:
            return end
        if self._store is None:
            raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
        data = states.encode_answers(end.answers)
        # By what they are: of two trackers that tell different ends one wins, with its own answers.
        # And by the root: under one key there may be another request once this one is forgotten.
        digest = blake2b(data, key=root.token.encode()[:64], digest_size=8).hexdigest()
        found = await self._bucket.load(places.key_of(identity))
        keep = states.decode(found[0]).keep if found is not None and found[0] else 0.0
        path = sweeping.path_of(identity, self._now() + keep, digest)
        await self._store.put(path, data)
        return msgspec.structs.replace(end, answers=(), stored=path)


def _untold(error: Exception | None, _repeat: bool) -> None:
    if error is not None:
        log.warning("an event of a request was not stored", reason=str(error))
