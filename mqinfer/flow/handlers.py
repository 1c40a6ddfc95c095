"""Handlers: the tasks of one stage's handlers; they fail together, and end together.

A task group would do, if it did not wait for ever for a task that swallows its cancellation.
Promise 5: a stop ends, whatever a handler does. One that does not end is named and left behind;
what it had is given to others, and nothing is heard of it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.flow.frames import waiting_frame
from mqinfer.flow.suspects import FORGIVE

if TYPE_CHECKING:
    from mqinfer.flow.job import Job

log = structlog.get_logger("mqinfer.stage")

# Seconds for what a handler, and the lane of suspects, do when they are cancelled.
CLEANING_UP = FORGIVE + 1


class Handlers:
    """Running handlers of a stage.

    Args:
        stage: its name.
        coroutines: what they run.

    Attributes:
        hanging: of those that did not end, where; filled by `end`.
    """

    def __init__(self, stage: str, coroutines: list[Coroutine[Any, Any, None]]):
        self.hanging: list[str] = []
        self._stage = stage
        self._tasks = [
            asyncio.create_task(coroutine, name=f"{stage} {number}")
            for number, coroutine in enumerate(coroutines)
        ]

    async def watch(self) -> None:
        """Return when all have ended; raises what the first that failed has raised."""
        tasks = self._tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def end(self, jobs: Mapping[int, Job]) -> None:
        """Cancel all, and return when they have ended, or could have; once is enough.

        Args:
            jobs: what they have.
        """
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        _, hanging = await asyncio.wait(tasks, timeout=CLEANING_UP)
        for task in hanging:
            frame = waiting_frame(task)
            where = (
                {} if frame is None else {"file": frame.f_code.co_filename, "line": frame.f_lineno}
            )
            log.error(
                "a handler does not end, whatever cancels it: it is left behind",
                stage=self._stage,
                ids=[job.id for job in jobs.values() if job.task is task],
                **where,
            )
            place = ":".join(str(part) for part in where.values())
            self.hanging.append(f"stage {self._stage}" + (f" at {place}" if place else ""))
