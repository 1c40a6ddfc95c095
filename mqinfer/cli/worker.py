"""`mqinfer worker`: runs stages and table sinks until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer import signals
from mqinfer.cli import options
from mqinfer.cli.child import bind_to_supervisor, supervised
from mqinfer.cli.deadline import Deadline, leave
from mqinfer.cli.errors import ExitCode, find
from mqinfer.cli.load import load_app
from mqinfer.cli.share import Share
from mqinfer.errors import ConfigurationError, HandlerHangs
from mqinfer.supervise.group import Group
from mqinfer.supervise.scaling import Bounds, parse_processes, parse_scale
from mqinfer.times import parse_size

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.running import Worker
    from mqinfer.settings import Settings

# A second signal cancels the handlers; what does not heed that ends after this many seconds.
_ABORT_SECONDS = 5.0
_CANCEL_AGAIN = 0.1
_NICE = 10  # of a process that works on a run alone


def worker(
    app: options.AppName,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", "-s", metavar="NAME", help="Only this stage (or sink-<table>); repeatable."
        ),
    ] = None,
    processes: Annotated[
        str,
        typer.Option(
            "--processes",
            "-p",
            metavar="N|N..M",
            help="How many, or as many as the backlog needs; crashed ones start again.",
        ),
    ] = "1",
    scale: Annotated[
        str,
        typer.Option(
            metavar="RULES",
            help="Of N..M: target=30s (to be done in), backlog=1000 (a process), cooldown=1m.",
        ),
    ] = "",
    max_messages: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="A process ends in order after so many; another begins."
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="A process ends in order above that, such as 2GB; another begins."
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Begin anew when code changes (extra reload).")
    ] = False,
    drain: Annotated[bool, typer.Option("--drain", help="End when nothing is left to do.")] = False,
    run: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Work on this replay run until it is done."),
    ] = None,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Fail when a server is away at the start: wait for none."),
    ] = False,
    http: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve /healthz, /readyz and /metrics; process i takes PORT+i.",
        ),
    ] = None,
    http_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --http listens.")
    ] = "127.0.0.1",
    nats_url: options.NatsUrl = None,
    triton_url: options.TritonUrl = None,
    clickhouse_url: options.ClickHouseUrl = None,
    blobs: options.Blobs = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
) -> None:
    r"""Run stages, and the sinks of tables, until SIGTERM or Ctrl-C.

    Makes the stream, consumers and tables that it needs, and waits for a server that is away. The
    first signal, whenever it comes, stops it in order (finish, publish, acknowledge, hand back the
    rest) with exit code 0; a second one aborts.

    \b
      mqinfer worker plants:app                       all stages and sinks
      mqinfer worker plants:app --reload              while you work on it
      mqinfer worker plants:app -s crop -p 4          four processes for one stage
      mqinfer worker plants:app -p 1..8               as many as the backlog needs
      mqinfer worker plants:app -s sink-disease_grade
      mqinfer worker plants:app --drain --http 9000   end when all is done
      mqinfer worker plants:app --run may             go on with a replay, or help it
    """
    bind_to_supervisor()
    bounds = parse_scale(scale, *_processes(processes))
    share = Share(max_messages, None if max_memory is None else parse_size(max_memory))
    flags = {
        "nats_url": nats_url,
        "triton_url": triton_url,
        "clickhouse_url": clickhouse_url,
        "blobs": blobs,
        "log_level": log_level,
        "log_format": log_format,
    }
    settings = options.load_settings(**flags)
    if reload and not supervised():
        if drain or run is not None or bounds.scales:
            raise ConfigurationError(
                "--reload goes on until it is told to stop, with one number of processes: leave "
                "out --drain, --run and N..M"
            )
        options.configure_logs(settings)
        group = _group(app, stage, bounds, share, flags, http=http, http_host=http_host)
        raise typer.Exit(_reloading(group, settings))
    loaded = load_app(app)
    _check(loaded, stage)
    if run is not None and (stage or drain):
        raise ConfigurationError(
            "--run takes the stages of the run and ends with it: leave out --stage and --drain"
        )
    if bounds.scales and (drain or run is not None):
        raise ConfigurationError(
            f"--processes {processes} follows a backlog: --drain and --run take one number"
        )
    options.configure_logs(settings)

    def make() -> Worker:
        from mqinfer.running import Worker

        return Worker(
            loaded, stages=stage, settings=settings, drain=drain, run=run, wait=not no_wait
        )

    if not supervised() and (bounds.most > 1 or share):
        from mqinfer import plan
        from mqinfer.cli.looks import Looks
        from mqinfer.cli.processes import Supervisor

        if no_wait:
            asyncio.run(make().reach())  # a child that failed would be started again
        group = replace(
            _group(app, stage, bounds, share, flags, http=http, http_host=http_host),
            stages=tuple(task.name for task in plan.tasks(loaded, stage)),
            consumers=plan.backlog(loaded, stage),
        )
        also = ["--drain"] if drain else []
        also += [] if run is None else [f"--run={run}"]
        group = replace(group, arguments=(*group.arguments, *also))
        looks = Looks(loaded, settings, [group]) if bounds.scales else None
        raise typer.Exit(Supervisor([group], grace=settings.grace, looks=looks).run())
    if run is not None:
        yield_cpu()
    listen = None if http is None else (http_host, http)

    async def work() -> int:
        return await run_worker(make(), listen, share)

    signals.hold()
    raise typer.Exit(run_loop(settings, work))


def _group(
    app: str,
    stages: list[str] | None,
    bounds: Bounds,
    share: Share,
    flags: dict[str, str | None],
    *,
    http: int | None,
    http_host: str,
) -> Group:
    """Processes that run `worker` as this one was told to."""
    arguments = ["worker", app, *(f"--stage={name}" for name in stages or ())]
    if http is not None:
        arguments.append(f"--http-host={http_host}")
    environ = {f"MQINFER_{name.upper()}": value for name, value in flags.items() if value}
    return Group(
        "",
        (*arguments, *share.arguments()),
        bounds,
        http=http,
        environ=tuple(environ.items()),
    )


def _reloading(group: Group, settings: Settings) -> int:
    """Run processes that begin anew when code changes; the exit code."""
    from mqinfer.cli.everywhere import app_dir
    from mqinfer.cli.processes import Supervisor
    from mqinfer.cli.reload import Reload

    reload = Reload(replace(group, alone=True), app_dir())
    with reload.watching():
        return Supervisor([reload.group], grace=settings.grace, changed=reload.changed).run()


def _processes(text: str) -> tuple[int, int]:
    try:
        return parse_processes(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"--processes: {error}") from None


def yield_cpu() -> None:
    """Let live workers on this host go first: lower this process's priority, where there is one."""
    if hasattr(os, "setpriority"):  # POSIX
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, _NICE))


def _check(app: App, stages: list[str] | None) -> None:
    """Refuse wrong wiring and unknown stages before anything is connected or started.

    Raises:
        ConfigurationError: the first problem.
    """
    from mqinfer import plan

    plan.tasks(app, stages)


async def run_worker(
    running: Worker, listen: tuple[str, int] | None = None, share: Share | None = None
) -> int:
    """Run a worker until it ends or is told to by a signal; its exit code.

    Args:
        running: a worker that was not started.
        listen: where to serve HTTP beside it.
        share: after which it ends in order, to begin anew.
    """
    from mqinfer.collector import tune_collector

    tune_collector()
    work = asyncio.ensure_future(running.run())
    aborted = False

    main = asyncio.current_task()

    def cancel_all() -> None:
        # A runner that is cancelled still gives its handlers grace, which a second cancel ends.
        for task in asyncio.all_tasks():
            if task is not main:
                task.cancel()
        if not work.done():
            asyncio.get_running_loop().call_later(_CANCEL_AGAIN, cancel_all)

    def abort() -> None:
        nonlocal aborted
        if aborted:
            os._exit(ExitCode.INTERRUPTED)
        aborted = True
        cancel_all()
        # A handler that blocks the loop or a thread would keep the process for ever.
        timer = threading.Timer(_ABORT_SECONDS, os._exit, (ExitCode.INTERRUPTED,))
        timer.daemon = True
        timer.start()

    deadline = Deadline(running.settings.grace, running.blocked)
    try:
        with deadline.kept(), signals.handed_to(running.stop, abort, deadline.begin):
            async with share.watched(running) if share else contextlib.nullcontext():
                if listen is None:
                    await work
                else:
                    await _beside_http(running, work, *listen)
    except asyncio.CancelledError:
        if not aborted:
            raise
        return ExitCode.INTERRUPTED
    except Exception as error:
        if hangs := find(error, HandlerHangs):
            leave(str(hangs))  # asyncio would wait for the handler before the process ends
        raise
    return ExitCode.AGAIN if share and share.had else ExitCode.DONE


async def _beside_http(running: Worker, work: asyncio.Future[None], host: str, port: int) -> None:
    import structlog

    from mqinfer.http import serve_http

    log = structlog.get_logger("mqinfer.worker")

    def metrics() -> bytes:
        # There are none before the worker has opened its connections.
        services = getattr(running, "services", None)
        return b"" if services is None else bytes(services.metrics.render())

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(
            serve_http(
                port,
                host=host,
                live=running.stuck,
                ready=running.not_ready,
                metrics=metrics,
                started=lambda taken: log.info("serving HTTP", url=f"http://{host}:{taken}"),
            ),
            name="http",
        )
        await work
        serving.cancel()


def run_loop(
    settings: Settings, main: Callable[[], Coroutine[Any, Any, int]], *, best: str = "asyncio"
) -> int:
    """Run `main` on the event loop that the settings name.

    Args:
        settings: that may leave the choice to us.
        main: what to run.
        best: "asyncio", or "uvloop", which is taken where it is installed.

    Raises:
        ConfigurationError: it is not installed.
    """
    wanted = best if settings.loop == "auto" else settings.loop
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    installed = importlib.util.find_spec("uvloop") is not None
    if settings.loop == "uvloop" and not installed:
        raise ConfigurationError(
            "MQINFER_LOOP is uvloop, which is not installed: pip install 'mqinfer[uvloop]'"
        )
    if installed and wanted == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
