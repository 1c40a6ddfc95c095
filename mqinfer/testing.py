"""For tests of pipelines: a real nats-server on a random port, and a worker to run on it.

    async with nats_only(tmp_path) as settings, Harness(app, settings) as harness:
        await harness.publish(Photo(...))
        await harness.drain()
        assert await harness.messages(Leaf) == [...]

Needs the extra `mqinfer[embedded]` for the server; tables are real ones (`mqinfer.stack.Stack` with
all its servers), and so are models, unless `FakeModels` answers for them. Handlers that are called
by hand need no server at all:

    with FakeModels({"grade": lambda leaf: {"grade": leaf.mean()}}):
        assert await grade_leaf(Leaf(...)) == Grade(...)

A handler that remembers takes its state like that, too: `await watch(Grade(...), health)`.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

from mqinfer import plan, wiring
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.app import App
from mqinfer.client import Client
from mqinfer.codec import Codec
from mqinfer.fakemodels import FakeModels, ModelCall
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import CONTENT_TYPE, header_block
from mqinfer.message import Message
from mqinfer.operate.letters import Letter
from mqinfer.operate.timers import Waiting, waiting
from mqinfer.rowpacks.unpack import raw_rows
from mqinfer.rowpacks.which import pack_consumer, row_subject
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.statetype import State
from mqinfer.streams import Stored
from mqinfer.tick import tick_id, tick_of
from mqinfer.worker.services import Services

__all__ = [
    "DeadLetter",
    "FakeModels",
    "Harness",
    "ModelCall",
    "nats_only",
    "until",
]

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)


@asynccontextmanager
async def nats_only(folder: Path, **stack_settings: Any) -> AsyncIterator[Settings]:
    """A real nats-server with JetStream, on random ports, with blobs in a folder.

    Args:
        folder: for its data.
        stack_settings: fields of `mqinfer.stack.StackSettings`.
    """
    from mqinfer.stack import Stack, StackSettings

    chosen = {
        "nats_port": 0,
        "triton": False,
        "clickhouse": False,
        **stack_settings,
    }
    async with Stack(StackSettings(dir=folder, **chosen)) as stack:
        yield Settings.load({}, nats_url=stack.nats_url, blobs=str(folder / "blobs"), grace=5.0)


@overload
async def until(
    condition: Callable[[], Awaitable[_T]], what: str = "the state", timeout: float = 60.0
) -> _T: ...


@overload
async def until(
    condition: Callable[[], _T], what: str = "the state", timeout: float = 60.0
) -> _T: ...


async def until(
    condition: Callable[[], Any], what: str = "the state", timeout: float = 60.0
) -> Any:
    """Wait until `condition` gives something true (it may be a coroutine function), and give it.

    Args:
        condition: is asked every 20 ms at first, and ten times a second after two seconds.
        what: is waited for, in the error's text.
        timeout: in seconds.

    Raises:
        AssertionError: it does not within `timeout` seconds.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                # To look may be work, for a server too, at the cost of what is waited for.
                waited = time.monotonic() - began
                await asyncio.sleep(min(max(0.02, waited / 20), 0.1))
    except TimeoutError:
        raise AssertionError(f"{what} did not come in {timeout} s") from None


class DeadLetter(Letter):
    """A dead letter as it lies in its stream."""

    @property
    def subject(self) -> str:
        """Its own, which ends in the stage that gave up; `headers` have that of the message."""
        return self.stored.subject


class Harness:
    """An app on a real stream; an async context manager."""

    def __init__(self, app: App, settings: Settings):
        self.app = app
        self.settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Harness:
        """Connect and create the streams."""
        self.services: Services = await self._stack.enter_async_context(
            wiring.services(self.app, self.settings, "test")
        )
        broker = self.services.broker
        if plan.uses_timers(self.app) and self.services.timers is not None:
            await self.services.timers.ensure(plan.timers_spec(self.app))
        await broker.ensure_stream(plan.stream_spec(self.app))
        await broker.ensure_stream(plan.dead_stream_spec(self.app))
        self.client = Client(self.app, self.services)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def publish(self, *messages: Message, ids: Sequence[str] | None = None) -> list[str]:
        """Publish messages; their ids."""
        return await self.client.publish_all(messages, ids=ids)

    async def publish_bytes(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Publish as a plain NATS client would: bytes, and only the headers given."""
        block = header_block(headers or {})
        await publish_stored(self.services.broker, subject, block, payload, timeout=10)

    async def drain(self, *stages: str) -> None:
        """Run a worker (all stages, or those named) until nothing is left to do."""
        async with asyncio.timeout(120):
            await Worker(self.app, stages=stages or None, settings=self.settings, drain=True).run()

    @asynccontextmanager
    async def worker(self, *stages: str) -> AsyncIterator[Worker]:
        """A worker that runs beside the test and is stopped at its end."""
        worker = Worker(self.app, stages=stages or None, settings=self.settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            try:
                await until(lambda: not worker.not_ready(), "a ready worker")
                yield worker
            finally:
                worker.stop()

    async def lag(self, name: str) -> int:
        """Messages that a stage or sink has not done, in all its consumers; a pack of rows is one.

        -1 while there are none. A consumer of another name, as those of a run, counts by itself,
        but for that of a sink's packs beside it.
        """
        if any(task.name == name for task in plan.tasks(self.app)):
            return await self.client.lag(name)
        names = (name, pack_consumer(name))
        broker, stream = self.services.broker, self.app.name
        one, packs = [await broker.consumer_state(stream, each) for each in names]
        return -1 if one is None else one.lag + (0 if packs is None else packs.lag)

    async def stored(self, stream: str | None = None, subject: str = ">") -> list[Stored]:
        """What lies in a stream (default: the app's), in order."""
        broker = self.services.broker
        assert isinstance(broker, JetStream)
        scanner = Scanner(broker.client)
        return [message async for message in scanner.messages(stream or self.app.name, subject)]

    async def messages(self, kind: type[_M]) -> list[_M]:
        """The messages of a type in the app's stream, in order, rows of packs among them."""
        codec = Codec(self.services.store)
        subject, bulk = self.app.subject(kind), self.app.subject(kind, bulk=True)
        found: list[_M] = []
        for raw in await self.stored():
            payloads = [raw.data]
            if row_subject(raw.subject) == subject:
                payloads = raw_rows(raw.data)
            elif not f"{raw.subject}.".startswith((f"{subject}.", f"{bulk}.")):
                continue
            content_type = raw.headers.get(CONTENT_TYPE)
            found += [codec.decode(kind, payload, content_type) for payload in payloads]
        return found

    async def timers(self, stage: str | None = None) -> list[Waiting]:
        """The timers that wait, and the next tick of each schedule; of all stages, or of one."""
        broker = self.services.broker
        assert isinstance(broker, JetStream)
        return await waiting(self.app, Scanner(broker.client), stage)

    async def tick(self, stage: str, at: datetime.datetime | None = None) -> str:
        """Let the clock strike for a stage, whatever its schedule; the id of the tick.

        Args:
            stage: one of `@app.every` or `@app.cron`.
            at: the time of the tick; None is now.
        """
        now = datetime.datetime.now(datetime.UTC) if at is None else at.astimezone(datetime.UTC)
        return await self.client.publish(tick_of(stage)(now), id=tick_id(stage, now))

    async def state(self, stage: str, key: object) -> State | None:
        """What a stage remembers of a key."""
        return await self.client.state(stage, key)

    async def dead(self) -> list[DeadLetter]:
        """The app's dead letters, in order."""
        return [DeadLetter(stored) for stored in await self.stored(f"{self.app.name}-dead")]
