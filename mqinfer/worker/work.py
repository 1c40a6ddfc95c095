"""Work: what a worker works on, live messages or a replay run, as the worker sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.flow.policy import Policy
    from mqinfer.flow.slots import Slots
    from mqinfer.message import Message
    from mqinfer.plan import Task
    from mqinfer.ports import Feed


@dataclass(frozen=True, slots=True)
class Aside:
    """How a stage stands back that only a shadow works on.

    Attributes:
        late: seconds after which it passes a message over.
        busy: whether something live is being worked on in this process, which goes first.
    """

    late: float
    busy: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Binding:
    """How one task is bound to its consumer.

    Attributes:
        stream: that it reads.
        consumer: the durable's name.
        feed: that delivers its messages.
        writes: the types that it may write.
        run: the replay run, or None.
        policy: of ordered or replayed work; None is plain work.
        created: when the stream was made that the places of messages are in; None in a run, which
            sets no timers.
        slots: makes the account of what is in flight of the size of the largest message (bytes)
            and the messages that may wait for handlers or be in them; None is the plain one.
        pack: whether rows that only a sink reads go many in one message.
        packs: the consumer of such messages, of a sink; None where there is none.
        bulk: the consumer of what comes of jobs, of a stage; None where there is none.
        among: names of the stages that the run takes; None is all of the app.
        subjects: that its messages may have, without a key; none is that of their type.
        aside: of the stage of a shadow; None is all else.
    """

    stream: str
    consumer: str
    feed: Feed
    writes: tuple[type[Message], ...]
    run: str | None = None
    policy: Policy | None = None
    created: Callable[[], str | None] | None = None
    slots: Callable[[int, int], Slots] | None = None
    pack: bool = True
    packs: str | None = None
    bulk: str | None = None
    among: frozenset[str] | None = None
    subjects: tuple[str, ...] = ()
    aside: Aside | None = None


class Running(Protocol):
    """A worker, as its work sees it."""

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""

    @property
    def complete(self) -> bool:
        """Whether every task has its runner."""

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""

    def stop(self) -> None:
        """Begin an orderly stop."""


class Work(Protocol):
    """Messages of an app to be worked on."""

    @property
    def app(self) -> App:
        """Whose they are."""

    @property
    def tasks(self) -> Sequence[Task]:
        """The consumers to run."""

    @property
    def run_name(self) -> str:
        """Of the replay run, or ""."""

    @property
    def waiting(self) -> Mapping[str, int]:
        """Name of a task -> messages that wait for its consumers, as last seen."""

    @property
    def lag(self) -> Mapping[str, int]:
        """Name of a task -> messages that it has not done, those in flight too, as last seen."""

    @property
    def packs(self) -> Mapping[str, int]:
        """Name of a sink -> how many of those are packs of rows."""

    async def survey(self) -> None:
        """Look at what is there, before anything is made.

        Raises:
            ConflictError: where a stage begins is for a person to say.
        """

    async def ensure(self, task: Task) -> None:
        """Make the consumers of a task, where they do not exist.

        Raises:
            ConflictError: one exists with settings that do not fit.
        """

    async def recreate(self, task: Task) -> None:
        """Make what an operator deleted; it may as well be there."""

    def binding(self, task: Task, clock: Callable[[], float]) -> Binding:
        """How a task is bound; `clock` gives monotonic seconds."""

    async def watch(self, worker: Running) -> None:
        """Look how far the work is, and stop the worker when there is nothing left to do."""
