"""Memory: the state beside one message; Line: the messages of one key that are not written yet.

Where a worker owns a partition alone, the next message of a key begins when all is stored that the
one before led to, with what that has made of the state, whether it is written or not. (Not before:
outputs that are on their way together may come in another order, where one is sent again.) While
others follow a write waits, not for long, and takes the newest state; one of a key is under way at
a time, and each message is acknowledged when a state that has seen it is written. So a burst on one
key costs a few writes, and what comes alone one, at once.

What fails is told so when those before it are written, and takes those with it that began from its
state: they are handled again, which spends none of their attempts. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mqinfer.errors import StateChanged
from mqinfer.state.cache import Version

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.state.record import Record
    from mqinfer.statetype import State

# Messages of a key that may have begun and are not written yet, and the bytes of their states.
MOST = 64
MOST_BYTES = 1024 * 1024
# Of these so many are written together, or what there is when the first is so many seconds old.
TOGETHER = 16
WAIT = 0.01

Then = Callable[[BaseException | None], None]


class Keeper(Protocol):
    """What encodes and writes states; `States` does."""

    def value(self, version: Version, token: str) -> State:
        """The state as an object that nobody else has."""

    def sealed(self, state: State, sequence: int, token: str) -> tuple[Record, bytes]:
        """A state as it is to be written, and its value in the bucket."""

    def write(self, line: Line, newest: Memory) -> None:
        """Write the state of a message; the line is told how that ended."""

    def passes(self, memory: Memory) -> None:
        """The next of its key may begin."""

    def later(self, line: Line, seconds: float) -> object:
        """Call `line.overdue` after a while."""

    def empty(self, line: Line) -> None:
        """Nothing of a line is left."""


class Line:
    """The messages of one key, in order, from their beginning until their state is written.

    Args:
        keeper: of the stage.
        key: of the bucket.
        tenure: in which they were delivered; None where another worker may have the next.
        version: of the state in the bucket.

    Attributes:
        members: that are not written; of these the first `writing` are on their way.
        broken: a message that others began from has failed; nothing more is written.
        size: of the states of its members, in bytes.
    """

    __slots__ = (
        "_waits",
        "broken",
        "keeper",
        "key",
        "members",
        "size",
        "tenure",
        "version",
        "writing",
    )

    def __init__(self, keeper: Keeper, key: str, tenure: object, version: Version):
        self.keeper = keeper
        self.key = key
        self.tenure = tenure
        self.version = version
        self.members: list[Memory] = []
        self.writing = 0
        self.broken = False
        self.size = 0
        self._waits = False

    @property
    def room(self) -> bool:
        """Whether another message may begin before these are written."""
        return not self.broken and len(self.members) < MOST and self.size < MOST_BYTES

    def overdue(self) -> None:
        """It has waited for others."""
        if self._waits:
            self._waits = False
            self.go(at_once=True)

    def go(self, *, at_once: bool = False) -> None:
        """Write what is to be written, and tell those that failed, in order."""
        members = self.members
        while members and not self.writing:
            first = members[0]
            if first.then is None:
                return  # it is at work, or what it led to is being stored
            if self.broken or first.error is not None:
                self._drop(first)
                continue
            count = 1
            for one in members[1:]:
                if one.then is None or one.error is not None:
                    break
                count += 1
            if count < min(len(members), TOGETHER) and not at_once and members[count].then is None:
                if not self._waits:
                    self._waits = True
                    self.keeper.later(self, WAIT)
                return
            self._waits = False
            self.writing = count
            self.keeper.write(self, members[count - 1])

    def written(self, version: Version) -> None:
        """A state of this line is written: that of the last of those on their way."""
        self.version = version
        done = self._take(self.writing)
        self.go()  # the next write leaves first
        for one in done:
            assert one.then is not None
            one.then(None)

    def refused(self, error: Exception, seen: Callable[[Memory], bool] = lambda _: False) -> None:
        """A state was not written, or another stands there.

        Args:
            error: why.
            seen: whether what stands there has seen a message, all the same.
        """
        going = self.members[: self.writing]
        done = self._take(sum(map(seen, going)))
        if len(going) == 1 and not done:
            going[0].error = error  # its own; of several nobody knows whose it is
        else:
            self.broken = bool(self.members)
        self.go()
        for one in done:
            assert one.then is not None
            one.then(None)

    def _take(self, count: int) -> list[Memory]:
        """Take out those that are done with."""
        done = self.members[:count]
        del self.members[:count]
        self.writing = 0
        if self.members:
            self.size -= sum([len(one.value) for one in done])
        else:
            self.size = 0
            self.keeper.empty(self)
        return done

    def _drop(self, first: Memory) -> None:
        """Tell the first that its state is not to be."""
        error = first.error
        if error is None or self.broken:  # whatever went wrong did so beside a state that is void
            error = StateChanged("a message before it failed, and took its state with it")
        self._take(1)
        self.broken = bool(self.members)  # they began from its state
        assert first.then is not None
        first.then(error)

    def __repr__(self) -> str:
        return f"Line({self.key}, {len(self.members)}, {self.writing} on their way)"


class Memory:
    """The state beside one message; see `mqinfer.flow.job.Remembers`.

    Args:
        line: of its key, whose last it becomes.
        job: the message.
        token: its key in the subject.
        version: of the state that it begins with.

    Attributes:
        record: what is to be written, once its handler is done.
        value: the same as it is to stand in the bucket.
        then: is called when it is written, or with why it is not; None until that is to be.
        error: why it is not to be.

    Raises:
        StateError: the state cannot be read as its type is now.
    """

    __slots__ = (
        "_begun",
        "_state",
        "_version",
        "error",
        "job",
        "line",
        "record",
        "then",
        "token",
        "value",
    )

    def __init__(self, line: Line, job: Job, token: str, version: Version):
        self.line = line
        self.job = job
        self.token = token
        self.record: Record | None = None
        self.value = b""
        self.then: Then | None = None
        self.error: BaseException | None = None
        self._version = version
        self._state = line.keeper.value(version, token)
        self._begun = False
        line.members.append(self)

    @property
    def key(self) -> str:
        """Of the bucket."""
        return self.line.key

    def begin(self) -> State:
        """The state for a handler that begins, or begins again: whatever an earlier one did."""
        if self._begun:
            self._state = self.line.keeper.value(self._version, self.token)
        self._begun = True
        return self._state

    def seal(self) -> None:
        """The handler is done: what it made of the state is what will be written."""
        line = self.line
        line.size -= len(self.value)
        self.record, self.value = line.keeper.sealed(
            self._state, self.job.delivery.sequence, self.token
        )
        line.size += len(self.value)

    def behind(self, job: Job) -> Memory:
        """The state for the next message of the key, which begins with what this one made of it."""
        assert self.record is not None
        return Memory(self.line, job, self.token, Version(0, self.record))

    def keep(self, then: Then) -> None:
        """Write the state; `then` is called when it is written, or with why it is not."""
        assert self.record is not None, "sealed before it is kept"
        self.then = then
        line = self.line
        if line.tenure is not None and line.room and line.members[-1] is self:
            line.keeper.passes(self)
        line.go()

    def drop(self, error: BaseException, then: Then) -> None:
        """The message failed; `then` is called with why, when those before it are written."""
        self.error, self.then = error, then
        self.line.go()

    @property
    def void(self) -> bool:
        """Whether it began from a state that is not to be."""
        return self.line.broken

    def leave(self) -> None:
        """The message is no longer this worker's."""
        self.drop(StateChanged("the message has left"), _nobody)


def _nobody(_error: BaseException | None) -> None:
    """Nobody waits for it."""
