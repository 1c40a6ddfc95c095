"""Follow: the episodes of one series, from its reference and the closed steps after it; pure.

Nothing of it is kept: whoever has the same counts, and knows what people said, gets the same
episodes. So late rows, which seal an hour again, correct what was said of it, and two that look at
once cannot disagree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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

Steps = Sequence[tuple[int, Mapping[str, int]]]


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
    """

    episodes: tuple[Episode, ...]
    evidence: float


def follow(series: Series, reference: Reference, steps: Steps, threshold: float) -> Following:
    """Every episode of a series.

    Args:
        series: which.
        reference: what it is held against.
        steps: closed ones, ascending, each with its counts by key; without rows: left out.
        threshold: of the evidence.
    """
    detector = Detector.of(reference)
    found: list[Episode] = []
    seen: list[tuple[int, tuple[int, ...]]] = []  # since the last alarm
    lasting: Episode | None = None
    since = np.zeros(len(reference.keys), np.int64)
    last: int | None = None
    for number, counts in steps:
        folded = reference.folded(counts)
        if last is not None:
            detector.idle(number - last - 1)
        last = number
        seen.append((number, folded))
        evidence = float(detector.advance(folded))
        since += np.asarray(folded)
        if evidence >= threshold:
            if lasting is None:
                lasting = _begun(series, reference, detector, seen, evidence)
            else:
                lasting = msgspec.structs.replace(lasting, again=lasting.again + 1)
            detector.reset()
            seen.clear()
            since[:] = 0
        elif lasting is not None and since.sum() >= needed(lasting):
            told = recovered(lasting, reference, tuple(since.tolist()), (number + 1) * STEP)
            since[:] = 0
            if not told.lasts:
                found.append(told)
                lasting = None
    if lasting is not None:
        found.append(lasting)
    return Following(tuple(found), float(detector.evidence()))


def _begun(
    series: Series,
    reference: Reference,
    detector: Detector,
    seen: Sequence[tuple[int, tuple[int, ...]]],
    evidence: float,
) -> Episode:
    suspicion = detector.suspicion()
    table = np.array([counts for _, counts in seen])
    began = detector.began(table, suspicion)
    rows = int(table[began:].sum())
    place = suspicion.key
    moment = seen[-1][0]
    return Episode(
        id=f"{series.table}.{series.column}.{series.version or 0}.{moment}",
        table=series.table,
        column=series.column,
        model=series.model,
        version=series.version,
        key=reference.keys[place],
        rising=suspicion.direction == UP,
        before=reference.counts[place] / reference.rows,
        after=float(table[began:, place].sum() / max(rows, 1)),
        began=seen[began][0] * STEP,
        alarmed=(moment + 1) * STEP,
        rows=rows,
        evidence=evidence,
    )


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
