"""The tree of commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from mqinfer.cli import (
    check,
    dead,
    graph,
    models,
    permissions,
    publish,
    rename,
    replay,
    runs,
    settings,
    status,
    up,
    worker,
)
from mqinfer.cli.bundles import unfolded

_HELP = """Asyncio stages on NATS JetStream, batched inference on Triton, rows in ClickHouse.

A first run, in three shells:

\b
  mqinfer up
  mqinfer worker examples.plants.app:app
  mqinfer publish examples.plants.app:app drone_image photos.jsonl
"""

cli = typer.Typer(
    name="mqinfer",
    help=_HELP,
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 interrupted.",
    no_args_is_help=True,
    # Plain help starts in a third of the time of a decorated one, and can be piped into grep.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from mqinfer import __version__

        print(f"mqinfer {__version__}")
        raise typer.Exit


@cli.callback()
def _root(
    _version_: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (also MQINFER_DEBUG=1).")
    ] = False,
) -> None:
    """The options before a command."""


def _add(name: str, command: Callable[..., None], group: typer.Typer = cli) -> None:
    # Docstrings are raw, as the linter wants; click knows a block by the character itself.
    text = inspect.cleandoc(command.__doc__ or "").replace("\\b\n", "\b\n")
    group.command(name, help=text)(unfolded(command))


_add("up", up.up)
_add("worker", worker.worker)
_add("publish", publish.publish)
_add("status", status.status)
_add("replay", replay.replay)
_add("models", models.models)
_add("check", check.check)
_add("rename", rename.rename)
_add("graph", graph.graph)
_add("permissions", permissions.permissions)
_add("settings", settings.settings)

cli.add_typer(dead.group, name="dead")
_add("list", dead.list_letters, dead.group)
_add("show", dead.show, dead.group)
_add("retry", dead.retry, dead.group)
_add("drop", dead.drop, dead.group)

cli.add_typer(runs.group, name="runs")
_add("list", runs.list_runs, runs.group)
_add("show", runs.show, runs.group)
_add("stop", runs.stop, runs.group)
_add("compare", runs.compare, runs.group)
_add("promote", runs.promote, runs.group)
_add("undo", runs.undo, runs.group)
_add("discard", runs.discard, runs.group)
