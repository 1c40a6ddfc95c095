"""Scaling: how many processes a group of stages should have. Pure: no clock, nothing asked.

More processes help where messages wait that a processor, or the time of a handler, holds up. They
do not help while a gate is closed (a server is away, a stage downstream is behind) or model calls
queue: then the server is what must grow. So the number goes up by what waits, and never against a
gate.

A process's own pace is not known beforehand. It is what the group got done while messages waited,
divided by its processes; before there is one, a number of waiting messages a process stands for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mqinfer.errors import ConfigurationError
from mqinfer.times import parse_duration

_FULL = 0.8  # of a processor: from here on a process is held up by it, not by what it waits for
_NEW = 0.3  # the weight of the newest look in a pace


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a group may scale.

    Attributes:
        least: processes, at least 1.
        most: processes.
        target: seconds in which what waits should be done.
        backlog: messages a process that may wait before another is started, while nothing is known
            of how many it does in a second.
        cooldown: seconds after a change, or after a need for as many, before one ends.
    """

    least: int = 1
    most: int = 1
    target: float = 30.0
    backlog: int = 1000
    cooldown: float = 60.0

    @property
    def scales(self) -> bool:
        """Whether there is anything to decide."""
        return self.least < self.most


@dataclass(frozen=True, slots=True)
class Load:
    """One look at a group.

    Attributes:
        pending: messages that are not done: those that wait and those in flight.
        arriving: messages that come, a second.
        pace: messages that one process does in a second while messages wait; None is not known.
        busy: the part of a processor that each process uses, 0 to 1.
        held: why more processes would not help: a gate is closed, or model calls queue; or "".
    """

    pending: int
    arriving: float = 0.0
    pace: float | None = None
    busy: float = 0.0
    held: str = ""


def desired(load: Load, current: int, bounds: Bounds, processors: int) -> int:
    """How many processes there should be now; what waits to be ended may still be waited with.

    Args:
        load: a look at the group.
        current: processes that there are.
        bounds: of the group.
        processors: of this machine. Processes that fill theirs do not become more than these.

    Returns:
        A number within the bounds, at most twice the current one.
    """
    if load.pending == 0 and not load.arriving:
        wanted = bounds.least
    elif load.held:
        wanted = min(current, bounds.most)
    elif load.pace:
        wanted = math.ceil((load.arriving + load.pending / bounds.target) / load.pace)
    else:
        wanted = max(current, math.ceil(load.pending / bounds.backlog))
    if load.busy >= _FULL:
        wanted = min(wanted, max(current, processors))
    wanted = min(wanted, 2 * max(current, 1))
    return max(bounds.least, min(wanted, bounds.most))


class Scaler:
    """Follows one group, look by look: paces, and the patience before a process ends.

    Args:
        bounds: of the group.
        processors: of this machine.

    Attributes:
        wanted: processes that there should be.
        why: of the last look, for the log.
        held: why more would not have helped then, or "".
    """

    def __init__(self, bounds: Bounds, processors: int):
        self.bounds = bounds
        self.wanted = bounds.least
        self.why = ""
        self.held = ""
        self._processors = processors
        self._pace: float | None = None
        self._needed_at = -math.inf  # when as many as there are were last needed
        self._before: tuple[float, int, int] | None = None  # time, settled, pending

    def look(
        self, now: float, *, waiting: int, in_flight: int, settled: int, busy: float, held: str
    ) -> int:
        """Take in one look; the number of processes that should be.

        Args:
            now: seconds, by a clock that goes on.
            waiting: messages that were not delivered.
            in_flight: messages that were, and are not done.
            settled: deliveries that have ended since ever.
            busy: the part of a processor that each process uses.
            held: why more would not help, or "".
        """
        pending = waiting + in_flight
        arriving = 0.0
        if self._before is not None and now > self._before[0]:
            then, had, left = self._before
            seconds = now - then
            rate = max(0, settled - had) / seconds
            arriving = max(0.0, rate + (pending - left) / seconds)
            if waiting and left and rate and not held:
                each = rate / self.wanted
                self._pace = each if self._pace is None else self._pace + _NEW * (each - self._pace)
        self._before = now, settled, pending
        load = Load(pending, arriving, self._pace, busy, held)
        wanted = desired(load, self.wanted, self.bounds, self._processors)
        if wanted >= self.wanted:
            self._needed_at = now
        elif now - self._needed_at < self.bounds.cooldown:
            wanted = self.wanted
        else:
            wanted, self._needed_at = self.wanted - 1, now  # one after another, in order
        self.held = held
        self.why = held or f"{pending:,} messages to do, {arriving:,.1f} come a second"
        self.wanted = wanted
        return wanted


def parse_processes(text: str) -> tuple[int, int]:
    """`4` or `1..8` as the least and the most.

    Raises:
        ConfigurationError: it is neither.
    """
    least, dots, most = str(text).strip().partition("..")
    try:
        found = int(least), int(most if dots else least)
    except ValueError:
        found = 0, 0
    if not 1 <= found[0] <= found[1]:
        raise ConfigurationError(
            f"{text!r} is no number of processes: write 4, or 1..8 for as many as the backlog needs"
        )
    return found


def parse_scale(text: str, least: int, most: int) -> Bounds:
    """`target=30s,backlog=1000,cooldown=1m`, each of which may be left out.

    Raises:
        ConfigurationError: naming the part.
    """
    bounds = Bounds(least, most)
    target, backlog, cooldown = bounds.target, bounds.backlog, bounds.cooldown
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, value = part.partition("=")
        try:
            if name == "target":
                target = parse_duration(value)
            elif name == "cooldown":
                cooldown = parse_duration(value)
            elif name == "backlog":
                backlog = int(value)
            else:
                raise ValueError  # noqa: TRY301
            if min(target, backlog) <= 0:
                raise ValueError  # noqa: TRY301
        except ValueError:
            raise ConfigurationError(
                f"--scale {part!r}: write target=30s, backlog=1000 and cooldown=1m, with commas"
            ) from None
    return Bounds(least, most, target, backlog, cooldown)
