"""`mqinfer bench`: how fast a pipeline is, where its time goes, what bounds it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.bench.found import Found, Measured

_COLUMNS = (
    *("stage", "msgs/s", "p50", "p99", "own code", "models", "other", "publish", "insert"),
    *("no work", "core"),
)


def bench(
    app: options.AppName,
    *,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="For all measurements, the servers' start not counted.")
    ] = 30.0,
    stage: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This stage or sink; repeatable.")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Take N messages of the live stream; it is only read."
        ),
    ] = 0,
    messages: Annotated[
        list[str] | None,
        typer.Option(metavar="[TYPE=]FILE", help="Messages as JSON, one a line; repeatable."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures for the blobs of generated messages."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Triton model repository [default: ./triton_models if it is there]."),
    ] = None,
    servers: options.Process,
    as_json: options.AsJson = False,
) -> None:
    r"""Measure a pipeline: rate and latency of each stage, where its time goes, what bounds it.

    On servers of its own in a temporary folder, gone when it ends, with messages that are made from
    the types, read from files, or sampled from the live stream. Live data is never touched; but
    handlers run: what they do elsewhere, they do. It needs the extra `embedded`. With --triton-url
    models are called there.

    \b
      mqinfer bench plants:app                              on generated messages
      mqinfer bench plants:app --sample 1000 --stage crop   on the newest of the live stream
      mqinfer bench plants:app --messages drone_image=photos.jsonl --seconds 60
      mqinfer bench plants:app --pictures photos/ --triton-url gpu.example:8001
    """
    from mqinfer.bench.measure import Asked, measure
    from mqinfer.observe import configure_logging

    settings = options.load_settings(**asdict(servers))
    # Dead letters are told at the end, once; a worker's log would be in the way.
    configure_logging(settings.log_level if servers.log_level else "critical", settings.log_format)
    loaded = load_app(app)
    if sample and messages:
        raise ConfigurationError("--sample and --messages: choose one")
    if models is None and Path("triton_models").is_dir():
        models = Path("triton_models")
    if models is not None and not models.is_dir():
        raise ConfigurationError(f"--models {models}: there is no such folder")
    asked = Asked(
        seconds=seconds,
        stages=tuple(stage or ()),
        sample=sample,
        files=tuple(messages or ()),
        pictures=pictures,
        models=models,
        triton=servers.triton_url is not None,
    )
    with _progress() as say:
        found = interrupt.run(measure(loaded, settings, asked, say))
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found))
    else:
        _show(found)


def _show(found: Found) -> None:
    print(f"{found.app}, messages {found.source}; one process, {found.cores} cores")
    print_table(_COLUMNS, [_row(stage) for stage in found.stages], right=_COLUMNS[1:])
    if found.rate > 0:
        print(
            f"all stages in one process: {found.rate:,.0f} messages from outside a second "
            f"({found.seconds:.1f} s)"
        )
    for stage in found.stages:
        if stage.dead:
            print(f"{stage.name}: {stage.dead:,} messages ended as dead letters: {stage.reason}")
        elif not stage.each:
            made = "; measured on messages made up from the type" if stage.handled else ""
            print(f"{stage.name}: none of the messages led to anything that it reads{made}")
        elif not stage.handled:
            print(f"{stage.name}: it handled nothing in its time; give it more with --seconds")
    print(f"\n{found.verdict}")


def _row(stage: Measured) -> list[str]:
    if not stage.handled:
        return [stage.name, *["-"] * (len(_COLUMNS) - 1)]

    def share(value: float, told: bool = True) -> str:
        if not told:
            return ""
        return "<1%" if 0 < value < 0.005 else f"{value:.0%}"

    def ms(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value * 1000:,.0f} ms" if value >= 0.1 else f"{value * 1000:.3g} ms"

    ours = not stage.sink
    return [
        stage.name,
        f"{stage.rate:,.0f}",
        ms(stage.p50),
        ms(stage.p99),
        share(stage.code, ours),
        share(stage.models, ours),
        share(stage.other, ours),
        share(stage.publishing, ours),
        share(stage.inserting, not ours),
        share(stage.waiting),
        share(stage.loop + stage.threads),
    ]


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal, else a line for each part; on stderr."""
    if not sys.stderr.isatty():
        yield lambda text, _: print(f"{text} ...", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda text, done: progress.update(task, description=text, completed=done)
