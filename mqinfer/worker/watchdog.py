"""Watchdog: a thread that notices when the event loop stands still, and says who blocks it.

The everyday mistake of async programs: an `async def` handler that sleeps, computes or asks a
server without awaiting. Then nothing else of the process runs, also nothing that could say so. The
loop leaves a sign of life a few times a second (`flow.beat`); where none comes, this thread looks
where the loop's thread is, and says it once while it lasts and once when it is over.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from mqinfer.flow.beat import EVERY
from mqinfer.flow.frames import user_frame

if TYPE_CHECKING:
    from mqinfer.flow.beat import Beat
    from mqinfer.flow.runner import Runner
    from mqinfer.observe import Metrics

log = structlog.get_logger("mqinfer.worker")

LATE = 0.7  # seconds without one from which on the loop counts as blocked
# The bound of a block by what has no timeout of its own: a lifespan, a sink.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who blocks the loop, as far as one look can tell.

    Attributes:
        stage: whose handler, or lifespan, it is; "" if it is none's.
        id: of the message that it handles, or "".
        file: of the innermost frame that is the user's; `line` and `function` in it.
    """

    stage: str
    id: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        stage = f"stage {self.stage} at " if self.stage else ""
        return f"{stage}{self.file}:{self.line} ({self.function})"


class Watchdog:
    """Watches one event loop.

    Args:
        runners: the stages that it runs, now.
        names: of all of them, also of those that do not run yet.
        metrics: of this process; blocks are counted there.
        beat: of the loop.
        also: called in the watchdog's thread at each look.
        clock: monotonic seconds, the beat's.

    Attributes:
        culprit: who blocks the loop; None while it runs.
        blamed: tasks that were seen to block it, until the end of a block was noticed.
    """

    def __init__(
        self,
        runners: Callable[[], Sequence[Runner]],
        names: Sequence[str],
        metrics: Metrics,
        beat: Beat,
        *,
        also: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.culprit: Culprit | None = None
        self._beat = beat
        self._also = also
        self._looked = clock()
        self.blamed: set[asyncio.Task[object]] = set()
        self._task: asyncio.Task[object] | None = None  # the culprit's
        self._since = 0.0  # when it was first seen to block, or the loop's last sign of life
        self._runners = runners
        self._names = frozenset(names)
        self._metrics = metrics
        self._clock = clock
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop while inside; enter it on the loop's own thread."""
        loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._loop = loop
        thread = threading.Thread(target=self._watch, name="mqinfer-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(EVERY)

    # --- what it says ---------------------------------------------------------------------------

    @property
    def blocked(self) -> str | None:
        """Who blocks the loop, and for how long; None while it runs."""
        culprit = self.culprit
        if culprit is None:
            return None
        return f"the event loop has been blocked for {self._beat.missing():.1f} s by {culprit}"

    @property
    def stuck(self) -> str | None:
        """Why only a new process helps: one blocks the loop for longer than a handler may take."""
        return self.blocked if self.given_up else None

    @property
    def given_up(self) -> str | None:
        """Why the loop is not waited for any more: one task blocks it for longer than it may."""
        if self._clock() - max(self._beat.last, self._since) <= self.bound():
            return None
        return self.blocked or f"the event loop has been blocked for {self._beat.missing():.1f} s"

    def bound(self) -> float:
        """Seconds that a block may last: the timeout of the stage that blocks."""
        stage = None if self.culprit is None else self.culprit.stage
        timeouts = [runner.timeout for runner in self._runners() if runner.name == stage]
        return timeouts[0] if timeouts and timeouts[0] < float("inf") else PATIENCE

    # --- its thread -----------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._ended.wait(self._beat.every):
            self.look()
            self._also()

    def look(self) -> None:
        """Look whether the loop runs."""
        now = self._clock()
        slept, self._looked = now - self._looked, now
        late = now - self._beat.last
        if self.culprit is not None and late < LATE:
            self._over(now)
            return
        # Where this thread did not run either, the whole process stood still (it was stopped, the
        # machine is busy): the loop gets the time to say that it is alive.
        if late < LATE or slept >= LATE:
            return
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread)
        if task is None or frame is None:  # the loop waits, or is between two tasks
            return
        earlier, culprit = self.culprit, self._find(task, frame)
        if earlier is None:
            self._began = self._since = self._beat.last
        elif task is not self._task:  # several one after the other, each with a time of its own
            self._since = now
        self.blamed.add(task)
        self._task, self.culprit = task, culprit
        if earlier is None or (earlier.stage, earlier.file) != (culprit.stage, culprit.file):
            self._say(culprit, late)

    def _say(self, culprit: Culprit, late: float) -> None:
        log.warning(
            "the event loop is blocked",
            stage=culprit.stage or None,
            id=culprit.id or None,
            file=culprit.file,
            line=culprit.line,
            function=culprit.function,
            code=linecache.getline(culprit.file, culprit.line).strip(),
            seconds=round(late, 1),
            hint="nothing else of this process runs meanwhile: await it, make the handler a plain "
            "def (it runs in a thread), or use asyncio.to_thread",
        )

    def _over(self, now: float) -> None:
        culprit, self.culprit, self._task = self.culprit, None, None
        self.blamed = set()
        assert culprit is not None
        seconds = min(self._beat.last, now) - self._began
        self._metrics.loop_blocked(culprit.stage, seconds)
        log.warning(
            "the event loop was blocked",
            stage=culprit.stage or None,
            file=culprit.file,
            line=culprit.line,
            seconds=round(seconds, 1),
        )

    def _find(self, task: asyncio.Task[object], frame: FrameType) -> Culprit:
        """Who runs on the loop."""
        user = user_frame(frame)
        stage, identity = self._stage_of(task)
        return Culprit(
            stage, identity, user.f_code.co_filename, user.f_lineno or 0, user.f_code.co_name
        )

    def _stage_of(self, task: asyncio.Task[object]) -> tuple[str, str]:
        """The stage, and the message, that a task works for."""
        at_work = set()
        for runner in self._runners():
            for job in list(runner.jobs.values()):
                if job.task is task:
                    return runner.name, job.id
                if job.task is not None:
                    at_work.add(runner.name)
        name = task.get_name()
        if name in self._names:  # it is being prepared: a lifespan
            return name, ""
        # A task that a handler started, if only one stage has handlers at work.
        return (at_work.pop(), "") if len(at_work) == 1 else ("", "")
