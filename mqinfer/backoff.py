"""Backoff: how long to wait before the next attempt, whatever is retried. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mqinfer.errors import WiringError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that grow with every failure, up to a bound.

    The delay before attempt n+1 is `initial * factor**(n-1)` seconds, at most `maximum`, spread
    by `jitter` (0.2 is plus or minus 20 %), so that what failed together does not come back
    together.

    Raises:
        WiringError: a value that cannot be waited for.
    """

    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name, least, most in (
            ("initial", 0.0, float("inf")),
            ("factor", 1.0, float("inf")),
            ("maximum", 0.0, float("inf")),
            ("jitter", 0.0, 1.0),
        ):
            if not least <= getattr(self, name) <= most:
                wanted = f"at least {least:g}" if most == float("inf") else f"{least:g} to {most:g}"
                raise WiringError(f"Backoff: {name}={getattr(self, name)} must be {wanted}")

    def delay(self, attempt: int, random: float = 0.5) -> float:
        """Seconds to wait after `attempt` failed.

        Args:
            attempt: 1 is the first; there is no last, since an outage may last for weeks.
            random: in [0, 1), chooses within the jitter; 0.5 leaves it out.
        """
        try:
            grown = self.initial * float(self.factor) ** (attempt - 1)
        except OverflowError:
            grown = self.maximum
        return min(grown, self.maximum) * (1 + self.jitter * (2 * random - 1))


class Attempts:
    """Attempts to reach what is down: the first at once, the others after growing waits.

    Args:
        backoff: the waits between them.

    Attributes:
        count: of attempts since it last answered.
    """

    def __init__(self, backoff: Backoff):
        self.backoff = backoff
        self.count = 0

    def next(self) -> float:
        """Seconds to wait before the attempt that comes now."""
        self.count += 1
        return self.backoff.delay(self.count - 1) if self.count > 1 else 0.0

    def reset(self) -> None:
        """What was down does its work again."""
        self.count = 0

    def __repr__(self) -> str:
        return f"Attempts({self.count})"
