"""`mqinfer replay`: a stretch of the stream through one stage again, beside the live one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import options
from mqinfer.cli.errors import ExitCode
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json
from mqinfer.cli.served import asked_triton
from mqinfer.cli.worker import run_loop, run_worker, yield_cpu
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.times import parse_time

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Wanted
    from mqinfer.settings import Settings

_LOOK = 0.5
_FORCED = "starts the run all the same: it waits for it"
_LINE = 5.0  # seconds between two lines where there is no terminal


def replay(
    app: options.AppName,
    stage: Annotated[str, typer.Option("--stage", "-s", metavar="NAME", help="To replay.")],
    *,
    from_seq: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="First sequence in the stream.")
    ] = None,
    to_seq: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Last sequence; default the last there is now."),
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only messages with this key.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run; default one made of the time.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VERSION", help="Answer with this version (or @ALIAS now) in this run."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="Most messages a second in each process.")
    ] = None,
    share: Annotated[
        float, typer.Option(metavar="F", help="Of each model's slots in Triton, in each process.")
    ] = 1.0,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="Take the stages that follow along.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start with versions that Triton does not serve (yet).")
    ] = False,
    process: options.Process,
    as_json: options.AsJson = False,
) -> None:
    r"""Run messages that the stream still holds through a stage again, beside the live one.

    Makes a durable run and works on it until it is done. Nothing live is touched: the answers are
    kept apart until `mqinfer runs promote`. Ctrl-C, or a kill, loses nothing: `mqinfer worker APP
    --run NAME` goes on, and more of them help.

    \b
      mqinfer replay plants:app --stage grade_rust --since 24h --model grade_rust=2
      mqinfer replay plants:app -s grade_rust --from-seq 1 --to-seq 50000 --share 0.25
      mqinfer replay plants:app -s crop --since 2026-05-01 --downstream --run may
    """
    settings = options.load_settings(**asdict(process))
    loaded = load_app(app)
    options.quiet_logging(settings)
    if from_seq is None and since is None:
        raise ConfigurationError("say where to begin: --from-seq N (1 is the oldest) or --since T")
    from mqinfer.replay.runs import Wanted

    wanted = Wanted(
        from_seq=from_seq,
        to_seq=to_seq,
        since=None if since is None else parse_time(since),
        until=None if until is None else parse_time(until),
    )
    definition: dict[str, Any] = {
        "stage": stage,
        "name": run,
        "key": key,
        "models": _models(model or ()),
        "rate": rate,
        "share": share,
        "downstream": downstream,
    }
    raise typer.Exit(
        run_loop(
            settings, lambda: _replay(app, loaded, settings, wanted, definition, force, as_json)
        )
    )


def _models(pairs: Any) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, version = pair.partition("=")
        if not (name and equals and version):
            raise ConfigurationError(f"--model is NAME=VERSION, such as grade_rust=2, not {pair!r}")
        found[name] = version
    return found


async def _replay(
    name: str,
    app: App,
    settings: Settings,
    wanted: Wanted,
    definition: dict[str, Any],
    force: bool,
    as_json: bool,
) -> int:
    from mqinfer import wiring
    from mqinfer.running import Worker

    async with wiring.jetstream(app, settings, "replay") as broker:
        store = wiring.runs(app, broker)
        definition["models"] = await wiring.aliases(app, broker).resolve(definition["models"])
        unasked = [] if force else await _require_served(app, settings, definition["models"])
        made = await store.create(wanted=wanted, **definition)
        _announce(made, (*unasked, *made.notes), as_json)
        running = Worker(app, settings=settings, run=made.name)
        yield_cpu()
        watch = asyncio.create_task(_watch(app, broker, store, made, as_json))
        try:
            code = await run_worker(running)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        ended = await store.get(made.name)
        return code or _conclude(name, ended, as_json)


async def _require_served(app: App, settings: Settings, models: dict[str, str]) -> list[str]:
    """Refuse versions that do not answer, or note that Triton could not be asked: work waits.

    Raises:
        ConfigurationError: Triton does not serve a version; the text says what it serves.
    """
    from mqinfer.operate.models import require_served

    # A model that is none of the app's is refused when the run is made.
    known = {model.name for model in app.models.values()} & models.keys()
    if not known:
        return []
    try:
        served = await asked_triton(settings)
    except Unavailable as error:
        return [f"not known whether the versions are served, the run waits for them: {error}"]
    for name in sorted(known):
        require_served(name, models[name], served, _FORCED)
    return []


def _announce(run: Run, notes: Sequence[str], as_json: bool) -> None:
    if as_json:
        facts = {"run": run.name, "start": run.start, "end": run.end, "total": run.total}
        print_json({"event": "started", **facts, "notes": notes}, line=True)
        return
    for note in notes:
        print(f"note: {note}")
    print(
        f"run {run.name}: {run.total:,} messages of stage {run.stage}, "
        f"sequences {run.start:,} to {run.end:,}"
    )
    sys.stdout.flush()


def _conclude(name: str, run: Run, as_json: bool) -> int:
    if as_json:
        print_json({"event": "ended", "run": run.name, "state": run.state}, line=True)
    elif run.state == "done":
        print(f"run {run.name} is done; compare it: mqinfer runs compare {name} {run.name}")
    else:
        print(f"run {run.name} is {run.state}; go on: mqinfer worker {name} --run {run.name}")
    return ExitCode.DONE if run.state == "done" else ExitCode.INTERRUPTED


async def _watch(app: App, broker: Any, store: Any, run: Run, as_json: bool) -> None:
    """Show how far the run is until cancelled."""
    from mqinfer.replay.consumers import progress

    with _shown(run, as_json) as show:
        while True:
            with contextlib.suppress(Unavailable):
                show(await progress(app, run, broker, store))
            await asyncio.sleep(_LOOK)


@contextlib.contextmanager
def _shown(run: Run, as_json: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, lines elsewhere."""
    if sys.stdout.isatty() and not as_json:
        with _bar(run) as show:
            yield show
        return
    began, said = time.monotonic(), 0.0

    def line(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < (_LOOK if as_json else _LINE):
            return
        said = now
        rate = done / max(now - began, 1e-9)
        left = (run.total - done) / rate if rate else None
        if as_json:
            facts = {"run": run.name, "done": done, "total": run.total}
            print_json(
                {"event": "progress", **facts, "rate": rate, "seconds_left": left}, line=True
            )
        else:
            about = "" if left is None else f", about {left:.0f} s left"
            print(f"{done:,} of {run.total:,}, {rate:,.0f}/s{about}")
            sys.stdout.flush()

    yield line


@contextlib.contextmanager
def _bar(run: Run) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn(f"run {run.name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        Remaining(),
    )
    began = time.monotonic()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=run.total, rate=0.0)

        def show(done: int) -> None:
            rate = done / max(time.monotonic() - began, 1e-9)
            progress.update(task, completed=done, rate=rate)

        yield show
