"""Reference: what counts were when all was well, and what follows from them as allowed; pure.

A reference is frozen: one that rolled along would follow a slow drift and hide it. Of its counts,
step by step, three things are kept for each key, the 50 most frequent ones, all `other` ones, and
what is `unseen`, in no row of the reference:

* `high`, the share that is still nothing to speak of: Wilson's upper bound of 99.9 %, or the 99th
  percentile of what the share was from hour to hour, whichever is more, and 0.02 on top;
* `low`, the mirror image of it;
* `phi`, how many times more the counts of a step vary than those of independent rows do: the leaves
  of one photograph come together.

The hours' own noise is taken off before their percentile is read: of few rows an hour, shares
differ by chance alone, and what is allowed would be as wide as that (shrunk towards the mean by the
share of the variance that chance explains; Morris, Parametric Empirical Bayes Inference, 1983).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.counting import STEP as STEP
from mqinfer.monitor.distance import wilson

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.int64]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]

TOP: Final = 50
OTHER: Final = "(other)"
UNSEEN: Final = "(unseen)"
TOO_SMALL: Final = 0.02  # a change of a share by so much is too small to matter
STEPS_AN_HOUR: Final = 3600 // STEP
SURE: Final = 3.291  # standard errors of 99.9 %, two-sided
# Steps that are put together to see how much more they vary: 10 s, a minute, 10 minutes. What comes
# together need not come within one step.
_WIDTHS: Final = (1, 6, 60)
MIN_ROWS: Final = 200  # of a reference; fewer allow nearly everything


@dataclass(frozen=True, slots=True)
class Reference:
    """What is allowed, key by key.

    Attributes:
        keys: the most frequent first, then `OTHER`, then `UNSEEN`.
        counts: rows of each.
        low: the least share of each that is allowed.
        high: the largest one.
        phi: overdispersion of each, at least 1.
        others: the keys that `OTHER` holds.
    """

    keys: tuple[str, ...]
    counts: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    phi: tuple[float, ...]
    others: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self.counts)

    def folded(self, counts: Mapping[str, int]) -> tuple[int, ...]:
        """Counts by key as this reference has keys: what is beyond them is other or unseen."""
        found = dict.fromkeys(self.keys, 0)
        for key, count in counts.items():
            if key not in found or key in (OTHER, UNSEEN):
                key = OTHER if key in self.others else UNSEEN
            found[key] += count
        return tuple(found.values())


def reference_of(steps: Sequence[tuple[int, Mapping[str, int]]]) -> Reference:
    """The reference that counts of a good time make.

    Args:
        steps: number of a step (seconds since the epoch by `STEP`) and counts by key, in any order;
            steps without rows may be left out.

    Raises:
        ConfigurationError: there are fewer than `MIN_ROWS` rows.
    """
    totals: dict[str, int] = {}
    for _, counts in steps:
        for key, count in counts.items():
            totals[key] = totals.get(key, 0) + count
    rows = sum(totals.values())
    if rows < MIN_ROWS:
        raise ConfigurationError(
            f"{rows:,} rows are too few for a reference: {MIN_ROWS:,} at least, better 5,000 of a "
            "whole day"
        )
    ranked = sorted(totals, key=lambda key: (-totals[key], key))
    top, others = ranked[:TOP], frozenset(ranked[TOP:])
    place = {key: number for number, key in enumerate(top)}
    table = np.zeros((len(steps), len(top) + 2), np.int64)
    for row, (_, counts) in enumerate(steps):
        for key, count in counts.items():
            table[row, place.get(key, len(top))] += count
    low, high, phi = allowed(np.array([number for number, _ in steps]), table)
    return Reference(
        keys=(*top, OTHER, UNSEEN),
        counts=tuple(table.sum(axis=0).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        phi=tuple(phi.tolist()),
        others=others,
    )


def allowed(numbers: Counts, table: Counts) -> tuple[Floats, Floats, Floats]:
    """What shares are allowed: (low, high, phi), each of the keys.

    Args:
        numbers: of the steps, of shape (steps,).
        table: counts of shape (steps, keys).
    """
    _, hours = _together(numbers, table, _an_hour(numbers))
    phi = overdispersion(numbers, table)
    rows = table.sum()
    count = table.sum(axis=0)
    least, most = wilson(count / phi, rows / phi, SURE)
    n = hours.sum(axis=1, keepdims=True)
    hourly = _without_chance(hours / n, n, count / rows, phi)
    high = np.maximum(most, _percentile(hourly, n, 0.99)) + TOO_SMALL
    low = np.minimum(least, _percentile(hourly, n, 0.01)) - TOO_SMALL
    return np.maximum(low, 0.0), np.minimum(high, 1.0), phi


def overdispersion(numbers: Counts, table: Counts) -> Floats:
    """How many times more counts vary than those of independent rows, by key; 1 at least.

    Of three neighbours, steps or several together, the middle one is held against the other two
    (the pseudo-residuals of Gasser, Sroka and Jennen-Steinmetz, Residual variance and residual
    pattern in nonlinear regression, 1986), so that a cycle of the day does not count, however many
    rows there are; and the largest is taken of the widths. Of the widest one there are few in a
    day: there the keys are taken together. Arguments as of `allowed`.
    """
    phi = np.ones(table.shape[1])
    for width in _WIDTHS:
        found = _spread(numbers, table, width)
        if found is not None:
            spread, chance = found
            if width == _WIDTHS[-1]:
                spread, chance = (np.full_like(one, one.sum()) for one in (spread, chance))
            phi = np.maximum(phi, np.where(chance > 0, spread / np.maximum(chance, 1e-12), 1.0))
    # What is rare says little of itself: it is taken to come together as the others do.
    common = table.sum(axis=0) >= 50
    return np.where(common, phi, phi[common].max() if common.any() else phi.max())


def _spread(numbers: Counts, table: Counts, width: int) -> tuple[Floats, Floats] | None:
    """Squares of pseudo-residuals, and what chance gives, both by key; None of too few steps."""
    places, blocks = _together(numbers, table, width)
    if len(blocks) < 20:
        return None
    n = blocks.sum(axis=1, keepdims=True)
    shares = blocks / n
    apart = shares[:-2] - 2 * shares[1:-1] + shares[2:]
    weight = 1 / (1 / n[:-2] + 4 / n[1:-1] + 1 / n[2:])
    # The share about there, of an hour's rows.
    hour = max(_an_hour(numbers), width)
    of, hours = _together(numbers, table, hour)
    p = hours / hours.sum(axis=1, keepdims=True)
    middle = p[np.searchsorted(of, places[1:-1] * width // hour)]
    return (weight * apart**2).sum(axis=0), (middle * (1 - middle)).sum(axis=0)


def _an_hour(numbers: Counts) -> int:
    """Steps of an hour; of less than a day, a part in 24: a replay goes through days in minutes."""
    return int(min(max((numbers.max() - numbers.min() + 1) // 24, 1), STEPS_AN_HOUR))


def _together(numbers: Counts, table: Counts, width: int) -> tuple[Counts, Counts]:
    """Numbers and counts of so many steps together; where there are no rows they are left out."""
    order = np.argsort(numbers, kind="stable")
    found, first = np.unique(numbers[order] // width, return_index=True)
    counts = np.add.reduceat(table[order], first, axis=0, dtype=np.int64)
    some = counts.sum(axis=1) > 0
    return found[some], counts[some]


def _without_chance(hourly: Floats, n: Floats, share: Floats, phi: Floats) -> Floats:
    """The shares of hours, drawn to their mean by as much as chance explains of their variance."""
    weight = n / n.sum()
    variance = (weight * (hourly - share) ** 2).sum(axis=0)
    chance = (weight * phi * share * (1 - share) / n).sum(axis=0)
    own = np.sqrt(np.clip(1 - chance / np.maximum(variance, 1e-12), 0.0, 1.0))
    drawn: Floats = share + (hourly - share) * own
    return drawn


def _percentile(hourly: Floats, n: Floats, part: float) -> Floats:
    """The percentile of each key's shares, hours counted by their rows."""
    order = np.argsort(hourly, axis=0)
    ranked = np.take_along_axis(hourly, order, axis=0)
    reached = np.cumsum(n[order[:, :], 0], axis=0) / n.sum()
    first = (reached >= part - 1e-9).argmax(axis=0)
    found: Floats = np.take_along_axis(ranked, first[None, :], axis=0)[0]
    return found
