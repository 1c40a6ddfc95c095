"""States: of one stage in one process, read from their bucket and written to it.

The protocol, which makes each message change the state of its key exactly once:

1. The state is read, with the sequence of the last message that it has seen. A message that it has
   seen is acknowledged without its handler: its outputs are stored, as the state was written after.
2. The handler changes a copy, which is thrown away unless all goes well.
3. The outputs are published under their ids, and acknowledged by JetStream.
4. The state is written with the message's sequence, on the condition that it still is the one that
   was read. Where another was quicker, or the answer was lost, it is read again: if it has seen the
   message, this was its change, whoever made it; if not, the message is handled again.
5. The message is acknowledged.

Whoever dies after 3 leaves outputs that are repeats when the next one comes to the same state;
after 4, a message that is seen. Both need what the order by key gives: whoever owns a partition
knows that all before a message are settled, or are here. Of those that are here the next may be at
2 while the one before is at 4 (`memory`): the states of several are then written as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from mqinfer import plan
from mqinfer.backoff import Attempts, Backoff
from mqinfer.errors import (
    DecodeError,
    MqinferError,
    Reject,
    StateChanged,
    StateError,
    StateTooLarge,
)
from mqinfer.state import record as records
from mqinfer.state.cache import Cache, Version, tenure_of
from mqinfer.state.memory import Line, Memory

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.codec import Codec
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker
    from mqinfer.state.record import Record
    from mqinfer.statetype import State

T = TypeVar("T")

log = structlog.get_logger("mqinfer.stage")

WAIT = Backoff(initial=0.1, maximum=5.0)  # while the bucket cannot be read
HEADER_ROOM = 256  # bytes of the headers that a state is written with
MSGPACK = "application/msgpack"
UNKNOWN = "\ufffd"  # stands for bytes of a subject that are no text


async def ensure_states(app: App, task: plan.Task, broker: Broker) -> None:
    """Make the bucket of states, where a stage has any.

    Raises:
        ConflictError: it cannot be made.
        Unavailable: the server does not answer.
    """
    if task.remembers is not None:
        name = plan.memory_bucket(app)
        await broker.bucket(name, replicas=app.replicas, ttls=True).ensure()


class States:
    """The states of one stage in one process.

    Args:
        stage: its name.
        kind: their type.
        starts: the subjects, without a key, that its messages may have.
        bucket: that holds them.
        codec: encoder and decoder.
        created: asks when the app's stream was made.
        max_payload: asks for the most bytes that the server takes.
        clock: monotonic seconds.
        run: the replay run, or None: it has states of its own, which go when it is discarded.
        cache: of this process.
        passes: lets the next of a message's key begin beside it, and tells which that is, before.
    """

    def __init__(
        self,
        stage: str,
        kind: type[State],
        *,
        starts: tuple[str, ...],
        bucket: Bucket,
        codec: Codec,
        created: Callable[[], Awaitable[str | None]],
        max_payload: Callable[[], int],
        clock: Callable[[], float],
        run: str | None = None,
        cache: Cache | None = None,
        passes: Callable[[Job, Callable[[Job], None]], None] = lambda _job, _begins: None,
    ):
        self.stage = stage
        self.kind = kind
        self.run = run
        self.cache = Cache() if cache is None else cache
        self.created = ""  # when the app's stream was made; "" is not asked yet
        # What a run leaves is deleted by subject: the server had better not expire it, too.
        self.ttl = kind.__mqinfer__.ttl if run is None else None
        self._starts = starts
        self._bucket = bucket
        self._codec = codec
        self._ask_created = created
        self._max_payload = max_payload
        self._clock = clock
        self._passes = passes
        self._looking: set[asyncio.Task[None]] = set()
        self._lines: dict[str, Line] = {}  # of keys whose messages are at work, by key

    # --- reading --------------------------------------------------------------------------------

    def at_hand(self, job: Job) -> Memory | None:
        """The state that a message comes to, where nothing need be asked for it; else None.

        Raises:
            StateError: it cannot be read as its type is now.
            StateChanged: the message before it of its key is at work.
        """
        delivery = job.delivery
        tenure = tenure_of(delivery)
        if tenure is None or not self.created:
            return None
        token = records.token_of(delivery.subject, self._starts)
        if UNKNOWN in token:
            return None
        key = records.bucket_key(self.stage, self.run, token)
        line = self._lines.get(key)
        if line is not None and line.tenure == tenure:
            raise StateChanged("a message before it changes its state")
        version = self.cache.get(key, tenure, self._clock())
        if version is None:
            return None
        if version.record is not None and delivery.sequence <= version.record.sequence:
            return None
        return self._memory(key, tenure, version, job, token)

    async def open(self, job: Job) -> Memory | None:
        """The state that a message comes to; None where the state has seen the message.

        Raises:
            StateError: it cannot be read as its type is now.
            StateChanged: the message before it of its key is at work.
            Reject: the message's subject is no text, so that its key is not known.
        """
        if (found := self.at_hand(job)) is not None:
            return found
        delivery = job.delivery
        token = records.token_of(delivery.subject, self._starts)
        if UNKNOWN in token:
            raise Reject(f"its key cannot be told: the subject {delivery.subject!r} is no text")
        key = records.bucket_key(self.stage, self.run, token)
        tenure = tenure_of(delivery)
        version = self.cache.get(key, tenure, self._clock())
        if version is None:
            # Read, but not kept here: only what this owner wrote is its own.
            version = await self.read(key)
        if not self.created:
            self.created = await self._when_created()
        record = version.record
        if record is not None and delivery.sequence <= record.sequence:
            # Numbers count anew in a stream that was made anew. This comes seldom, so ask.
            self.created = await self._when_created()
            if record.created == self.created:
                return None
        return self._memory(key, tenure, version, job, token)

    def _memory(self, key: str, tenure: object, version: Version, job: Job, token: str) -> Memory:
        line = Line(self, key, tenure, version)
        memory = Memory(line, job, token, version)
        if tenure is not None:
            self._lines[key] = line
        return memory

    def passes(self, memory: Memory) -> None:
        """The next of its key, if it is here, begins with what this message has made of it."""

        def begins(job: Job) -> None:
            with contextlib.suppress(StateError):  # it comes to that by itself
                job.memory = memory.behind(job)  # at once: it is told what becomes of this one

        self._passes(memory.job, begins)

    def later(self, line: Line, seconds: float) -> object:
        """Call `line.overdue` after a while."""
        return asyncio.get_running_loop().call_later(seconds, line.overdue)

    def empty(self, line: Line) -> None:
        """Nothing of a line is left."""
        if self._lines.get(line.key) is line:
            del self._lines[line.key]

    async def read(self, key: str) -> Version:
        """What the bucket holds; outages are waited out.

        Raises:
            StateError: the value is none of ours.
        """
        found = await self._patiently(lambda: self._bucket.load(key), key)
        value, revision = found or (b"", 0)
        return Version(revision, records.decode(value) if value else None)

    async def _when_created(self) -> str:
        return await self._patiently(self._ask_created, "the stream") or ""

    async def _patiently(self, ask: Callable[[], Awaitable[T]], what: str) -> T:
        """The answer; trouble is waited out: without its state a message cannot be handled."""
        attempts = Attempts(WAIT)
        while True:
            await asyncio.sleep(attempts.next())
            try:
                return await ask()
            except MqinferError as error:
                log.warning("a state cannot be read", stage=self.stage, key=what, reason=str(error))

    def value(self, version: Version, token: str) -> State:
        """The state as an object that nobody else has.

        Raises:
            StateError: its type cannot be made of what is kept.
        """
        record = version.record
        if record is None or record.empty:
            return self.kind()
        try:
            return self._codec.decode(self.kind, bytes(record.data), MSGPACK)
        except DecodeError as error:
            key = records.text_of(token)
            why = str(error).removeprefix("the payload is ")
            raise StateError(
                f"the state of stage {self.stage} for key {key!r} cannot be read as "
                f"{self.kind.__name__} ({why}); it stays as it is: let the field's type take what "
                "it held (docs/changing-types.md), or begin this key anew with: "
                f"mqinfer state APP {self.stage} {shlex.quote(key)} --reset"
            ) from None

    # --- writing --------------------------------------------------------------------------------

    def sealed(self, state: State, sequence: int, token: str) -> tuple[Record, bytes]:
        """A state as it is to be written, and its value in the bucket.

        Raises:
            EncodeError: a value in it is not what its type says.
            StateTooLarge: it is larger than the server takes.
        """
        data, _ = self._codec.write(state)
        record = records.record_of(sequence, self.created, records.kept_key(token), data)
        value = records.encode(record)
        limit = self._max_payload()
        if len(value) + HEADER_ROOM > limit:
            raise StateTooLarge(
                f"the state of stage {self.stage} for key {records.text_of(token)!r} has "
                f"{len(value):,} bytes, and the server takes {limit:,} with headers: keep less in "
                "it, or raise max_payload there; it stays as it was"
            )
        return record, value

    def write(self, line: Line, newest: Memory) -> None:
        """Write the state of a message; its line is told when it is written, or why it is not."""
        record = newest.record
        assert record is not None
        until = float("inf") if self.ttl is None else self._clock() + self.ttl

        def done(revision: int | None, error: Exception | None) -> None:
            if revision is not None:
                version = Version(revision, record)
                self.cache.put(line.key, line.tenure, version, until)
                line.written(version)
                return
            self.cache.drop(line.key)
            if error is not None:
                line.refused(error)
                return
            task = asyncio.create_task(self._look(line, newest), name=f"{self.stage} reads again")
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

        self._bucket.put(line.key, newest.value, line.version.revision, done, ttl=self.ttl)

    async def _look(self, line: Line, newest: Memory) -> None:
        """Another was quicker, or the answer was lost: see which."""
        try:
            version = await self.read(line.key)
        except StateError as error:
            line.refused(error)
            return
        record = version.record
        if record is not None and record == newest.record:
            line.written(version)
            return

        def seen(one: Memory) -> bool:
            return (
                record is not None
                and record.sequence >= one.job.delivery.sequence
                and record.created == self.created
            )

        changed = StateChanged(
            f"the state of stage {self.stage} was changed while message "
            f"{newest.job.delivery.sequence} was handled (it was reset, or it expired): the "
            "message is handled again"
        )
        line.refused(changed, seen)

    def close(self) -> None:
        """Look no further; what that was for is delivered again."""
        for task in self._looking:
            task.cancel()
