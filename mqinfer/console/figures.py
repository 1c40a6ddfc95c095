"""Figure: one picture on a page, and what it is of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture.

    Attributes:
        url: where it is.
        text: what it is of.
    """

    url: str
    text: str
