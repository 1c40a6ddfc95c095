"""stage_loop: messages a second through one stage, beside the hand-written limit and the rivals.

Each contender drains a queue that was filled before, in a process of its own. Repetitions alternate
between the contenders, so that a noisy machine is noisy for all. After each the outputs are read:
every message, no duplicates.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from math import nan

import msgspec
from msgspec import Struct

from benchmarks.brokers import Broker, RabbitServer, RedisServer
from benchmarks.contenders import Drained, Job, payload, taskiq_nats
from benchmarks.debian import NotProvidedError
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters import admin
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.identity import header_block
from mqinfer.ports import StreamSpec
from mqinfer.testing import nats_only

# Of the hand-written best on nats-py's public API; two processes of one; times FastStream; times
# the better Celery.
OF_HANDWRITTEN, TWO_OF_ONE, TIMES_FASTSTREAM, TIMES_CELERY = 0.95, 1.3, 9.0, 40.0

SIZES = (("200 B", 200, 100_000), ("10 KB", 10_000, 10_000))  # name, bytes, messages
_LIMIT = 300.0  # seconds for one contender
_NUMBER = re.compile(rb'"n": ?(\d+)')


class Contender(Struct, frozen=True):
    """One row.

    Attributes:
        name: of the row.
        module: in `benchmarks.contenders`.
        needs: the module that it cannot do without.
        loop: "asyncio" or "uvloop".
        processes: that share the work.
        most: messages in one repetition: the slow get fewer, their rate is what counts.
        broker: "nats", "redis" or "rabbitmq".
        payload: makes an input of its number and size.
    """

    name: str
    module: str
    needs: str = "nats"
    loop: str = "asyncio"
    processes: int = 1
    most: int = 100_000
    broker: str = "nats"
    payload: Callable[[int, int], bytes] = payload


# Those that are compared come one after the other: the machine is in the same mood for both.
CONTENDERS = (
    Contender("hand-written", "handwritten"),
    Contender("mqinfer", "mqinfer_"),
    Contender("hand-written, uvloop", "handwritten", needs="uvloop", loop="uvloop"),
    Contender("mqinfer, uvloop", "mqinfer_", needs="uvloop", loop="uvloop"),
    Contender("mqinfer, 2 processes", "mqinfer_", processes=2),
    Contender(
        "mqinfer, uvloop, 2 processes", "mqinfer_", needs="uvloop", loop="uvloop", processes=2
    ),
    Contender("FastStream PullSub", "faststream", needs="faststream", most=10_000),
    Contender(
        "taskiq-nats", "taskiq_nats", needs="taskiq_nats", most=8_000, payload=taskiq_nats.payload
    ),
    Contender("naive", "naive", most=3_000),
    Contender(
        "Celery on Redis", "celery_", needs="celery", processes=2, most=2_000, broker="redis"
    ),
    Contender(
        "Celery on RabbitMQ", "celery_", needs="celery", processes=2, most=2_000, broker="rabbitmq"
    ),
)

NOTES = (
    "All acknowledge an input after its output is stored, and store on disk: JetStream R1 file "
    "storage; Redis with appendonly yes, appendfsync everysec; RabbitMQ with durable classic "
    "queues, persistent messages and publisher confirms.",
    "Goals compare rows of 200 B on asyncio unless they say otherwise, as the median of the ratios "
    "within a repetition. "
    "Processor time is that of the contender's own processes, without the broker.",
    "The hand-written loop sends on the bytes it gets; mqinfer decodes, validates, and adds "
    "identity, lineage, metrics and the pulse. Both have up to 2,048 messages in flight.",
    "FastStream: PullSub(batch_size=100), one worker (faster than 10 or 100), a pydantic model, "
    "no_reply, NACK_ON_ERROR. taskiq: PullBasedJetStreamBroker(pull_consume_batch=100), 100 tasks "
    "at a time, a pydantic model.",
    "Celery: acks_late, prefetch multiplier 128, prefork with 2 processes, no results, events, "
    "gossip or mingle; its output is a task sent to another queue under an id of the input.",
)


async def measure(options: Options) -> Result:
    """Measure every row, both sizes."""
    notes = list(NOTES)
    wanted = []
    for contender in CONTENDERS:
        if not options.wants(contender.name):
            continue
        if importlib.util.find_spec(contender.needs) is None:
            notes.append(f"{contender.name} left out: pip install 'mqinfer[bench]'")
            continue
        wanted.append(contender)
    async with AsyncExitStack() as stack:
        settings = await stack.enter_async_context(nats_only(options.folder / "nats"))
        jetstream = await stack.enter_async_context(JetStream(settings, name="bench"))
        urls = {"nats": settings.nats_url}
        for name, make in (("redis", RedisServer.make), ("rabbitmq", RabbitServer.make)):
            if not any(contender.broker == name for contender in wanted):
                continue
            options.say(f"starting {name}")
            try:
                server: Broker = await make((options.folder / name).absolute())
            except NotProvidedError as error:
                notes.append(f"Celery on {name} left out: {error}")
                wanted = [contender for contender in wanted if contender.broker != name]
                continue
            stack.push_async_callback(server.stop)
            await server.start()
            await server.wait_ready()
            urls[name] = server.url
        samples, failures = await _measure(options, jetstream, urls, wanted)
    notes += [f"{name} left out, it failed: {why}" for name, why in failures.items()]
    rows = [
        Row(
            contender.name,
            {
                heading: Figure(tuple(samples[contender.name, heading]), unit)
                for size, _, _ in SIZES
                for heading, unit in _headings(size)
            },
        )
        for contender in wanted
        if contender.name not in failures
    ]
    title = "consume, handle, publish with an id, acknowledge: " + " and ".join(
        f"{options.amount(count):,} x {name}" for name, _, count in SIZES
    )
    chart = _headings(SIZES[0][0])[0][0]
    return Result("stage_loop", title, rows, _goals(rows), notes, chart)


def _headings(size: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"{size}, messages/s", "messages/s"), (f"{size}, processor µs", "µs")


def _goals(rows: list[Row]) -> list[Goal]:
    figures = {row.name: row.figures for row in rows}

    def times(one: str, *others: str, size: str = SIZES[0][0]) -> float:
        """How many times the best of the others; NaN if there is none."""
        heading = _headings(size)[0][0]
        found = [
            figures[one][heading].times(figures[other][heading])
            for other in others
            if one in figures and other in figures
        ]
        return min(found, default=nan)

    by_hand = [
        Goal(
            f"of the hand-written loop{loop}, {size}",
            times(f"mqinfer{loop}", f"hand-written{loop}", size=size),
            OF_HANDWRITTEN,
        )
        for loop in ("", ", uvloop")
        for size, _, _ in SIZES
    ]
    return [
        *by_hand,
        Goal(
            "of one process, two processes (where the server has room)",
            times("mqinfer, 2 processes", "mqinfer"),
            TWO_OF_ONE,
        ),
        Goal("times FastStream", times("mqinfer", "FastStream PullSub"), TIMES_FASTSTREAM),
        Goal(
            "times Celery, the better of the two",
            times("mqinfer", "Celery on Redis", "Celery on RabbitMQ"),
            TIMES_CELERY,
        ),
    ]


async def _measure(
    options: Options,
    jetstream: JetStream,
    urls: dict[str, str],
    contenders: Iterable[Contender],
) -> tuple[dict[tuple[str, str], list[float]], dict[str, str]]:
    """Every repetition of every row, by its name and heading; and why rivals failed, by name."""
    samples: dict[tuple[str, str], list[float]] = {}
    failures: dict[str, str] = {}
    for size, length, full in SIZES:
        (rate, _), (processor, _) = _headings(size)
        for repetition in range(options.repeat):
            for contender in contenders:
                if contender.name in failures:
                    continue
                options.say(f"{size}: {contender.name} ({repetition + 1} of {options.repeat})")
                job = Job(
                    contender.module,
                    urls[contender.broker],
                    f"{contender.module}-{contenders.index(contender)}",
                    min(options.amount(full), options.amount(contender.most)),
                    length,
                    contender.loop,
                    contender.processes,
                )
                try:
                    drained = await _contend(jetstream, contender, job)
                except (RuntimeError, TimeoutError) as error:
                    if contender.module in ("mqinfer_", "handwritten"):
                        raise
                    failures[contender.name] = str(error) or f"not done in {_LIMIT:g} s"
                    continue
                samples.setdefault((contender.name, rate), []).append(
                    drained.messages / drained.wall
                )
                samples.setdefault((contender.name, processor), []).append(
                    1e6 * drained.cpu / drained.messages
                )
    return samples, failures


async def _contend(jetstream: JetStream, contender: Contender, job: Job) -> Drained:
    """Let one contender do one job, and check what came out."""
    if contender.broker != "nats":
        drained = await _run(job)
        _check(contender.name, job.messages, drained.outputs or [])
        return drained
    await _fill(jetstream, job, contender.payload)
    try:
        drained = await _run(job)
        scan = Scanner(jetstream.client).messages(job.stream, f"{job.stream}.out")
        _check(contender.name, job.messages, [_number(stored.data) async for stored in scan])
    finally:
        for stream in (job.stream, f"{job.stream}-dead"):
            with contextlib.suppress(admin.JetStreamError):  # only mqinfer makes a second one
                await admin.ask(jetstream.client, f"STREAM.DELETE.{stream}", None, stream)
    return drained


def _number(data: bytes) -> int:
    found = _NUMBER.search(data)
    return -1 if found is None else int(found[1])


def _check(name: str, messages: int, outputs: list[int]) -> None:
    """Every message has one output.

    Raises:
        RuntimeError: it has not.
    """
    if sorted(outputs) != list(range(messages)):
        raise RuntimeError(
            f"{name}: of {messages} messages {len(set(outputs))} came out, "
            f"{len(outputs) - len(set(outputs))} of them again"
        )


async def _fill(jetstream: JetStream, job: Job, make: Callable[[int, int], bytes]) -> None:
    """Fill the stream that a contender drains."""
    await jetstream.ensure_stream(
        StreamSpec(name=job.stream, subjects=(f"{job.stream}.>",), max_age=604800)
    )
    left, stored = job.messages, asyncio.get_running_loop().create_future()

    def answered(error: Exception | None, _repeat: bool) -> None:
        nonlocal left
        left -= 1
        if not stored.done() and (error is not None or left == 0):
            stored.set_exception(error) if error else stored.set_result(None)

    for number in range(job.messages):
        if jetstream.full:
            await jetstream.room()
        header = header_block({"Nats-Msg-Id": f"in-{number}"})
        jetstream.publish(f"{job.stream}.in", header, make(number, job.size), answered)
    async with asyncio.timeout(_LIMIT):
        await stored


async def _run(job: Job) -> Drained:
    """Run a contender in a process of its own.

    Raises:
        RuntimeError: it failed; the text is the end of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.contenders",
        msgspec.json.encode(job).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_LIMIT):
            out, err = await process.communicate()
    finally:
        # It may have started others.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        raise RuntimeError(f"{job.contender}: {err.decode(errors='replace')[-2000:]}")
    return msgspec.json.decode(out, type=Drained)
