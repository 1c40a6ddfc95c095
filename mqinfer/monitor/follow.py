"""Follow: the episodes of one series, from its reference and the closed steps after it; pure.

Nothing of it is kept: whoever has the same counts, and knows what people said, gets the same
episodes. So late rows, which seal an hour again, correct what was said of it, and two that look at
once cannot disagree.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.detector import UP, Detector
from mqinfer.monitor.episode import (
    ACCEPT,
    ACKNOWLEDGE,
    Episode,
    Word,
    moved,
    muted,
    needed,
    recovered,
    ticked,
)
from mqinfer.monitor.reference import STEP, Reference

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.int64]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]

Steps = Sequence[tuple[int, Mapping[str, int]]]
_TOGETHER: Final = 128  # steps whose worth is computed at once
_MOST: Final = 300.0  # logarithm of what one step is worth at most


@dataclass(frozen=True, slots=True)
class Series:
    """What has one reference, and one share of the budget.

    Attributes:
        table: of the rows.
        column: that is counted.
        model: that answered; "" where none did, and of an input.
        version: of the model.
    """

    table: str
    column: str
    model: str = ""
    version: str = ""

    def __str__(self) -> str:
        told = f"{self.table}.{self.column}"
        return f"{told} ({self.model} {self.version})" if self.model else told


class Saying(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said of an episode.

    Attributes:
        episode: its id.
        word: acknowledge or mute.
        said: when, seconds since the epoch.
        seconds: of a mute.
        note: in their words.
    """

    episode: str
    word: Word
    said: float
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Following:
    """How a series stands.

    Attributes:
        episodes: the newest last.
        evidence: that has gathered since the last alarm.
        by_key: what each key of the reference adds to it.
    """

    episodes: tuple[Episode, ...]
    evidence: float
    by_key: tuple[float, ...]


class Follower:
    """Takes the closed steps of a series in their order; a copy is a checkpoint.

    Args:
        series: which.
        reference: what it is held against.
        threshold: of the evidence.
    """

    def __init__(self, series: Series, reference: Reference, threshold: float):
        self._series = series
        self._reference = reference
        self._threshold = threshold
        self._detector = Detector.of(reference)
        self._last: int | None = None
        self._over: list[Episode] = []
        self._lasting: Episode | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin anew, as after an alarm."""
        shape = self._detector.m.shape
        self._detector.reset()
        # Rows since then, by key; and those since it was last asked whether all is well again.
        self._all, self._since = (np.zeros(shape[-1], np.int64) for _ in range(2))
        # Of every suspicion what it has gathered, the least it had, and from which step on; and
        # what rows there were until then, of all and of its key.
        self._gathered, self._least = np.zeros(shape), np.full(shape, np.inf)
        self._began, self._rows, self._of_key = (np.zeros(shape, np.int64) for _ in range(3))

    def copy(self) -> Follower:
        """One that goes on from here by itself."""
        return copy.deepcopy(self, {id(self._reference): self._reference})

    def following(self) -> Following:
        """How the series stands now."""
        lasting = () if self._lasting is None else (self._lasting,)
        detector = self._detector
        by_key = tuple(detector.by_key().tolist())
        return Following((*self._over, *lasting), float(detector.evidence()), by_key)

    def take(self, steps: Steps) -> None:
        """Take steps, ascending, each with its counts by key; without rows: left out."""
        for first in range(0, len(steps), _TOGETHER):
            some = steps[first : first + _TOGETHER]
            numbers = [number for number, _ in some]
            table = np.array([self._reference.folded(counts) for _, counts in some], np.int64)
            gains = self._detector.gains(table)
            worth = np.exp(np.minimum(gains, _MOST))
            begin = 0
            while begin < len(numbers):
                begin = self._until_alarm(numbers, table, gains, worth, begin)

    def _until_alarm(
        self, numbers: list[int], table: Counts, gains: Floats, worth: Floats, begin: int
    ) -> int:
        """Take steps from one on until the first alarm; gives the one after the last taken."""
        rows = self._since.sum() + table[begin:].sum(axis=1).cumsum()
        for place in range(begin, len(numbers)):
            if self._last is not None:
                self._detector.idle(numbers[place] - self._last - 1)
            self._last = numbers[place]
            evidence = self._detector.multiply(worth[place])
            if evidence >= self._threshold:
                self._gather(numbers, table, gains, begin, place + 1)
                self._alarm(numbers[place], evidence)
                return place + 1
            lasting = self._lasting
            if lasting is not None and rows[place - begin] >= needed(lasting):
                self._gather(numbers, table, gains, begin, place + 1)
                self._look_again(lasting, numbers[place])
                return place + 1
        self._gather(numbers, table, gains, begin, len(numbers))
        return len(numbers)

    def _gather(
        self, numbers: list[int], table: Counts, gains: Floats, begin: int, end: int
    ) -> None:
        """Keep of each suspicion since when it has gathered its evidence."""
        counts = table[begin:end]
        before = np.cumsum(gains[begin:end], axis=0)
        gathered = self._gathered + before[-1]
        before = np.concatenate([self._gathered[None], self._gathered + before[:-1]])
        at = before.argmin(axis=0)
        least = np.take_along_axis(before, at[None], axis=0)[0]
        less = least < self._least
        upto = self._all + np.cumsum(counts, axis=0) - counts
        np.copyto(self._least, least, where=less)
        np.copyto(self._began, np.asarray(numbers[begin:end])[at], where=less)
        np.copyto(self._rows, upto.sum(axis=1)[at], where=less)
        np.copyto(self._of_key, upto[at, np.arange(table.shape[1])], where=less)
        self._gathered = gathered
        self._all, self._since = (one + counts.sum(axis=0) for one in (self._all, self._since))

    def _alarm(self, number: int, evidence: float) -> None:
        if self._lasting is None:
            self._lasting = self._episode(number, evidence)
        else:
            self._lasting = msgspec.structs.replace(self._lasting, again=self._lasting.again + 1)
        self._forget()

    def _look_again(self, lasting: Episode, number: int) -> None:
        told = recovered(lasting, self._reference, tuple(self._since.tolist()), (number + 1) * STEP)
        self._since = np.zeros_like(self._since)
        if not told.lasts:
            self._over.append(told)
            self._lasting = None

    def _episode(self, number: int, evidence: float) -> Episode:
        series, reference = self._series, self._reference
        suspicion = self._detector.suspicion()
        place = suspicion.key
        at = (suspicion.direction, suspicion.alternative, place)
        rows = int(self._all.sum() - self._rows[at])
        return Episode(
            id=f"{series.table}.{series.column}.{series.version or 0}.{number}",
            table=series.table,
            column=series.column,
            model=series.model,
            version=series.version,
            key=reference.keys[place],
            rising=suspicion.direction == UP,
            before=reference.counts[place] / reference.rows,
            after=float((self._all[place] - self._of_key[at]) / max(rows, 1)),
            began=int(self._began[at]) * STEP,
            alarmed=(number + 1) * STEP,
            rows=rows,
            evidence=evidence,
        )


def follow(series: Series, reference: Reference, steps: Steps, threshold: float) -> Following:
    """Every episode of a series.

    Args:
        series: which.
        reference: what it is held against.
        steps: closed ones, ascending, each with its counts by key; without rows: left out.
        threshold: of the evidence.
    """
    follower = Follower(series, reference, threshold)
    follower.take(steps)
    return follower.following()


def said(episode: Episode, saying: Saying) -> Episode:
    """The episode after one thing that was said of it.

    Raises:
        ConfigurationError: it cannot be said of it.
    """
    if saying.word is Word.MUTE:
        return muted(episode, saying.said, saying.seconds, saying.note)
    return moved(episode, ACKNOWLEDGE, note=saying.note)


def heard(
    episodes: Iterable[Episode], sayings: Iterable[Saying], accepted: float | None, now: float
) -> tuple[Episode, ...]:
    """The episodes after what people said of them.

    Args:
        episodes: of one series.
        sayings: of any, the oldest first.
        accepted: when a newer reference was accepted than theirs; None: it was not.
        now: seconds since the epoch.
    """
    told = sorted(sayings, key=lambda saying: saying.said)
    return tuple(_heard(one, told, accepted, now) for one in episodes)


def _heard(
    episode: Episode, sayings: Sequence[Saying], accepted: float | None, now: float
) -> Episode:
    if not episode.lasts:
        return episode
    for saying in sayings:
        if saying.episode != episode.id:
            continue
        with contextlib.suppress(ConfigurationError):  # said twice
            episode = said(ticked(episode, saying.said), saying)
    if accepted is not None:
        return moved(episode, ACCEPT, ended=accepted)
    return ticked(episode, now)
