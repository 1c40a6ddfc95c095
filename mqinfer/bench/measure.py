"""Measure: a pipeline as a whole, then each stage alone, at capacity and at half of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mqinfer import plan, wiring
from mqinfer.bench import source
from mqinfer.bench.feed import Feeder, Template
from mqinfer.bench.found import Found, Measured, verdict
from mqinfer.bench.generate import Generator
from mqinfer.bench.machine import own_folder
from mqinfer.bench.pictures import pictures
from mqinfer.bench.windows import Room, Window, quantile
from mqinfer.errors import ConfigurationError
from mqinfer.processors import usable
from mqinfer.settings import Settings

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Message

PROBE = 32  # messages from outside that go through first: models load, outputs become known
PROBE_SECONDS = 120.0
TRIAL = 300  # messages of a stage by which its rate is guessed
QUICK = 10_000.0  # messages a second of a stage that was done with these before anybody looked
LEAST, MOST = 50, 100_000  # messages of a measurement
BYTES = 128 * 1024 * 1024  # of a measurement
SHARE = 0.25  # of the time that the pipeline as a whole gets
BLOCK = 10.0  # seconds that a sink's first block may take
WARM = 8  # messages before the latency is measured: connections are made, models looked at
CAPACITY = 0.6  # of a stage's time
SHORTEST = 1.0  # seconds of a stage
# Settings of the user's that say how fast work is, not where the servers are.
_KEPT = ("blob_timeout", "inline_blob_bytes", "max_pixels", "max_image_bytes")


@dataclass(frozen=True)
class Asked:
    """What to measure.

    Attributes:
        seconds: for all of it, the servers' start not counted.
        stages: stages and sinks; none is all of them that messages feed.
        sample: messages of the live stream to take; 0: none.
        files: JSONL, `FILE` or `TYPE=FILE`.
        pictures: a folder of pictures for generated messages.
        models: the repository that an embedded Triton serves.
        triton: an endpoint to use instead.
    """

    seconds: float = 30.0
    stages: tuple[str, ...] = ()
    sample: int = 0
    files: tuple[str, ...] = ()
    pictures: Path | None = None
    models: Path | None = None
    triton: bool = False


async def measure(
    app: App, settings: Settings, asked: Asked, say: Callable[[str, float], None]
) -> Found:
    """Measure an app's pipeline on servers of its own.

    Args:
        app: the app.
        settings: of the live servers, for samples and their blobs.
        asked: what to measure.
        say: is told what goes on, and how much of it is done, 0 to 1.

    Raises:
        ConfigurationError: no messages can be made or found, a stage is unknown, an extra is
            not installed.
    """
    tasks = [task for task in plan.tasks(app, asked.stages or None) if task.declared]
    names = [task.name for task in tasks if task.clock is None]
    if not names:
        raise ConfigurationError(
            f"nothing to measure: the clock feeds {', '.join(asked.stages or app.stages)}, and no "
            "messages do"
        )
    async with AsyncExitStack() as stack:
        live = given = None
        if asked.sample:
            say("sampling the live stream", 0.0)
            given = await source.sampled(app, settings, asked.sample)
        elif asked.files:
            given = source.from_files(app, asked.files)
        if given is not None:
            live = await source.live_store(app, settings, stack)
        folder = stack.enter_context(own_folder())
        say("starting servers", 0.0)
        own = await _servers(app, settings, asked, folder, stack)
        feeder = await stack.enter_async_context(Feeder(own.nats_url))
        bench = _Bench(Room(app, own, live, feeder), asked, say)
        return await bench.run(names, given, own)


async def _servers(
    app: App, settings: Settings, asked: Asked, folder: Path, stack: AsyncExitStack
) -> Settings:
    """Settings of embedded servers, those that the app needs, which end with `stack`."""
    try:
        from mqinfer.stack import Stack, StackSettings
    except ImportError as error:
        raise ConfigurationError(
            f"the embedded stack is not installed ({error.name}): pip install 'mqinfer[embedded]'"
        ) from error
    embedded = bool(app.models) and not asked.triton
    servers = await stack.enter_async_context(
        Stack(
            StackSettings.free_ports(
                folder / "stack",
                triton=embedded,
                clickhouse=bool(app.rows),
                models=asked.models if embedded else None,
            )
        )
    )
    own = Settings.load(servers.environment())
    kept = {name: getattr(settings, name) for name in _KEPT}
    if asked.triton:
        kept |= {
            name: getattr(settings, name)
            for name in (
                "triton_url",
                "triton_tls_ca",
                "triton_tls_cert",
                "triton_tls_key",
                "triton_headers",
            )
        }
    return replace(own, **kept)


class _Bench:
    """One measurement of all stages."""

    def __init__(self, room: Room, asked: Asked, say: Callable[[str, float], None]):
        self._room = room
        self._asked = asked
        self._say = say
        self._done = 0.0

    async def run(
        self,
        names: Sequence[str],
        given: Mapping[type[Message], Sequence[Template]] | None,
        settings: Settings,
    ) -> Found:
        """Everything in order."""
        room, app = self._room, self._room.app
        text = "generated"
        if given is None:
            given = await self._generated(source.roots(app))
        else:
            text = "sampled" if self._asked.sample else "from files"
        outside = {kind: list(templates) for kind, templates in given.items()}
        each, rate, seconds = await self._whole(outside)
        reason = await room.reason()
        templates = {kind: outside.get(kind) or await room.templates(kind) for kind in app.messages}
        made_up = await self._made_up([kind for kind, found in templates.items() if not found])
        templates |= made_up
        tasks = {task.name: task for task in plan.tasks(app)}
        stages = [
            await self._alone(name, templates[task.reads], each.get(task.reads, 0.0), len(names))
            for name, task in ((name, tasks[name]) for name in names)
        ]
        stages = [_changed(one, reason=reason) if one.dead else one for one in stages]
        stages = await _with_models(settings, stages)
        cores = usable()
        return Found(
            app.name,
            f"{text}: {source.counted(outside)}",
            cores,
            rate,
            seconds,
            stages,
            verdict(stages, rate, cores),
        )

    async def _generated(
        self, kinds: Sequence[type[Message]]
    ) -> dict[type[Message], list[Template]]:
        generator = Generator(pictures(self._asked.pictures))
        found: dict[type[Message], list[Template]] = {}
        for kind in kinds:
            await self._room.publish(
                [generator.message(kind, number) for number in range(source.GENERATED)]
            )
            found[kind] = await self._room.templates(kind)
        await self._room.purge()
        return found

    async def _made_up(self, kinds: Sequence[type[Message]]) -> dict[type[Message], list[Template]]:
        """Messages of types that nothing led to: who reads them is measured all the same."""
        found: dict[type[Message], list[Template]] = {}
        for kind in filter(source.imaginable, kinds):
            with suppress(ConfigurationError):  # what no value is known for is not measured
                found |= await self._generated([kind])
        return found

    async def _whole(
        self, outside: Mapping[type[Message], Sequence[Template]]
    ) -> tuple[dict[type[Message], float], float, float]:
        """All stages in one process.

        Returns:
            how many messages of each type one from outside leads to; how many from outside it
            handles a second; in how many seconds that was seen.
        """
        room, seconds = self._room, self._asked.seconds * SHARE
        self._say("first messages", 0.0)
        tasks = plan.tasks(room.app)
        # What a clock feeds is not part of the flood, and may ask servers that are not the bench's.
        names = [task.name for task in tasks if task.clock is None]
        tasks = [task for task in tasks if task.declared and task.name in names]
        async with room.working(names) as working:
            # The first ones wait for models to load: they say what there is, not how fast.
            await working.until_settled(PROBE_SECONDS, self._feeding(outside, PROBE))
            each = {kind: count / PROBE for kind, count in (await room.stored()).items()}
            busy = [task.name for task in tasks if each.get(task.reads)]
            self._say("the whole pipeline", self._done)
            count, began = PROBE, time.perf_counter()
            while True:
                window = await working.until_settled(seconds, self._feeding(outside, count), busy)
                left = seconds - (time.perf_counter() - began)
                if window.seconds > seconds / 4 or left < seconds / 4:
                    break
                few = [one for templates in outside.values() for one in templates]
                count = _fitting(few, count / window.seconds * left / 2)
        # As far as the stage that is least far has come.
        parts = [
            ((of.done if task.row is None else of.rows) + of.dead) / (each[task.reads] * count)
            for task in tasks
            if each.get(task.reads) and (of := window.stages.get(task.name)) is not None
        ]
        self._done = SHARE
        handled = len(outside) * count * min([*parts, 1.0])
        return each, handled / window.seconds if window.seconds else 0.0, window.seconds

    def _feeding(
        self, outside: Mapping[type[Message], Sequence[Template]], count: int
    ) -> asyncio.Task[None]:
        async def feed() -> None:
            for templates in outside.values():
                await self._room.feed(templates, count)

        return asyncio.create_task(feed())

    async def _alone(
        self, name: str, templates: Sequence[Template], each: float, count: int
    ) -> Measured:
        """One stage, at capacity and at half of it."""
        share = (1 - SHARE) / count
        seconds = max(SHORTEST, self._asked.seconds * share)
        self._say(name, self._done)
        self._done += share
        if not templates:
            return Measured(name, each=each)
        room, most = self._room, seconds * CAPACITY
        # A sink's block is full, or waits for more: less than one would measure the wait.
        sink = name.startswith("sink-")
        # Rows come in packs as the pipeline as a whole wrote them.
        rows = sum(one.rows for one in templates) / len(templates)
        trial = _fitting(templates, plan.SINK_BATCH / rows) if sink else TRIAL
        await room.purge()
        await room.feed(templates, trial)
        async with room.working([name]) as working:
            window = await working.until_done(name, trial, max(seconds, BLOCK if sink else 0.0))
            if not sink and window.seconds < most / 2:
                count = _fitting(templates, (window.rate(name) or QUICK) * most)
                feeding = asyncio.create_task(room.feed(templates, count))
                try:
                    window = await working.until_done(name, trial + count, most)
                finally:
                    await feeding
        found = _measured(name, window, each, rows)
        if found.rate <= 0:
            return found
        pace = window.rate(name) / 2
        paced = max(1, int(pace * seconds * (1 - CAPACITY)))
        await room.purge()
        await room.feed(templates, WARM)
        # A worker of its own: the one before may have taken more than it handled.
        async with room.working([name]) as working:
            await working.until_done(name, WARM, 4 * seconds + 10)
            feeding = asyncio.create_task(room.feed(templates, paced, pace))
            try:
                half = await working.until_done(name, WARM + paced, 4 * seconds + 10)
            finally:
                await feeding
        p50, p99 = quantile(half.ages[name], 0.5), quantile(half.ages[name], 0.99)
        return _changed(found, p50=p50, p99=p99)


def _fitting(templates: Sequence[Template], wanted: float) -> int:
    """How many messages to publish: enough, and not more than is sensible."""
    size = sum(len(one.payload) for one in templates) / max(len(templates), 1)
    return max(LEAST, min(int(wanted), MOST, int(BYTES / max(size, 1))))


def _measured(name: str, window: Window, each: float, rows: float) -> Measured:
    """What a window says of a stage, whose messages hold so many rows each (1: is a message)."""
    of, seconds = window.stages[name], window.seconds or 1.0
    found = Measured(
        name,
        rate=window.rate(name) * rows,
        each=each,
        handled=round(of.done * rows),
        seconds=window.seconds,
        inserting=min(1.0, of.inserting / seconds),
        waiting=of.waiting,
        loop=window.loop / seconds,
        own=of.own / seconds,
        threads=max(0.0, window.process - window.loop) / seconds,
        machine=window.machine,
        dead=of.dead,
    )
    if name.startswith("sink-") or of.handling <= 0:
        return found
    code = min(1.0, (of.own + of.threads) / of.handling)
    models = min(1.0 - code, sum(of.models.values()) / of.handling)
    publishing = min(1.0 - code - models, max(0.0, 1 - of.wall / of.handling))
    most = max(of.models, key=of.models.__getitem__, default="")
    return _changed(
        found,
        code=code,
        models=models,
        publishing=publishing,
        other=max(0.0, 1 - code - models - publishing),
        model=most,
        batch=window.batches.get(most, 0.0),
    )


def _changed(found: Measured, **values: object) -> Measured:
    return msgspec.structs.replace(found, **values)


async def _with_models(settings: Settings, stages: Sequence[Measured]) -> list[Measured]:
    """The stages, with what the server says of the models that they wait for."""
    if not any(stage.model for stage in stages):
        return list(stages)
    server = wiring.triton(settings)
    try:
        infos = {
            name: await server.describe(name)
            for name in {stage.model for stage in stages if stage.model}
        }
    finally:
        await server.close()
    return [
        _changed(
            stage,
            instances=infos[stage.model].instances,
            max_batch=infos[stage.model].max_batch_size,
        )
        if stage.model in infos
        else stage
        for stage in stages
    ]
