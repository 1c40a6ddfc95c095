"""At once: a request whose message is answered whole by one stage is ended where that is done.

What it led to is one record then, and complete. To store it, have a tracker read it, and end the
request as the tracker would, is the same with three steps more; so it is ended here, in place of
the record, before the message is acknowledged: should the process die in between, the message comes
again, and a request ends once. Whatever is not so simple goes the tracker's way: there is more to
come, the answers are large, the state was not given out to this worker, or somebody changed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from mqinfer.completion import progress, record
from mqinfer.completion.assemble import Incomplete, tale
from mqinfer.completion.progress import COMPLETE, NOTHING
from mqinfer.requests import state as states
from mqinfer.requests.kept import bucket_of
from mqinfer.requests.telling import INLINE

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.completion.assemble import Tale
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.ports import Broker
    from mqinfer.requests.seen import Seen
    from mqinfer.stage import Stage


def at_once(
    stage: Stage | None, app: App, among: Collection[str] | None, broker: Broker, seen: Seen
) -> AtOnce | None:
    """Who ends the requests that a stage's live messages are; None where no endpoint reads them.

    Args:
        stage: the stage; None where it is none.
        app: whose.
        among: names of the stages that a run takes; None is live work.
        broker: for the bucket of their states.
        seen: states as this worker was given them.
    """
    if stage is None or among is not None:
        return None
    if not any(endpoint.reads is stage.reads for endpoint in app.endpoints.values()):
        return None
    return AtOnce(app, broker=broker, seen=seen)


class AtOnce:
    """See `flow.recording.TellsAtOnce`.

    Args:
        app: whose requests.
        broker: for the bucket of their states.
        seen: states as this worker was given them.
        now: seconds since the epoch.
    """

    def __init__(
        self, app: App, *, broker: Broker, seen: Seen, now: Callable[[], float] = time.time
    ):
        self._bucket = bucket_of(app, broker)
        self._seen = seen
        self._now = now
        self._wanted = {endpoint.root: endpoint.wanted for endpoint in app.endpoints.values()}

    def tell(self, root: Root, one: Record, told: Callable[[bool], None]) -> bool:
        """End the request, if the record is all there is of it, and its state is known here."""
        found = self._whole(root, one)
        if found is None:
            return False
        end = states.end_of(found)
        if states.size_of(end.answers) > INLINE:
            return False
        known = self._seen.take(root)
        if not known:
            return False
        ((key, (value, revision)),) = known.items()
        now = self._now()
        after = states.ended(states.decode(value), end, now)

        def done(revision: int | None, _error: Exception | None) -> None:
            told(revision is not None)

        self._bucket.put(key, states.encode(after), revision, done, ttl=states.lives(after, now))
        return True

    def _whole(self, root: Root, one: Record) -> Tale | None:
        """What came of a root of which there is this record, if that is all."""
        wanted = self._wanted.get(root.kind)
        if wanted is None:
            return None
        after = progress.added(NOTHING, [record.effect(one)], [root.kind])
        decision = after.decided.get(root.kind)
        if decision is None or decision.how != COMPLETE:
            return None
        try:
            return tale([one], wanted, decision)
        except Incomplete:
            return None
