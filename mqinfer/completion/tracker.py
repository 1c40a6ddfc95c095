"""Tracker: takes in records, and tells who waits for a root once everything below it is settled.

Any number of them work at once, and any may die between any two steps. What one has found out lies
in a bucket, one key a root, changed by compare-and-set; a record is let go only after what follows
of it is done. The steps, each of which may be repeated:

1. the union with the records is kept, and with it, where it completes the root, the decision that
   its waiters are told, and of what;
2. they are told, under an id that follows from the root;
3. that they were told is kept, and all else of the root let go.

A decision never changes: whoever tells after a death tells the same. One who heeds only the first
that it is told needs no decision: where all records are at hand, 2 comes first, and 1 and 3 are one
write; or none where nothing was kept before, as of a root whose records came together: should they
come again, it is told again, and heeds it not. The key of a root that is done
stays as a tombstone of some bytes for as long as messages are kept, so that a record that is
delivered late finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from mqinfer.bucket import change
from mqinfer.completion import progress, record, roots
from mqinfer.completion.assemble import STEPS, Incomplete, Tale, tale, tale_by_steps
from mqinfer.completion.held import Held
from mqinfer.completion.progress import COMPLETE, LATE, NOTHING, Decision, Effect, Progress
from mqinfer.errors import DecodeError, Unavailable

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.streams import Streams


class Waiting(Protocol):
    """Who waits for roots."""

    def names(self, kind: str) -> Sequence[str]:
        """Those who wait for the roots of a type, told by its subject."""

    def wanted(self, name: str) -> Collection[str]:
        """The subjects of the outputs that one of them asks for."""

    def heeds_first(self, name: str) -> bool:
        """Whether of all that one of them is told of a root only the first counts."""

    def advance(self, name: str, root: Root, records: Sequence[Record], known: Progress) -> None:
        """Something below a root is settled, and not all: nobody relies on hearing it.

        Args:
            name: who waits.
            root: for what.
            records: that are new, or come again.
            known: of the root.
        """

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        """Tell one of them; it may be told again, of the same.

        Raises:
            MqinferError: that is not possible now.
        """


class Tracker:
    """Keeps what is known of roots.

    Args:
        app: whose.
        run: the replay run, or None.
        bucket: where it is kept.
        streams: to read the records again of which another tracker has handled some.
        waiting: who is told.
        max_payload: gives what the server takes, in bytes.
    """

    def __init__(
        self,
        app: App,
        run: str | None,
        *,
        bucket: Bucket,
        streams: Streams,
        waiting: Waiting,
        max_payload: Callable[[], int],
    ):
        self._app = app
        self._run = run
        self._bucket = bucket
        self._streams = streams
        self._waiting = waiting
        self._max_payload = max_payload
        self._held = Held()

    def knows(self, root: Root) -> bool:
        """Whether anybody waits for it, in this version of the app."""
        return bool(self._waiting.names(root.kind))

    async def take(self, root: Root, records: Sequence[Record], payloads: Sequence[bytes]) -> None:
        """Take in records of one root; what follows of them is done when it returns.

        Args:
            root: that they are of; one that it knows.
            records: some of its records.
            payloads: that they were decoded from.

        Raises:
            MqinferError: something cannot be done now; the records are to come again.
        """
        names = self._waiting.names(root.kind)
        self._held.add(root.token, payloads)
        most = progress.nodes_in(self._max_payload(), len(names))
        effects = [record.effect(one) for one in records]
        done: Sequence[str] = ()
        if len(names) == 1 and await self._told_at_once(root, names[0], effects, most):
            _, revision = self._held.known.get(root.token, (b"", 0))
            if not revision:  # nothing is kept that would have to be let go
                self._held.drop(root.token)
                return
            done = names

        def union(value: bytes | None) -> bytes | None:
            before = _decode(value)
            after = progress.added(before, effects, names, most)
            if done:
                after = progress.told(after, done, names)
            return value if after == before else progress.encode(after)

        known = await self._change(root, union)
        for name in names:
            if name not in known.decided and not known.done:
                self._waiting.advance(name, root, records, known)
        await self._tell(root, known, names)

    async def _told_at_once(
        self, root: Root, name: str, effects: Sequence[Effect], most: int
    ) -> bool:
        """Tell the only one who waits, before anything is kept, where all is here; whether it was.

        What is complete stays so: it is no matter whether more is known of the root elsewhere.
        """
        if not self._waiting.heeds_first(name):
            return False
        value, _ = self._held.known.get(root.token, (b"", 0))
        before = _decode(value)
        decision = progress.added(before, effects, [name], most).decided.get(name)
        if before.decided or decision is None or decision.how != COMPLETE:
            return False
        try:
            found = tale(_decoded(self._held.of(root.token)), self._waiting.wanted(name), decision)
        except Incomplete:
            return False
        await self._waiting.tell(name, root, found)
        return True

    async def late(self, root: Root, name: str, fallback: Tale) -> None:
        """The deadline of one who waits has passed: it is told of what there is.

        That is what lies in the stream: a tracker that was away has taken in less.

        Args:
            root: that it waits for.
            name: who waits.
            fallback: is told where no stage has begun with the root.

        Raises:
            MqinferError: that is not possible now.
        """
        names = self._waiting.names(root.kind)
        value, revision = await self._bucket.load(root.token) or (b"", 0)
        before = _decode(value)
        if before.done:
            self._held.drop(root.token)
            return
        self._held.known[root.token] = value, revision
        most = progress.nodes_in(self._max_payload(), len(names))
        effects: list[Effect] = []
        if name not in before.decided:
            effects = [record.effect(one) for one in await self._stored(root)]

        def decide(value: bytes | None) -> bytes | None:
            before = _decode(value)
            after = progress.added(before, effects, names, most)
            after = progress.decided(after, [name], LATE)
            return value if after == before else progress.encode(after)

        await self._tell(root, await self._change(root, decide), names, fallback)

    async def _tell(
        self, root: Root, known: Progress, names: Sequence[str], fallback: Tale | None = None
    ) -> None:
        """Tell those for whom it is decided and who were not told."""
        due = [name for name, one in known.decided.items() if not one.told and name in names]
        if known.done or not due:
            if known.done:
                self._held.drop(root.token)
            return
        done = []
        for name in due:
            told = await self._tale(root, name, known.decided[name])
            if not told.id:
                if fallback is None:
                    continue  # decided by a deadline, whose message comes again
                told = fallback
            await self._waiting.tell(name, root, told)
            done.append(name)

        def mark(value: bytes | None) -> bytes | None:
            before = _decode(value)
            after = progress.told(before, done, names)
            return value if after == before else progress.encode(after)

        if (await self._change(root, mark)).done:
            self._held.drop(root.token)

    async def _change(
        self, root: Root, function: Callable[[bytes | None], bytes | None]
    ) -> Progress:
        what, known = f"root {root}", self._held.known
        _, value = await change(self._bucket, root.token, function, what=what, known=known)
        self._held.weigh(root.token)
        return _decode(value)

    async def _tale(self, root: Root, name: str, decision: Decision) -> Tale:
        wanted = self._waiting.wanted(name)
        if decision.how == COMPLETE and (held := tuple(self._held.of(root.token))):
            try:
                if len(held) <= STEPS:
                    return tale(_decoded(held), wanted, decision)
                return await _by_turns(_tale(held, wanted, decision))
            except Incomplete:
                pass  # another tracker has handled the others
        try:
            return await _by_turns(tale_by_steps(await self._stored(root), wanted, decision))
        except Incomplete as error:
            raise Unavailable(f"root {root}: {error}, in this copy of the stream") from None

    async def _stored(self, root: Root) -> list[Record]:
        """The records of a root in their stream; what a stranger put there is passed over."""
        subject = roots.subject_of(self._app, root)
        stored = self._streams.messages(roots.stream(self._app), subject)
        return _decoded([one.data async for one in stored])


def _decode(value: bytes | None) -> Progress:
    return progress.decode(value) if value else NOTHING


def _tale(
    payloads: Sequence[bytes], wanted: Collection[str], decision: Decision
) -> Generator[None, None, Tale]:
    found: list[Record] = []
    for start in range(0, len(payloads), STEPS):
        if start:
            yield
        found += _decoded(payloads[start : start + STEPS])
    return (yield from tale_by_steps(found, wanted, decision))


async def _by_turns(steps: Generator[None, None, Tale]) -> Tale:
    """Go all steps, each in a turn of the loop of its own: a chunk of a job has thousands."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            told: Tale = end.value
            return told
        await asyncio.sleep(0)


def _decoded(payloads: Iterable[bytes]) -> list[Record]:
    found: list[Record] = []
    for one in payloads:
        with suppress(DecodeError):
            found += record.decode(one)
    return found
