"""Checkpoints: where a series stood when the last sealed hour ended, so that a look costs little.

Counts of hours that are sealed stay as they are until an hour is sealed anew, which its seal tells:
as long as all seals are the same, what follows from them is. Nothing rests on it: without any, the
steps are gone through from the reference on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mqinfer.monitor.asking import HOUR
from mqinfer.monitor.follow import Follower, Series, Steps
from mqinfer.monitor.kept import Accepted
from mqinfer.monitor.reference import STEP

_MOST: Final = 24  # of a series: late rows are seldom older than so many hours


@dataclass(frozen=True, slots=True)
class _Point:
    made: float
    threshold: float
    until: int  # the end of its last hour, seconds since the epoch
    seals: Mapping[int, str]
    follower: Follower


class Checkpoints:
    """Those of all series that a monitor looks at."""

    def __init__(self) -> None:
        self._points: dict[Series, list[_Point]] = {}

    def begin(self, accepted: Accepted, threshold: float, seals: Mapping[int, str]) -> int:
        """From when on the steps of a series are needed; forgets what no longer holds.

        Args:
            accepted: its reference.
            threshold: of the evidence.
            seals: of the table's hours now.
        """
        points = self._points.setdefault(accepted.series, [])
        while points and not _holds(points[-1], accepted, threshold, seals):
            points.pop()
        return points[-1].until if points else _begin(accepted)

    def followed(
        self,
        accepted: Accepted,
        threshold: float,
        seals: Mapping[int, str],
        steps: Steps,
        closed: float,
    ) -> Follower:
        """A series after the steps since `begin`; keeps where it stood at the last sealed hour.

        Args:
            accepted: its reference.
            threshold: of the evidence.
            seals: as `begin` was told.
            steps: closed ones, ascending; those before `begin` are passed over.
            closed: until when steps are closed, seconds since the epoch.
        """
        points = self._points.setdefault(accepted.series, [])
        if points:
            began, follower = points[-1].until, points[-1].follower.copy()
        else:
            began = _begin(accepted)
            follower = Follower(accepted.series, accepted.reference, threshold)
        # The hour after the last sealed one is counted as it is now.
        until = max(seals, default=0) + HOUR
        first = next((at for at, (n, _) in enumerate(steps) if n * STEP >= began), len(steps))
        sealed = next((at for at, (n, _) in enumerate(steps) if n * STEP >= until), len(steps))
        if began < until <= closed:
            follower.take(steps[first:sealed])
            first = max(first, sealed)
            own = _of(seals, accepted, until)
            points.append(_Point(accepted.made, threshold, until, own, follower.copy()))
            del points[:-_MOST]
        follower.take(steps[first:])
        return follower


def _begin(accepted: Accepted) -> int:
    """The step in which a reference was made: what comes of it later is held against it."""
    return int(accepted.made) // STEP * STEP


def _holds(point: _Point, accepted: Accepted, threshold: float, seals: Mapping[int, str]) -> bool:
    return (point.made, point.threshold) == (accepted.made, threshold) and point.seals == _of(
        seals, accepted, point.until
    )


def _of(seals: Mapping[int, str], accepted: Accepted, until: int) -> dict[int, str]:
    """The seals of hours from the reference on that ended by then."""
    first = accepted.made - HOUR
    return {hour: seal for hour, seal in seals.items() if first < hour < until}
