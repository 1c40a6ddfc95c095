"""What the demo shows while it waits: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LOOK_SECONDS = 0.5
_LINE_SECONDS = 5.0

T = TypeVar("T")


class Counts(NamedTuple):
    """What the tables show."""

    leaves: int
    grades: int


class Bar(NamedTuple):
    """One thing of which there will be `total`, and a question how many there are."""

    what: str
    total: int | None
    ask: Callable[[], int]


async def follow(console: Console, bars: Sequence[Bar], work: asyncio.Future[T]) -> T:
    """Show how far something is until it is done.

    Returns:
        What it returns; and raises what it raises.
    """
    printed = time.monotonic()
    with _bars(console) as shown:
        tasks = [shown.add_task(bar.what, total=bar.total) for bar in bars]

        def show() -> str:
            counts = [bar.ask() for bar in bars]
            for task, count in zip(tasks, counts, strict=True):
                shown.update(task, completed=count)
            parts = [
                f"{bar.what}: {count:,}" + (f" of {bar.total:,}" if bar.total else "")
                for bar, count in zip(bars, counts, strict=True)
            ]
            return f"  {', '.join(parts)}"

        while not work.done():
            line = show()
            if not console.is_terminal and time.monotonic() - printed >= _LINE_SECONDS:
                console.print(line)
                printed = time.monotonic()
            await asyncio.wait((work,), timeout=0.2)
        show()
    return await work


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
