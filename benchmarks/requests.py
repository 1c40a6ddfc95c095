"""requests: one tiny model asked by HTTP, behind mqinfer and behind what one would use instead.

Each contender is started anew for each repetition, alone with the servers that it needs, and asked
by a generator in a process of its own: by one client that waits for each answer, then by 64.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import nan
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from benchmarks import asking, load, tiny
from benchmarks.asking import Measured, Plan
from benchmarks.brokers import RedisServer
from benchmarks.debian import NotProvidedError
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.settings import Settings
from mqinfer.stack.ports import free_port

LONE, CLIENTS, SECONDS = 300, 64, 2.5
ABOVE_MS, TIMES_CELERY, TIMES_LITSERVE = 4.0, 5.0, 1.0
_READY = 60.0  # seconds until the first answer
_END = 10.0  # seconds to end in, when asked to

_ANSWER = r'"y": ?(-?[0-9.]+)'
_SIMPLE = Plan((), "/predict", '{"x": %d}', answer=_ANSWER)
_ENDPOINT = Plan((), "/v1/endpoints/affine/requests", '{"input": {"x": %d}}', status=202)
_WAITED = msgspec.structs.replace(
    _ENDPOINT, status=200, answer=_ANSWER, headers={"prefer": "wait=30"}
)

Commands = Callable[[Sequence[int]], list[list[str]]]


class Contender(Struct, frozen=True):
    """One row.

    Attributes:
        name: of the row.
        needs: the module that it cannot do without.
        plan: of what it is asked.
        commands: that serve on these ports, each what follows `python -m`.
        ports: that it serves on.
        idle: whether it is asked by a single client as well.
        most: repetitions.
    """

    name: str
    needs: str
    plan: Plan
    commands: Commands
    ports: int = 1
    idle: bool = True
    most: int = 1_000


def _uvicorn(app: str, port: int, workers: int) -> list[str]:
    command = ["uvicorn", f"benchmarks.answering.{app}:app", "--port", str(port)]
    command += ["--log-level", "warning", "--no-access-log"]
    return [*command, "--workers", str(workers)] if workers > 1 else command


def _celery(port: int, workers: int) -> list[list[str]]:
    worker = ["celery", "-A", "benchmarks.answering.celery_tasks", "worker", "--pool=prefork"]
    worker += ["--concurrency=2", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
    return [worker, _uvicorn("fastapi_celery", port, workers)]


def _mqinfer(ports: Sequence[int]) -> list[list[str]]:
    gateways = [
        ["mqinfer", "gateway", "benchmarks.apps:asked", "--http", str(port)] for port in ports
    ]
    return [["mqinfer", "worker", "benchmarks.apps:asked"], *gateways]


def _litserve(port: int, servers: int) -> list[list[str]]:
    return [["benchmarks.answering.litserve_", str(port), str(servers)]]


def _bentoml(ports: Sequence[int]) -> list[list[str]]:
    command = ["bentoml", "serve", "benchmarks.answering.bentoml_:Affine"]
    return [[*command, "--host", "127.0.0.1", "--port", str(ports[0])]]


DIRECT, OURS, CELERY, LITSERVE = (
    "Starlette, Triton called directly",
    "mqinfer, durable",
    "FastAPI, Celery, Redis",
    "LitServe",
)
CONTENDERS = (
    Contender(DIRECT, "uvicorn", _SIMPLE, lambda ports: [_uvicorn("starlette_", ports[0], 1)]),
    Contender(OURS, "jsonschema_rs", _WAITED, _mqinfer),
    Contender(LITSERVE, "litserve", _SIMPLE, lambda ports: _litserve(ports[0], 1)),
    Contender(
        "BentoML",
        "bentoml",
        Plan((), "/predict", '{"x": [[%d]]}', answer=r"\[\[(-?[0-9.]+)"),
        _bentoml,
    ),
    Contender(CELERY, "fastapi", _SIMPLE, lambda ports: _celery(ports[0], 1)),
    Contender(f"{OURS}, accepted: 202", "jsonschema_rs", _ENDPOINT, _mqinfer, idle=False),
    *(
        Contender(f"{name}, 2 processes for HTTP", needs, plan, commands, ports, False, 1)
        for name, needs, plan, commands, ports in (
            (DIRECT, "uvicorn", _SIMPLE, lambda ports: [_uvicorn("starlette_", ports[0], 2)], 1),
            (OURS, "jsonschema_rs", _WAITED, _mqinfer, 2),
            (LITSERVE, "litserve", _SIMPLE, lambda ports: _litserve(ports[0], 2), 1),
            (CELERY, "fastapi", _SIMPLE, lambda ports: _celery(ports[0], 2), 1),
        )
    ),
)

NOTES = (
    f"Alone: one client, which asks again when it is answered. Requests a second: {CLIENTS} such "
    "clients, connections kept alive; every answer is checked. Processor: of all processes but the "
    "generator's, servers included, for a request of those.",
    "One process for HTTP each, as uvicorn has it without `--workers`; with two, measured once, "
    "two cores are shared by more. mqinfer: two gateways, half of the clients at each.",
    "mqinfer: a gateway and a worker; a request is stored before anything else is done, and so "
    "are its answer and its end. `Prefer: wait=30`; where it is accepted only, the work goes on.",
    "Celery: a worker with two processes, acks_late, prefetch multiplier 128; Redis with "
    "appendonly yes, appendfsync everysec; the result is waited for in one of 64 threads.",
    "LitServe and BentoML: batches of up to 64, ONNX Runtime in their own worker, of one thread. "
    "They keep nothing: what is under way when one ends is lost. Nor does Starlette.",
)


class _Sample(Struct, frozen=True):
    """One repetition of a row."""

    idle: Measured | None
    busy: Measured
    processor: float


async def measure(options: Options) -> Result:
    """The contenders in turns."""
    notes = list(NOTES)
    wanted = []
    for contender in CONTENDERS:
        if not options.wants(contender.name):
            continue
        if importlib.util.find_spec(contender.needs) is None:
            notes.append(f"{contender.name} left out: pip install {contender.needs}")
        else:
            wanted.append(contender)
    models = options.folder / "models"
    await asyncio.to_thread(tiny.build_repository, models)
    samples: dict[str, list[_Sample]] = {}
    async with AsyncExitStack() as stack:
        settings, _ = await stack.enter_async_context(
            load.servers(
                options.folder / "stack", triton=True, models=models, triton_control="none"
            )
        )
        environ = {
            "BENCH_TRITON": settings.triton_url,
            "BENCH_MODEL": str((models / tiny.NAME / "1" / "model.onnx").absolute()),
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str((options.folder / "bentoml").absolute()),
        }
        if any(contender.name.startswith(CELERY) for contender in wanted):
            try:
                environ["BENCH_BROKER"] = await _redis(options, stack)
            except NotProvidedError as error:
                notes.append(f"{CELERY} left out: {error}")
                wanted = [one for one in wanted if not one.name.startswith(CELERY)]
        for repetition in range(options.repeat):
            for contender in wanted:
                if repetition >= contender.most:
                    continue
                try:
                    sample = await _contend(options, settings, environ, contender, repetition)
                except (RuntimeError, OSError, TimeoutError) as error:
                    if contender.name.startswith(OURS):
                        raise
                    why = str(error).strip().splitlines() or [type(error).__name__]
                    notes.append(f"{contender.name} left out, it failed: {why[-1][-300:]}")
                    wanted = [one for one in wanted if one is not contender]
                    samples.pop(contender.name, None)
                    continue
                samples.setdefault(contender.name, []).append(sample)
                options.say(f"{contender.name}: {sample.busy.rate:,.0f} requests/s")
    return Result(
        "requests",
        "y = 2 x + 1 asked by HTTP",
        [Row(name, _figures(found)) for name, found in samples.items()],
        _goals(samples),
        notes,
        chart="requests/s",
    )


async def _redis(options: Options, stack: AsyncExitStack) -> str:
    """Start Redis; its address.

    Raises:
        NotProvidedError: there is none, and it cannot be fetched.
    """
    redis = await RedisServer.make((options.folder / "redis").absolute())
    stack.push_async_callback(redis.stop)
    await redis.start()
    await redis.wait_ready()
    return redis.url


def _figures(samples: Sequence[_Sample]) -> dict[str, Figure]:
    idle = [sample.idle for sample in samples if sample.idle is not None]
    found = {}
    if idle:
        found["alone p50"] = Figure(tuple(one.p50 for one in idle), "ms")
        found["alone p99"] = Figure(tuple(one.p99 for one in idle), "ms")
    found["requests/s"] = Figure(tuple(one.busy.rate for one in samples), "requests/s")
    found[f"p99 of {CLIENTS}"] = Figure(tuple(one.busy.p99 for one in samples), "ms")
    found["processor"] = Figure(tuple(one.processor for one in samples), "ms")
    return found


def _goals(samples: Mapping[str, Sequence[_Sample]]) -> list[Goal]:
    def rate(name: str) -> Figure | None:
        return _figures(samples[name])["requests/s"] if name in samples else None

    ours, celery, litserve = rate(OURS), rate(CELERY), rate(LITSERVE)
    above = nan
    if OURS in samples and DIRECT in samples:
        pairs = zip(samples[OURS], samples[DIRECT], strict=True)
        above = median(_idle(a).p50 - _idle(b).p50 for a, b in pairs)
    return [
        Goal("ms above the direct call, alone, p50", above, ABOVE_MS, at_most=True),
        Goal(
            "times the requests a second of FastAPI with Celery",
            ours.times(celery) if ours and celery else nan,
            TIMES_CELERY,
        ),
        Goal(
            "times those of LitServe, which keeps nothing",
            ours.times(litserve) if ours and litserve else nan,
            TIMES_LITSERVE,
        ),
    ]


def _idle(sample: _Sample) -> Measured:
    assert sample.idle is not None
    return sample.idle


async def _contend(
    options: Options,
    settings: Settings,
    environ: Mapping[str, str],
    contender: Contender,
    repetition: int,
) -> _Sample:
    """Start a contender, ask it, and end it."""
    name = f"asked-{CONTENDERS.index(contender)}-{repetition}"
    ports = tuple(free_port() for _ in range(contender.ports))
    log = options.folder / f"{name}.log"
    plan = msgspec.structs.replace(
        contender.plan,
        ports=ports,
        clients=CLIENTS,
        lead=contender.plan.lead * max(0.2, min(1.0, options.scale)),
        seconds=max(0.5, SECONDS * options.scale),
    )
    lone = msgspec.structs.replace(
        plan, clients=1, lead=0.2, seconds=30.0, most=options.amount(LONE, least=30)
    )
    environ = {**load.environ(settings, name), **environ}
    async with _serving(log, contender.commands(ports), environ):
        for port in ports:
            await _ready(msgspec.structs.replace(lone, ports=(port,), lead=0.0, most=1), log)
        idle = await _ask(options, lone) if contender.idle else None
        before = load.processor()
        busy = await _ask(options, plan)
        processor = 1e3 * (load.processor() - before) / busy.asked
    return _Sample(idle, busy, processor)


async def _ask(options: Options, plan: Plan) -> Measured:
    """Run the generator."""
    log = options.folder / "asking.log"
    arguments = ("benchmarks.asking", msgspec.json.encode(plan).decode())
    async with load.process(log, *arguments) as generator:
        async with asyncio.timeout(120):
            await generator.process.wait()
        generator.check()
    return msgspec.json.decode(log.read_bytes().splitlines()[-1], type=Measured)


async def _ready(plan: Plan, log: Path) -> None:
    """Return once it gives a right answer.

    Raises:
        RuntimeError: it does not in time; the text is the end of what it printed.
    """
    until = time.monotonic() + _READY
    while True:
        try:
            await asking.ask(plan)
        except (RuntimeError, OSError) as error:
            if time.monotonic() > until:
                raise RuntimeError(f"{error}; {_tail(log)}") from None
        else:
            return
        await asyncio.sleep(0.1)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:]


@asynccontextmanager
async def _serving(
    log: Path, commands: Sequence[Sequence[str]], environ: Mapping[str, str]
) -> AsyncIterator[None]:
    """Run `python -m <command>` for each, and end them with all that they started."""
    running = []
    try:
        with log.open("ab") as output:
            for command in commands:
                running.append(  # noqa: PERF401 - of those that run, should the next one not start
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", *command),
                        cwd=load.ROOT,
                        env={**os.environ, **environ},
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
        yield
        for process, command in zip(running, commands, strict=True):
            if process.returncode is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}: {_tail(log)}")
    finally:
        await asyncio.gather(*map(_end, running))


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process in order, and then whatever is left of its session."""
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
