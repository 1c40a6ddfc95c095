"""How far a run is: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

LINE = 30.0  # seconds between two plain lines


class Progress:
    """Shows how far a run is, as a context manager.

    Args:
        inputs: of the run.
        faults: of the run.
        what: the inputs are called.
    """

    def __init__(self, inputs: int, faults: int, what: str = "inputs"):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._inputs, self._faults, self._what = inputs, faults, what
        self._began = time.monotonic()
        self._next = self._began + LINE
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            text = TextColumn("{task.description}")
            console = Console(stderr=True)
            self._bar = Bar(text, BarColumn(), TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task("", total=inputs)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, published: int, faults: int, doing: str) -> None:
        """Show how far it is.

        Args:
            published: inputs.
            faults: that have happened.
            doing: what goes on now.
        """
        far = f"{published:,} of {self._inputs:,} {self._what}"
        text = f"{far}, {faults} of {self._faults} faults: {doing}"
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=published, description=text)
        elif now >= self._next:
            self._next = now + LINE
            print(f"{now - self._began:6.0f} s  {text}", flush=True)
