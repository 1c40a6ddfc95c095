"""Limits: how many requests to have under way. Pure.

`AdaptiveLimit` is the gradient rule of the concurrency-limits library of Netflix (Gradient2; its
article is "Performance Under Load", 2018), which follows from Little's law, requests under way =
rate x latency. While more requests under way leave the latency alone, the server was not busy and
the rate grows; once latency grows in proportion, the server queues and more would only wait. Two
changes suit batches: latencies are compared among requests of about the same number of items, since
a fuller request takes longer for good reason; and the reference is the fastest since a restart of
the search, as in TCP BBR: now and then it begins again from the fewest slots, where nothing of ours
queues, so that a reference taken while our own requests queued does not stay.

Two more rules are for slow models, where a request that waits in the server's queue hides nothing
and costs its caller's patience. A model whose requests take a second or more gets no more slots
than it has instances. And a request that no caller waited for any longer says that the model is
asked for more than it can do, perhaps by other processes: the slots are halved, below one to a part
of one slot's time, and grow again only while answers come in half of the time that was too long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# A latency this many times the reference still counts as not queueing: noise of a busy machine.
TOLERANCE = 1.5
# The share of each new estimate; small enough that one slow request changes little.
SMOOTHING = 0.2
# Seconds of a request from which a model is slow: against them the way to the server is nothing.
SLOW = 1.0
# The least part of one slot's time that is left after requests nobody waited for any longer.
LEAST = 1 / 8
# The most streams of one model at once.
STREAMS = 32
# After so many samples the search begins again. It costs about ten requests with few slots.
SEARCH = 500


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """A look at an adaptive limit.

    Attributes:
        slots: requests that may be under way.
        estimate: the same before rounding.
        samples: latencies measured.
        latency: the latest, in seconds.
    """

    slots: int
    estimate: float
    samples: int
    latency: float


class AdaptiveLimit:
    """How many requests may be under way at once, from their measured latency.

    For every measured request, with `reference` the fastest latency at about this many items since
    the search began:

        gradient = clamp(TOLERANCE * reference / latency, 0.5, 1)
        estimate = estimate + SMOOTHING * (estimate * gradient + room - estimate)

    where `room` is one request that may queue, counted only when all slots were in use: a limit
    that was not reached says nothing about a higher one. The same samples give the same limit.

    Args:
        minimum: never fewer slots.
        maximum: never more slots.
        start: slots before anything is measured.

    Attributes:
        instances: requests that the model runs at once; 0 is not known.
    """

    def __init__(self, *, minimum: int = 1, maximum: int = 8, start: int = 2):
        if not 1 <= minimum <= start <= maximum:
            raise ValueError(f"1 <= minimum <= start <= maximum, not {minimum}, {start}, {maximum}")
        self.minimum = minimum
        self.maximum = maximum
        self._estimate = float(start)
        self._references: dict[int, float] = {}
        self._samples = 0
        self._left = SEARCH
        self._latency = 0.0
        # Seconds after which nobody waited for a request any longer.
        self._too_long = math.inf
        self.instances = 0

    @property
    def slots(self) -> int:
        """Requests that may be under way now."""
        return max(1, int(self.capacity))

    @property
    def capacity(self) -> float:
        """The same; less than 1 is a part of one slot's time."""
        estimate = self._estimate
        if self.instances and (self._latency >= SLOW or not self._samples):
            estimate = max(min(estimate, self.instances), min(estimate, self.minimum))
        return estimate if estimate < 1 else int(estimate)

    def streams(self) -> None:
        """Its requests are streams, measured by their first part.

        How many instances there are says nothing then: one of them may work on many streams.
        """
        self.instances = 0
        if self.maximum > self.minimum:
            self.maximum = max(self.maximum, STREAMS)

    def measured(self, seconds: float, items: int, *, full: bool) -> None:
        """A request was answered.

        Args:
            seconds: from sending to the answer.
            items: calls in it.
            full: whether all slots were in use when it was sent.
        """
        self._samples += 1
        self._latency = seconds
        # Powers of two: few enough groups that each has samples, and alike within.
        group = max(items, 1).bit_length()
        reference = min(self._references.get(group, seconds), seconds)
        self._references[group] = reference
        if not full:
            return
        self._left -= 1
        if not self._left:
            self._left = SEARCH
            self._references.clear()
            self._too_long = math.inf
            self._estimate = float(self.minimum)
            return
        room = 1.0 if seconds < self._too_long / 2 else 0.0
        if self._estimate < 1:
            self._estimate += SMOOTHING * room
            return
        gradient = min(max(TOLERANCE * reference / seconds, 0.5), 1.0) if seconds > 0 else 1.0
        target = self._estimate * gradient + room
        estimate = self._estimate + SMOOTHING * (target - self._estimate)
        self._estimate = min(max(estimate, float(self.minimum)), float(self.maximum))

    def given_up(self, seconds: float) -> None:
        """Nobody waited any longer for a request, which was not answered.

        Args:
            seconds: since it was sent; where they are few, its callers had other reasons.
        """
        if seconds < SLOW or self.minimum == self.maximum:
            return
        self._too_long = seconds
        self._latency = max(self._latency, seconds)
        self._estimate = max(self.capacity / 2, LEAST if self.minimum == 1 else self.minimum)

    def statistics(self) -> LimitStatistics:
        """A look at the limit."""
        return LimitStatistics(self.slots, self._estimate, self._samples, self._latency)

    def __repr__(self) -> str:
        return f"AdaptiveLimit({self._estimate:.2f} of {self.minimum} to {self.maximum})"
