"""What the demo saw, and whether it is what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console


@dataclass
class Checks:
    """Lines to read, figures to keep, promises that do not hold.

    Attributes:
        console: where lines are printed.
        figures: by name.
        broken: what was promised and is not so.
    """

    console: Console
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def fact(self, text: str, **figures: Any) -> None:
        """Print something that was seen, and keep its figures."""
        self.console.print(text)
        self.figures.update(figures)

    def check(self, kept: bool, promise: str) -> None:
        """Print whether a promise is kept."""
        self.console.print(f"  {'ok    ' if kept else 'BROKEN'}  {promise}")
        if not kept:
            self.broken.append(promise)


def middle(values: Sequence[float]) -> float:
    """The median; 0 of none."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def leaves(error: BaseException) -> str:
    """What the errors in a group say."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(leaves, error.exceptions))
    return str(error) or type(error).__name__
