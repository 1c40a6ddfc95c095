"""`mqinfer job`: an endpoint asked for every row of a file, or every picture of a folder."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.jobs.job import Job, JobStatus
    from mqinfer.settings import Settings

group = typer.Typer(
    help="Submit jobs over files, watch them, read their results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Identity = Annotated[str, typer.Argument(metavar="ID", help="As `job submit` prints it.")]
Tenant = Annotated[str, typer.Option(metavar="T", help="On whose behalf.")]

EVERY = 1.0  # seconds between lines, where there is no bar


def submit(
    app: options.AppName,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="As the app declares it.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file of rows, a folder of pictures, or blob:PATH in the blob store.",
        ),
    ],
    format: Annotated[  # noqa: A002
        str | None, typer.Option(metavar="F", help="Of a file: csv, jsonl or parquet.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="K", help="Submitted again under the same key, it is the same job."),
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option(metavar="N", help="Stop once more rows than these have failed.")
    ] = None,
    deadline: Annotated[
        str, typer.Option(metavar="TIME", help="After which it ends, whatever came of it.")
    ] = "24h",
    keep: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is kept after that.")
    ] = "7d",
    chunk: Annotated[
        int | None, typer.Option(metavar="N", help="Rows that are handled together, at most.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and show it.")] = False,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Ask an endpoint for every row of a file, or every picture of a folder; print the job's id.

    \b
      mqinfer job submit plants:app grade photos.csv --wait
      mqinfer job submit plants:app grade photos/ --max-failures 100
      mqinfer job submit plants:app grade blob:2026/05/ --key may
    """
    settings = _settings(nats_url, blobs)
    loaded = load_app(app)

    async def run() -> dict[str, Any]:
        import mqinfer

        async with mqinfer.connect(loaded, settings) as client:
            job = await client.submit(
                endpoint,
                source,
                format=format,
                key=key,
                tenant=tenant,
                max_failures=max_failures,
                deadline=deadline,
                keep=keep,
                chunk=chunk,
            )
            if not as_json:
                print(job.id)
                sys.stdout.flush()
            if wait:
                await _watched(job, as_json=False)
            return job.facts()

    facts = interrupt.run(run())
    if as_json:
        print_json(facts)
    if wait:
        _judge(facts)


def status(
    app: options.AppName,
    identity: Identity,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Say how far a job is.

    \b
      mqinfer job status plants:app job-grade-3f0c...
    """
    _tell(_one(app, _settings(nats_url, blobs), identity, tenant, None), as_json=as_json)


def watch(
    app: options.AppName,
    identity: Identity,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Wait for the end of a job, and show how far it is; with --json a line each time.

    The exit code is 1 where it does not end as completed or partial.

    \b
      mqinfer job watch plants:app job-grade-3f0c...
    """

    async def follow(job: Job) -> None:
        await _watched(job, as_json=as_json)

    facts = _one(app, _settings(nats_url, blobs), identity, tenant, follow)
    if not as_json:
        _tell(facts, as_json=False)
    _judge(facts)


def cancel(
    app: options.AppName,
    identity: Identity,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Cancel a job: nothing more of it is begun, and what is under way is stopped.

    \b
      mqinfer job cancel plants:app job-grade-3f0c...
    """

    async def call(job: Job) -> None:
        await job.cancel()

    _tell(_one(app, _settings(nats_url, blobs), identity, tenant, call), as_json=as_json)


def retry_failed(
    app: options.AppName,
    identity: Identity,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Open a job that has ended again, for rows that failed or never ran.

    Rows that are no message of the endpoint's type stay as they are.

    \b
      mqinfer job retry-failed plants:app job-grade-3f0c...
    """

    async def call(job: Job) -> None:
        await job.retry_failed()

    _tell(_one(app, _settings(nats_url, blobs), identity, tenant, call), as_json=as_json)


def results(
    app: options.AppName,
    identity: Identity,
    errors: Annotated[bool, typer.Option("--errors", help="Only rows that have errors.")] = False,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
) -> None:
    r"""Print what came of the rows of a job, a line of JSON each, in their order.

    Rows that are not done yet are left out.

    \b
      mqinfer job results plants:app job-grade-3f0c... > results.jsonl
      mqinfer job results plants:app job-grade-3f0c... --errors
    """

    async def call(job: Job) -> None:
        async for data in job.text(errors=errors):
            await asyncio.to_thread(typer.echo, data, nl=False)

    _one(app, _settings(nats_url, blobs), identity, tenant, call)


def list_jobs(
    app: options.AppName,
    endpoint: Annotated[str | None, typer.Option(metavar="E", help="Only of this one.")] = None,
    tenant: Tenant = "",
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""List the jobs that are kept, those that changed last at the end.

    \b
      mqinfer job list plants:app
    """
    settings = _settings(nats_url, None)
    loaded = load_app(app)

    async def run() -> list[dict[str, Any]]:
        import mqinfer

        async with mqinfer.connect(loaded, settings) as client:
            return [job.facts() for job in await client.jobs(endpoint, tenant=tenant)]

    found = interrupt.run(run())
    if as_json:
        print_json(found)
        return
    names = ("rows", "done", "failed")
    rows = [(one["id"], one["status"], *(f"{one[name]:,}" for name in names)) for one in found]
    if rows:
        print_table(("job", "status", *names), rows, right=names)
    print(f"{len(rows):,} jobs")


# --- inside ---------------------------------------------------------------------------------------


def _settings(nats_url: str | None, blobs: str | None) -> Settings:
    settings = options.load_settings(nats_url=nats_url, blobs=blobs)
    options.quiet_logging(settings)
    return settings


def _one(
    app: str, settings: Settings, identity: str, tenant: str, call: Callable[[Job], Any] | None
) -> dict[str, Any]:
    """What is known of a job, after something was done with it."""
    loaded = load_app(app)

    async def run() -> dict[str, Any]:
        async with _found(loaded, settings, identity, tenant) as job:
            if call is not None:
                await call(job)
            return job.facts()

    return interrupt.run(run())


@asynccontextmanager
async def _found(app: App, settings: Settings, identity: str, tenant: str) -> AsyncIterator[Job]:
    import mqinfer

    async with mqinfer.connect(app, settings) as client:
        yield await client.job(identity, tenant=tenant)


async def _watched(job: Job, *, as_json: bool) -> None:
    """Follow a job to its end: a bar on a terminal, lines elsewhere."""
    with _json_lines(job) if as_json else _bar(job) as show:
        async for progress in job:
            show(progress)


@contextmanager
def _json_lines(job: Job) -> Iterator[Callable[[JobStatus], None]]:
    yield lambda _: print_json(job.facts(), line=True)


@contextmanager
def _bar(job: Job) -> Iterator[Callable[[JobStatus], None]]:
    if not sys.stderr.isatty():
        told = 0.0

        def line(progress: JobStatus) -> None:
            nonlocal told
            if time.monotonic() - told >= EVERY or progress.status != "open":
                told = time.monotonic()
                print(_text(progress), file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}, {task.fields[failed]:,} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        first = job.progress
        bar = shown.add_task(first.status, total=first.rows, failed=first.failed)

        def move(progress: JobStatus) -> None:
            shown.update(
                bar,
                description=_state(progress),
                completed=progress.done,
                total=progress.rows,
                failed=progress.failed,
            )

        yield move


def _text(progress: JobStatus) -> str:
    counted = f"{progress.done:,} of {progress.rows:,} rows, {progress.failed:,} failed"
    return f"{_state(progress)}: {counted}"


def _state(progress: JobStatus) -> str:
    return f"stopping ({progress.stopping})" if progress.stopping else progress.status


def _tell(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    stopping = f", and comes to be {facts['stopping']}" if "stopping" in facts else ""
    print(
        f"{facts['id']} is {facts['status']}{stopping}: {facts['done']:,} of {facts['rows']:,} "
        f"rows are done, {facts['partial']:,} in part, {facts['failed']:,} failed"
    )


def _judge(facts: dict[str, Any]) -> None:
    if facts["status"] not in ("completed", "partial"):
        raise Failed(f"job {facts['id']} is {facts['status']}")


COMMANDS = {
    "submit": submit,
    "list": list_jobs,
    "status": status,
    "watch": watch,
    "cancel": cancel,
    "retry-failed": retry_failed,
    "results": results,
}
