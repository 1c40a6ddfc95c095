"""Running: a worker in this process, `mqinfer.Worker`, which `mqinfer worker` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING

import structlog

from mqinfer import plan, wiring
from mqinfer.connecting import an_app
from mqinfer.errors import ConfigurationError
from mqinfer.inference.aliases import followed
from mqinfer.settings import Settings
from mqinfer.starting import Patience, unless
from mqinfer.worker.live import LiveWork
from mqinfer.worker.worker import Worker as EngineWorker

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.shadow.keeper import Keeper
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Work

log = structlog.get_logger("mqinfer.worker")


class Worker:
    """Runs stages in this process, as `mqinfer worker` does.

    A server that is away when it starts is waited for, as one that goes away later is: whoever
    starts servers and workers together need not care for an order. What waiting cannot mend
    (refused credentials, a stream that does not fit) ends it at once.

    Args:
        app: the app.
        stages: names of stages and `sink-<table>`s; None is all.
        settings: None reads the environment.
        drain: stop by itself when nothing is left to do.
        run: work on this replay run, all of it, until it is done; its definition is in the bucket.
        wait: False fails at once when NATS, or what the stages need of Triton and ClickHouse, does
            not answer at the start.

    Raises:
        ConfigurationError: what was given is no App; or a run takes its own stages.
    """

    def __init__(
        self,
        app: App,
        *,
        stages: Sequence[str] | None = None,
        settings: Settings | None = None,
        drain: bool = False,
        run: str | None = None,
        wait: bool = True,
    ):
        if run is not None and stages is not None:
            raise ConfigurationError(f"run {run} takes the stages it was made with: name no others")
        self.app = an_app(app, "Worker")
        self.replay = run
        self.settings = settings or Settings.load()
        self._stages = stages
        self._drain = drain
        self._patience = Patience(wait=wait)
        self._stop = asyncio.Event()
        self.engine: EngineWorker | None = None
        self._keeper: Keeper | None = None

    def stop(self) -> None:
        """Begin an orderly stop; one that waits for a server to start with ends at once."""
        self._stop.set()
        if self.engine is not None:
            self.engine.stop()
        if self._keeper is not None:
            self._keeper.stop()

    def not_ready(self) -> list[str]:
        """Why the worker cannot work now; empty when it can."""
        if self.engine is None:
            return [self._patience.reason or "connecting"]
        return self.engine.not_ready()

    def stuck(self) -> str | None:
        """Why the process should be restarted; None as long as it need not be.

        A handler blocks the event loop for longer than its stage's timeout.
        """
        return None if self.engine is None else self.engine.watchdog.stuck

    def blocked(self, seconds: float) -> str | None:
        """Who has blocked the event loop for longer than so many seconds; None where nobody has."""
        engine = self.engine
        if engine is None or engine.beat.missing() <= seconds:
            return None
        return engine.watchdog.blocked

    async def run(self) -> None:
        """Work until `stop` is called (or, with `drain`, until nothing is left).

        Raises:
            Unavailable: a server does not answer at the start and is not waited for, or NATS
                closed the connection for good.
            ConfigurationError: the app's wiring or a setting is wrong.
            HandlerHangs: it was stopped, and a handler did not end, whatever cancelled it.
        """
        from mqinfer import image

        image.configure(
            max_pixels=self.settings.max_pixels, max_bytes=self.settings.max_image_bytes
        )
        async with AsyncExitStack() as stack:
            async with unless(self._stop):
                self.services = await stack.enter_async_context(self._open())
                work = await self._work(self.services)
                self.engine = EngineWorker(self.services, work, grace=self.settings.grace)
            if self.engine is None or self._stop.is_set():
                log.info("stopped", app=self.app.name)
                return
            await stack.enter_async_context(self._beside(self.services, self.engine))
            stack.enter_context(wiring.searched(self.app, self.services))
            await self.engine.run()

    def _beside(
        self, services: Services, engine: EngineWorker
    ) -> AbstractAsyncContextManager[None]:
        """What works on shadows and looks after canaries, where there may be any."""
        app, broker, grace = self.app, services.broker, self.settings.grace
        if self.replay is not None or services.inference is None:
            return nullcontext()
        from mqinfer.shadow.keeper import Keeper, kept

        if app.rows:
            shadows = wiring.shadows(app, broker)
            self._keeper = Keeper(shadows, services, engine, grace=grace)
        guard = None
        if followed(app):
            from mqinfer.shadow.guard import Guard

            canaries = wiring.canaries(app, broker)
            bucket = broker.bucket(plan.state_bucket(app))
            guard = Guard(canaries, services.database, services.inference, bucket)
        return kept(self._keeper, guard, grace)

    async def reach(self) -> None:
        """Ask each server that the worker needs once.

        Raises:
            Unavailable: one does not answer.
        """
        async with self._open() as services:
            await services.broker.stream_created(self.app.name)

    def _open(self) -> AbstractAsyncContextManager[Services]:
        tasks = plan.tasks(self.app, self._stages)
        return wiring.services(self.app, self.settings, "worker", tasks, self._patience)

    async def _work(self, services: Services) -> Work:
        if self.replay is not None:
            name = self.replay
            return await self._patience.answer(lambda: self._on_run(name, services))
        return LiveWork(
            self.app,
            services.broker,
            stages=self._stages,
            drain=self._drain,
            timers=services.timers,
        )

    async def _on_run(self, name: str, services: Services) -> Work:
        """The work of a replay run, which goes on if it was stopped."""
        from mqinfer.replay.work import RunWork

        store = wiring.runs(self.app, services.broker)
        return RunWork(self.app, services, await store.resume(name), store)
