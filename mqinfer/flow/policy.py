"""Policy: how ordered and replayed work differs from plain live work, at a few places.

A runner and its settler ask it; without one (None) the plain way is taken, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.flow.past import Past
    from mqinfer.later import Later
    from mqinfer.message import Message
    from mqinfer.ports import Delivery, PublishDone


class SetsTimers(Protocol):
    """Sets the timers that the handlers of one stage ask for; `timers.setter.Setter` does."""

    def take(self, job: Job) -> Sequence[Later]:
        """What its handler asked for, and forget it."""

    def set(self, job: Job, wishes: Sequence[Later], done: PublishDone) -> None:
        """Set them, and call `done` once: None when all are stored, else the first error."""


class Claim(Protocol):
    """What this worker holds: a message, or what a policy holds beside those."""

    @property
    def delivery(self) -> Delivery:
        """As it came."""


class Policy:
    """What plain work does; a kind of work overrides what it does in its own way."""

    def begins(
        self,
        put: Callable[[Job], None],
        hand_back: Callable[[Sequence[Job]], Awaitable[None]],
    ) -> Callable[[Job], None]:
        """The stage begins.

        Args:
            put: takes a message whose turn has come.
            hand_back: gives messages back to the server.

        Returns:
            What takes a message that arrived.
        """
        del hand_back
        return put

    def admits(self, delivery: Delivery) -> bool:
        """Whether a message is to be handled; another is acknowledged as it is."""
        del delivery
        return True

    def owns(self, job: Job, now: float) -> bool:
        """Whether a message is still this worker's: if not, nothing is said about it any more."""
        del job, now
        return True

    def after_answer(self, job: Job, outputs: int) -> Sequence[Message]:
        """What is published beside the outputs of a message that was answered.

        It is numbered from -1 downwards, so that outputs keep their identities.

        Args:
            job: the message.
            outputs: how many it led to.
        """
        del job, outputs
        return ()

    def instead(self, job: Job, error: BaseException) -> Sequence[Message]:
        """What is stored in place of a message's dead letter; none: the letter is.

        It is numbered from -1 downwards, as what is beside an answer.

        Args:
            job: the message.
            error: why it is not answered.
        """
        del job, error
        return ()

    def heard(self, job: Job) -> float:
        """When the server last heard that a message is being worked on, in monotonic seconds."""
        return job.pulsed

    def renewed(self, job: Claim, asked: float) -> None:
        """The server has confirmed a renewal that it was asked for at `asked`."""

    def claims(self, now: float) -> Collection[Claim]:
        """What is to be renewed now beside the messages; any thread may ask."""
        del now
        return ()

    def tick(self, now: float) -> None:
        """Some time has passed."""

    def keeps(self, job: Job) -> bool:
        """Whether a message that failed is tried again here, instead of being given back."""
        del job
        return False

    def noted(self, job: Job, past: Past, delay: float) -> Past:
        """What is written down of a message that failed, and comes again after `delay` seconds."""
        del job, delay
        return past

    def again(self, job: Job, delay: float) -> None:
        """A message that is kept here has become this job, which may begin in `delay` seconds."""

    def early(self, job: Job) -> bool:
        """Whether a message must wait for longer, for which the policy sees to it."""
        del job
        return False

    def waiting(self) -> Collection[Job]:
        """Messages that wait for something else than a handler."""
        return ()

    def passes(self, job: Job, begins: Callable[[Job], None]) -> None:
        """What a message led to is stored, and the next of its key need not wait for the rest.

        Args:
            job: the message.
            begins: is told of the next one before it begins, if it is here.
        """

    def settled(self, job: Job) -> None:
        """A message was acknowledged, or ended with its dead letter; then it leaves."""

    def left(self, job: Job) -> None:
        """A message left, in whatever way."""

    async def end(self) -> None:
        """Every message has left, and none comes any more."""
