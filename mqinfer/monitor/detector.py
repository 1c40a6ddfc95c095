"""Detector: whether counts left what a reference allows, with few false alarms; pure.

One may look after every step, for ever: the budget, a 5 % chance of one false alarm in 30 days,
holds under continuous looking. It is an e-detector in the form of Shiryaev and Roberts (Shin,
Ramdas, Rinaldo, E-detectors: a nonparametric framework for sequential change detection, 2023). For
each key, direction and alternative share a beyond what is allowed, u, a step of n rows, k of them
of the key, is worth

    e = exp((k ln(a / u) + (n - k) ln((1 - a) / (1 - u))) / phi)

whose mean is at most 1 while the share is at most u: the ratio of two likelihoods, and Jensen's
inequality does the rest for rows that come in clusters of up to phi. With M <- (M + 1) e the mean
of M after t steps is at most t, so its chance to reach T / alpha within T steps is at most alpha;
the same is true of the mean of all M. Nothing is remembered between the steps but M.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.reference import STEP, STEPS_AN_HOUR, Reference, reference_of

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]

# How far beyond what is allowed the alternatives lie, of the way to a share of 1.
ALTERNATIVES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
UP: Final = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """How many false alarms are accepted.

    Attributes:
        chance: of one or more.
        days: within.
    """

    chance: float = 0.05
    days: float = 30.0

    def threshold(self, series: int = 1) -> float:
        """The evidence at which one of so many series alarms; they share the budget evenly."""
        return series * self.days * 86_400 / STEP / self.chance


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The strongest evidence of a detector.

    Attributes:
        key: its place among the reference's keys.
        direction: `UP`, or 1, downwards.
        alternative: its place in `ALTERNATIVES`.
        evidence: its own M.
    """

    key: int
    direction: int
    alternative: int
    evidence: float


class Detector:
    """The evidence of one series, or of many alike at once, against what its reference allows.

    Args:
        low: the least shares that are allowed, of shape (keys, ...).
        high: the largest ones.
        phi: overdispersion, at least 1.
        dtype: of the evidence; float32 is quicker, and does for many series at once.

    Attributes:
        m: of shape (2, alternatives, keys, ...); all that is remembered.
    """

    def __init__(self, low: Any, high: Any, phi: Any, dtype: Any = np.float64):
        low, high, phi = (np.asarray(one, np.float64) for one in (low, high, phi))
        self._most = float(np.finfo(dtype).max) ** 0.45  # beyond, evidence is not told apart
        beyond = np.array(ALTERNATIVES).reshape(-1, *[1] * low.ndim)
        # Downwards is upwards of all other rows.
        bound = np.stack([high, 1 - low])[:, None]
        other = bound + (1 - bound) * beyond
        # A share may not be so high, or so low, that nothing lies beyond it.
        self._open = np.broadcast_to((bound > 0) & (bound < 1 - 1e-9), other.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            hit = np.where(self._open, np.log(other / bound) / phi, 0.0)
            miss = np.where(self._open, np.log((1 - other) / (1 - bound)) / phi, 0.0)
        weight = self._open / np.maximum(self._open.sum(axis=(0, 1, 2), keepdims=True), 1)
        self._hit, self._miss, self._weight = (one.astype(dtype) for one in (hit, miss, weight))
        self._cap = math.log(self._most)
        self._gain, self._rest = np.empty_like(self._hit), np.empty_like(self._hit)
        self._hits = np.empty((2, 1, *low.shape), dtype)
        self.m = np.zeros_like(self._hit)

    @classmethod
    def of(cls, reference: Reference) -> Detector:
        """That of one series."""
        return cls(reference.low, reference.high, reference.phi)

    def advance(self, counts: Any) -> Any:
        """Take one closed step; the evidence after it, of shape (...).

        Args:
            counts: of shape (keys, ...).
        """
        hits, gain = self._hits, self._gain
        hits[0, 0] = counts
        np.subtract(hits[0, 0].sum(axis=0), hits[0, 0], out=hits[1, 0])
        np.multiply(hits, self._hit, out=gain)
        gain += np.multiply(hits[::-1], self._miss, out=self._rest)
        np.exp(np.minimum(gain, self._cap, out=gain), out=gain)
        self.m += 1
        self.m *= gain
        np.minimum(self.m, self._most, out=self.m)
        return self.evidence()

    def gains(self, counts: Any) -> Floats:
        """What steps are worth: the logarithms of e, of shape (steps, 2, alternatives, keys).

        Args:
            counts: of one series, of shape (steps, keys).
        """
        k = np.asarray(counts, np.float64)
        hits = np.stack([k, k.sum(axis=1, keepdims=True) - k], axis=1)[:, :, None]
        found: Floats = hits * self._hit + hits[:, ::-1] * self._miss
        return found

    def multiply(self, worth: Any) -> float:
        """Take one closed step of one series, whose e are known; the evidence after it."""
        self.m += 1
        self.m *= worth
        np.minimum(self.m, self._most, out=self.m)
        return float(np.dot(self.m.ravel(), self._weight.ravel()))

    def by_key(self) -> Floats:
        """What each key adds to the evidence; of one series."""
        found: Floats = (self.m * self._weight).sum(axis=(0, 1))
        return found

    def idle(self, steps: int) -> None:
        """Take steps without rows."""
        self.m += steps

    def evidence(self) -> Any:
        """The weighted mean of all M, of shape (...): what the threshold is for."""
        return np.einsum("dak...,dak...->...", self.m, self._weight)

    def reset(self) -> None:
        """Begin anew, as after an alarm."""
        self.m[:] = 0

    def suspicion(self) -> Suspicion:
        """What speaks loudest; of one series."""
        where = np.unravel_index(int(np.argmax(np.where(self._open, self.m, 0))), self.m.shape)
        direction, alternative, key = (int(one) for one in where)
        return Suspicion(key, direction, alternative, float(self.m[where]))


@dataclass(frozen=True, slots=True)
class Alarm:
    """When evidence reached its threshold.

    Attributes:
        step: number of the step after which it did.
        evidence: then.
        suspicion: what spoke loudest.
    """

    step: int
    evidence: float
    suspicion: Suspicion


def watch(
    detector: Detector, steps: Iterable[tuple[int, Any]], threshold: float, last: int | None = None
) -> list[Alarm]:
    """Take closed steps in their order; begins anew after each alarm.

    Args:
        detector: of one series; is changed.
        steps: number and counts, ascending; steps that are left out have no rows.
        threshold: of the evidence.
        last: number of the step before the first one; None: there was none.
    """
    alarms: list[Alarm] = []
    for number, counts in steps:
        if last is not None:
            detector.idle(number - last - 1)
        last = number
        evidence = float(detector.advance(counts))
        if evidence >= threshold:
            alarms.append(Alarm(number, evidence, detector.suspicion()))
            detector.reset()
    return alarms


def backtest(steps: list[tuple[int, dict[str, int]]], threshold: float) -> list[Alarm] | None:
    """How often a reference would have alarmed in its own time; None where it is too short.

    What every second hour allows is held against the hours between them, so that a cycle of the day
    is in both halves.
    """
    halves: tuple[list[Any], list[Any]] = ([], [])
    for number, counts in sorted(steps, key=lambda step: step[0]):
        halves[number // STEPS_AN_HOUR % 2].append((number, counts))
    try:
        reference = reference_of(halves[0])
    except ConfigurationError:
        return None
    if not halves[1]:
        return None
    held_out = [(number, reference.folded(counts)) for number, counts in halves[1]]
    return watch(Detector.of(reference), held_out, threshold)
