"""Policy: how ordered and replayed work differs from plain live work, at a few places.

A runner and its settler ask it; without one (None) the plain way is taken, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.later import Later
    from mqinfer.message import Message
    from mqinfer.ports import Delivery, PublishDone


class SetsTimers(Protocol):
    """Sets the timers that the handlers of one stage ask for; `timers.setter.Setter` does."""

    def take(self, job: Job) -> Sequence[Later]:
        """What its handler asked for, and forget it."""

    def set(self, job: Job, wishes: Sequence[Later], done: PublishDone) -> None:
        """Set them, and call `done` once: None when all are stored, else the first error."""


class Policy:
    """What plain work does; a kind of work overrides what it does in its own way."""

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

    def heard(self, job: Job) -> float:
        """When the server last heard that a message is being worked on, in monotonic seconds."""
        return job.pulsed

    def renewed(self, job: Job, asked: float) -> None:
        """The server has confirmed a renewal that it was asked for at `asked`."""

    def left(self, job: Job) -> None:
        """A message was settled."""
