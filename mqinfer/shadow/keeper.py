"""Keeper: in a live worker, works on the shadows that there are, beside what is live.

It looks every two seconds which there are, so that nothing is restarted for one. Each is worked on
as a run, by a worker of its own in the same process: other consumers, another account of what is in
flight, model calls in queues of their own. Nothing of it reaches the live one but the loop, where a
shadow's handlers stand back. What goes wrong with it costs a line in the log, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.errors import ConfigurationError, MqinferError, PermissionDenied
from mqinfer.observe import Metrics
from mqinfer.replay.run import State
from mqinfer.replay.work import RunWork
from mqinfer.starting import Patience
from mqinfer.worker.worker import Worker

if TYPE_CHECKING:
    from mqinfer.plan import Task
    from mqinfer.replay.run import Run
    from mqinfer.shadow.guard import Guard
    from mqinfer.shadow.shadows import Shadows
    from mqinfer.worker.services import Services

log = structlog.get_logger("mqinfer.shadow")

LOOK: Final = 2.0  # seconds between looks at which shadows there are
AGAIN: Final = 5.0  # seconds after which one is tried again that went wrong
_DENIED: Final = 60.0  # seconds between looks where they are not allowed
_CANCELLED: Final = 5.0  # seconds for what is cancelled to end


class Keeper:
    """Works on shadows beside one live worker.

    Args:
        shadows: of the app.
        services: connections of the live worker.
        live: the worker.
        grace: seconds that handlers may take to finish when it stops.
        look: seconds between looks.
    """

    def __init__(
        self,
        shadows: Shadows,
        services: Services,
        live: Worker,
        *,
        grace: float = 25.0,
        look: float = LOOK,
    ):
        self._shadows = shadows
        self._services = services
        self._live = live
        self._grace = grace
        self._look_every = look
        self._stop = asyncio.Event()
        self._working: dict[str, Worker | None] = {}
        self._trouble = ""
        tasks = [task for task in live.work.tasks if task.stage is not None]
        models = {model.name for task in tasks if task.stage for model in task.stage.models}
        # A worker of sinks alone takes the rows of any.
        self._models = sorted(models or {one.name for one in live.app.models.values()})

    def stop(self) -> None:
        """End in order; does nothing the second time."""
        self._stop.set()
        for worker in self._working.values():
            if worker is not None:
                worker.stop()

    async def keep(self) -> None:
        """Work on what there is until `stop`."""
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                await self._look(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_every):
                        await self._stop.wait()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        try:
            for _, run in await self._shadows.standing(self._models):
                if run.name not in self._working and self._ready(run):
                    self._working[run.name] = None
                    group.create_task(self._work(run.name), name=f"shadow {run.name}")
        except PermissionDenied as error:
            if self._look_every < _DENIED:
                log.info("shadows are not worked on here", reason=str(error))
            self._look_every = _DENIED  # asking often would be in the way of what is allowed
        except MqinferError as error:
            log.debug("it is not known which shadows there are", reason=str(error))

    def _ready(self, run: Run) -> bool:
        """Whether what the live stages have is there for the shadow's."""
        ours = {task.name for task in self._live.work.tasks}
        return all(name in self._live.states for name in run.stages if name in ours)

    async def _work(self, name: str) -> None:
        try:
            while not self._stop.is_set():
                run = await self._goes_on(name)
                if run is None:
                    return
                if await self._once(run):
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN):
                        await self._stop.wait()
        finally:
            del self._working[name]

    async def _goes_on(self, name: str) -> Run | None:
        try:
            run = await self._shadows.runs.find(name)
        except MqinferError:
            return None  # it is looked for again
        return run if run is not None and run.state is State.RUNNING else None

    async def _once(self, run: Run) -> bool:
        """Work on it until its end is fixed, it is over, or this ends; False: it went wrong."""
        assert self._services.inference is not None
        services = replace(
            self._services,
            inference=self._services.inference.beside(),
            metrics=Metrics(self._live.app.name),
            patience=Patience(),
            lines=None,
            timers=None,
            core=None,
        )
        try:
            work = RunWork(
                self._live.app,
                services,
                run,
                self._shadows.runs,
                only=self._ours,
                busy=lambda: not self._live.idle,
            )
            if not work.tasks:
                await self._stop.wait()
                return True
            worker = Worker(services, work, grace=self._grace, around=self._live)
            self._working[run.name] = worker
            if not self._stop.is_set():
                log.info("shadow", run=run.name, models=run.models, share=run.beside)
                await worker.run()
        except Exception as error:  # noqa: BLE001 - what is live goes on, whatever becomes of it
            told = _reason(error)
            (log.info if told == self._trouble else log.warning)(
                "a shadow is not worked on here now", run=run.name, reason=told
            )
            self._trouble = told
            return False
        finally:
            self._working[run.name] = None
        return True

    def _ours(self, task: Task) -> bool:
        """Whether a task of a run is worked on here: what this worker does of the live ones."""
        if task.row is not None:
            return self._services.database is not None
        return task.name in self._live.states


def _reason(error: BaseException) -> str:
    """In a line; of a group, its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {text}"


@asynccontextmanager
async def kept(keeper: Keeper | None, guard: Guard | None, grace: float) -> AsyncIterator[None]:
    """Have both work as long as the block runs; then the keeper has so long to end in order.

    Args:
        keeper: of shadows; None where there can be none.
        guard: of canaries; so for those.
        grace: seconds.
    """
    tasks: list[asyncio.Task[None]] = []
    if keeper is not None:
        tasks.append(asyncio.create_task(keeper.keep(), name="shadows"))
    if guard is not None:
        tasks.append(asyncio.create_task(guard.keep(), name="canaries"))
    try:
        yield
    finally:
        if guard is not None:
            tasks[-1].cancel()
        if keeper is not None:
            keeper.stop()
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        for task in tasks:
            await asyncio.wait([task], timeout=_CANCELLED)
            if task.done() and not task.cancelled() and (error := task.exception()):
                log.warning("shadows ended", reason=_reason(error))
