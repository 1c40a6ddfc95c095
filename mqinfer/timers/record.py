"""Record: how far a schedule is, as all workers of an app know it, and what is next. Pure.

It says which ticks are set; whoever reads it sees to it that they are, so that a worker may die
after any step. Ticks are set one ahead: when the next is due, the one after it is set, with all
that were missed and still count.

Where two versions of an app run, the schedule of the one whose worker was started last counts, and
the older workers stand back. So a deployment changes a schedule with its first new worker, and one
that goes back does as well. Where the last worker of the version that counts has ended, its
schedule is abandoned, and the others take over.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import msgspec

from mqinfer.schedule import Schedule

AT_ONCE = 1000  # ticks that one look sets at most


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a schedule is.

    Attributes:
        text: of the schedule; "" is one that was taken out of the app.
        mark: of the schedule.
        since: when it took the place of another, in seconds since the epoch.
        first: the ticks from here on are set,
        last: up to this one; seconds since the epoch.
        former: marks of the schedules before it, the nearest first.
    """

    text: str
    mark: str
    since: float
    first: float = 0.0
    last: float = 0.0
    former: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clock:
    """What a worker knows: the time, and when it was started, in seconds since the epoch."""

    now: float
    started: float


def ahead(
    record: Record | None, schedule: Schedule, clock: Clock, *, abandoned: bool = False
) -> Record | None:
    """The record as it is to be; None where another version of the app decides.

    Args:
        record: as it is; None is that of a new schedule.
        schedule: of this version of the app.
        clock: of this worker.
        abandoned: whether nobody keeps the record any more, where it is of another schedule.
    """
    if record is None or record.mark != schedule.mark:
        if record is not None and record.since > clock.started and not abandoned:
            return None
        begin = schedule.after(_time(clock.now)).timestamp()
        former = () if record is None or not record.mark else (record.mark, *record.former)
        others = tuple(dict.fromkeys(mark for mark in former if mark != schedule.mark))
        return Record(schedule.text, schedule.mark, clock.now, begin, begin, others[:4])
    if clock.now < record.last:
        return record
    now, last = _time(clock.now), _time(record.last)
    coming = schedule.after(now)
    first = coming
    if schedule.catch_up == "all":
        first = schedule.after(last)
    elif schedule.catch_up == "last":
        first = schedule.last(last, now) or coming
    else:
        on_time = max(last, now - datetime.timedelta(seconds=schedule.tolerance))
        first = schedule.after(on_time)
    tick = first
    for _ in range(AT_ONCE - 1):
        if tick >= coming:
            break
        tick = schedule.after(tick)
    return msgspec.structs.replace(record, first=first.timestamp(), last=tick.timestamp())


def without(record: Record, clock: Clock) -> Record:
    """The record of a schedule that the app has no more; as it is where a newer worker decides."""
    if not record.text or record.since > clock.started:
        return record
    return Record("", "", clock.now, former=(record.mark, *record.former)[:4])


def ticks(record: Record, schedule: Schedule) -> list[datetime.datetime]:
    """Those that the record says are set."""
    first = _time(record.first)
    before = first - datetime.timedelta(microseconds=1)
    return list(schedule.between(before, _time(record.last)))


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
