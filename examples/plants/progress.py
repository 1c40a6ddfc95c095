"""What the demo shows while it waits: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LOOK_SECONDS = 0.5
_LINE_SECONDS = 5.0


class Counts(NamedTuple):
    """What the tables show."""

    leaves: int
    grades: int


async def follow(
    console: Console, what: str, total: int, count: Callable[[], int], work: asyncio.Future[None]
) -> None:
    """Show how far something is until it is done; raises what it raises."""
    with _bars(console) as bars:
        bar = bars.add_task(what, total=total)
        while not work.done():
            bars.update(bar, completed=count())
            await asyncio.wait((work,), timeout=0.2)
        bars.update(bar, completed=count())
    await work


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class Shown:
    """Progress of one flight over the season, as a context manager.

    Args:
        console: where to.
        what: is going on.
        photographs: how many there will be.
        ask: how many leaves and grades are stored; asked at most twice a second.
    """

    def __init__(
        self, console: Console, what: str, photographs: int, ask: Callable[[], Counts]
    ) -> None:
        self._console, self._what, self._photographs, self._ask = console, what, photographs, ask
        self._sent = 0
        self._looked = self._printed = time.monotonic()
        self._progress = _bars(console)
        self._bars = [
            self._progress.add_task("photographs sent", total=photographs),
            self._progress.add_task("leaves found", total=None),
            self._progress.add_task("grades stored", total=None),
        ]

    def __enter__(self) -> Self:
        """Say what begins."""
        self._console.print(f"flying {self._what}")
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the last state."""
        if error is None:
            self._show(line=True, last=True)
        self._progress.stop()

    def sent(self) -> None:
        """One more photograph is published."""
        self._sent += 1
        self._progress.update(self._bars[0], completed=self._sent)
        self.look()

    def look(self) -> None:
        """Show how far it is, if the last look was a while ago."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        line = now - self._printed >= _LINE_SECONDS
        self._show(line=line)
        self._looked = time.monotonic()
        if line:
            self._printed = self._looked

    def _show(self, *, line: bool, last: bool = False) -> None:
        counts = self._ask()
        for bar, value in zip(self._bars[1:], counts, strict=True):
            self._progress.update(bar, completed=value, total=value if last else None)
        if line and not self._console.is_terminal:
            self._console.print(
                f"  {self._sent} of {self._photographs} photographs sent, "
                f"{counts.leaves:,} leaves found, {counts.grades:,} grades stored"
            )
