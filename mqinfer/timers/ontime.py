"""OnTime: passes over the ticks that are too late to count."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mqinfer.flow.policy import Policy
from mqinfer.identity import sent_back
from mqinfer.timers.places import DUE

if TYPE_CHECKING:
    from mqinfer.ports import Delivery
    from mqinfer.schedule import Schedule


class OnTime(Policy):
    """What `catch_up` says of a tick whose turn it is, also when it failed before.

    Args:
        app: its name; a tick that a person sent back from the dead letters counts.
        schedule: of the stage.
        now: seconds since the epoch.
    """

    def __init__(self, app: str, schedule: Schedule, now: Callable[[], float] = time.time):
        self._app = app
        self._schedule = schedule
        self._now = now

    def admits(self, delivery: Delivery) -> bool:
        """Whether a tick counts."""
        headers = delivery.headers
        due = headers.get(DUE)
        if due is None or sent_back(headers, self._app):
            return True
        try:
            tick = datetime.datetime.fromisoformat(due)
        except ValueError:
            return True  # no tick of ours; whatever it is, its decoder says so
        now = datetime.datetime.fromtimestamp(self._now(), datetime.UTC)
        return tick.tzinfo is None or self._schedule.counts(tick, now)
