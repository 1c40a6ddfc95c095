"""Rules: the monitor's alarm and what others use, side by side, on many months at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mqinfer.monitor.detector import Budget, Detector
from mqinfer.monitor.distance import psi
from mqinfer.monitor.reference import STEP, allowed

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.int64]]
    Truths = np.ndarray[Any, np.dtype[np.bool_]]


class Rule(Protocol):
    """One way to decide."""

    name: str

    def step(self, counts: Counts) -> Truths:
        """Which of the months alarm after this step."""


class Evidence:
    """The monitor's own: begins anew after an alarm."""

    name = "mqinfer"

    def __init__(self, reference: Counts, budget: Budget):
        numbers = np.arange(reference.shape[1])
        found = [allowed(numbers, _with_rest(month)) for month in reference]
        low, high, phi = (np.array(part) for part in zip(*found, strict=True))
        self.detector = Detector(low, high, phi)
        self._threshold = budget.threshold()

    def step(self, counts: Counts) -> Truths:
        alarms: Truths = self.detector.advance(_with_rest(counts)) >= self._threshold
        if alarms.any():
            self.detector.m[:, :, alarms] = 0
        return alarms


class Windows:
    """Whatever looks at one window after the other."""

    def __init__(self, name: str, reference: Counts, minutes: int):
        months, steps, keys = reference.shape
        self.name = f"{name}, {_length(minutes)}"
        self._width = minutes * 60 // STEP
        used = steps // self._width * self._width
        self._reference = reference.sum(axis=1)
        self._windows = reference[:, :used].reshape(months, -1, self._width, keys).sum(axis=2)
        self._sum = np.zeros((months, keys), np.int64)
        self._steps = 0

    def step(self, counts: Counts) -> Truths:
        self._sum += counts
        self._steps += 1
        if self._steps % self._width:
            return np.zeros(len(counts), bool)
        found, self._sum = self.judge(self._sum), np.zeros_like(self._sum)
        return found

    def judge(self, window: Counts) -> Truths:
        raise NotImplementedError


class Psi(Windows):
    """PSI over 0.2, as it is told to be "a significant change"."""

    def __init__(self, reference: Counts, minutes: int):
        super().__init__("PSI > 0.2", reference, minutes)

    def judge(self, window: Counts) -> Truths:
        far = [psi(now, then).raw for now, then in zip(window, self._reference, strict=True)]
        return np.array(far) > 0.2


class ThreeSigma(Windows):
    """Any share beyond the mean +- 3 standard deviations of the reference's windows."""

    def __init__(self, reference: Counts, minutes: int):
        super().__init__("mean +- 3 sd", reference, minutes)
        shares = self._windows / np.maximum(self._windows.sum(axis=2, keepdims=True), 1)
        self._mean, self._sd = shares.mean(axis=1), shares.std(axis=1, ddof=1)

    def judge(self, window: Counts) -> Truths:
        rows = window.sum(axis=1, keepdims=True)
        beyond = np.abs(window / np.maximum(rows, 1) - self._mean) > 3 * self._sd
        found: Truths = (beyond & (rows > 0)).any(axis=1)
        return found


def _with_rest(counts: Counts) -> Counts:
    """Counts with the two keys that no row has here: other and unseen."""
    return np.concatenate([counts, np.zeros((*counts.shape[:-1], 2), np.int64)], axis=-1)


def _length(minutes: int) -> str:
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
