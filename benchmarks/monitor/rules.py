"""Rules: the monitor's alarm and what others use, side by side, on many months at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from mqinfer.monitor.detector import Budget, Detector
from mqinfer.monitor.distance import shares
from mqinfer.monitor.reference import STEP, allowed

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.uint8]]
    Numbers = np.ndarray[Any, np.dtype[np.int64]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Truths = np.ndarray[Any, np.dtype[np.bool_]]
    Allowed = tuple[Floats, Floats, Floats]

WIDEST = 3600 // STEP  # steps of the widest window: how many every rule takes at once


class Rule(Protocol):
    """One way to decide."""

    name: str

    def steps(self, counts: Counts) -> Truths:
        """After which of an hour's steps which months alarm, of shape (steps, months).

        Args:
            counts: of shape (steps, labels, months).
        """


class Evidence:
    """The monitor's own: begins anew after an alarm."""

    name = "mqinfer"

    def __init__(self, allowed: Allowed, budget: Budget):
        self.detector = Detector(*allowed, np.float32)
        self._threshold = budget.threshold()

    def steps(self, counts: Counts) -> Truths:
        found = np.zeros((len(counts), counts.shape[2]), bool)
        for alarms, step in zip(found, _with_rest(counts), strict=True):
            np.greater_equal(self.detector.advance(step), self._threshold, out=alarms)
            if alarms.any():
                self.detector.m[..., alarms] = 0
        return found


class Screen(Detector):
    """Which months the monitor's rule may alarm in at all, for a third of its work.

    Of six steps only their sum is looked at. With R, what the rows of a key would be worth without
    the others, no product of e over a part of the six is more; so M is at most (M + 6) R within
    them, and at most e M + 6 R after them. Where that is too much, the hour is gone through step by
    step, beginning with what M is at most.
    """

    width: Final = 6

    def __init__(self, allowed: Allowed, budget: Budget):
        super().__init__(*allowed, np.float32)
        self._allowed = allowed
        self._threshold = 0.99 * budget.threshold()  # what rounding may make of it
        self.may = np.zeros(allowed[0].shape[1], bool)
        self._most_worth = np.empty_like(self._gain)

    def steps(self, counts: Counts) -> None:
        """Take an hour's steps, of shape (steps, labels, months)."""
        before = self.m.copy()
        near = np.zeros(self.may.shape, bool)
        sixes = counts.reshape(-1, self.width, *counts.shape[1:]).sum(axis=1, dtype=np.uint16)
        for six in _with_rest(sixes):
            near |= self._bound(six) >= self._threshold
        if (near := near & ~self.may).any():
            single = Detector(*part_of(self._allowed, near), np.float32)
            single.m[:] = before[..., near]
            for step in _with_rest(counts[..., near]):
                self.may[near] |= single.advance(step) >= self._threshold
            self.m[..., near] = single.m

    def _bound(self, counts: Any) -> Any:
        hits, gain, worth = self._hits, self._gain, self._most_worth
        hits[0, 0] = counts
        np.subtract(hits[0, 0].sum(axis=0), hits[0, 0], out=hits[1, 0])
        np.multiply(hits, self._hit, out=worth)
        np.add(worth, np.multiply(hits[::-1], self._miss, out=gain), out=gain)
        for one in (worth, gain):
            np.exp(np.minimum(one, self._cap, out=one), out=one)
        np.multiply(self.m + self.width, worth, out=self._rest)
        most = np.einsum("dak...,dak...->...", self._rest, self._weight)
        self.m *= gain
        worth *= self.width
        self.m += worth
        np.minimum(self.m, self._most, out=self.m)
        return most


def allowed_of(reference: Counts) -> Allowed:
    """What each month's own reference allows: (low, high, phi), of shape (keys, months).

    Args:
        reference: of shape (steps, labels, months).
    """
    numbers = np.arange(len(reference))
    months = np.ascontiguousarray(np.moveaxis(_with_rest(reference), 2, 0))
    found = [allowed(numbers, month) for month in months]
    low, high, phi = (np.array(part).T for part in zip(*found, strict=True))
    return low, high, phi


def part_of(allowed: Allowed, months: Any) -> Allowed:
    """What some of the months allow."""
    low, high, phi = (one[:, months] for one in allowed)
    return low, high, phi


class Windows:
    """Whatever looks at one window after the other."""

    def __init__(self, name: str, reference: Counts, minutes: int):
        self.name = f"{name}, {_length(minutes)}"
        self._width = minutes * 60 // STEP
        self._windows = self._summed(reference)
        self._reference = self._windows.sum(axis=0)

    def _summed(self, counts: Counts) -> Numbers:
        """Counts of windows, of shape (windows, labels, months)."""
        parts = counts.reshape(-1, self._width, *counts.shape[1:])
        found: Numbers = parts.sum(axis=1, dtype=np.int64)
        return found

    def steps(self, counts: Counts) -> Truths:
        found = np.zeros((len(counts), counts.shape[2]), bool)
        found[self._width - 1 :: self._width] = self.judge(self._summed(counts))
        return found

    def judge(self, windows: Numbers) -> Truths:
        raise NotImplementedError


class Psi(Windows):
    """PSI over 0.2, as it is told to be "a significant change"."""

    def __init__(self, reference: Counts, minutes: int):
        super().__init__("PSI > 0.2", reference, minutes)

    def judge(self, windows: Numbers) -> Truths:
        p, q = shares(np.moveaxis(windows, 1, 0)), shares(self._reference)[:, None]
        found: Truths = ((p - q) * np.log(p / q)).sum(axis=0) > 0.2
        return found


class ThreeSigma(Windows):
    """Any share beyond the mean +- 3 standard deviations of the reference's windows."""

    def __init__(self, reference: Counts, minutes: int):
        super().__init__("mean +- 3 sd", reference, minutes)
        parts = self._shares(self._windows)
        self._mean, self._sd = parts.mean(axis=0), parts.std(axis=0, ddof=1)

    def _shares(self, windows: Numbers) -> Floats:
        found: Floats = windows / np.maximum(windows.sum(axis=1, keepdims=True), 1)
        return found

    def judge(self, windows: Numbers) -> Truths:
        beyond = np.abs(self._shares(windows) - self._mean) > 3 * self._sd
        found: Truths = (beyond & (windows.sum(axis=1, keepdims=True) > 0)).any(axis=1)
        return found


def _with_rest(counts: Counts) -> Counts:
    """Counts with the two keys that no row has here: other and unseen."""
    steps, _, months = counts.shape
    return np.concatenate([counts, np.zeros((steps, 2, months), counts.dtype)], axis=1)


def _length(minutes: int) -> str:
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
