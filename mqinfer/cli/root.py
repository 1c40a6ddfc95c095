"""The tree of commands. Each is in a file of its name, which is imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mqinfer.cli.bundles import unfolded

# In the order of the help.
_COMMANDS = (
    "init",
    "up",
    "worker",
    "gateway",
    "console",
    "publish",
    "request",
    "status",
    "replay",
    "shell",
    "tables",
    "state",
    "models",
    "index",
    "monitor",
    "check",
    "bench",
    "timers",
    "begin",
    "rename",
    "reset",
    "graph",
    "boards",
    "permissions",
    "deploy",
    "settings",
    "dead",
    "runs",
    "requests",
    "job",
)

_HELP = """Asyncio stages on NATS JetStream, batched inference on Triton, rows in ClickHouse.

A first run, with pip install 'mqinfer[embedded]', in three shells of an empty folder:

\b
  mqinfer init shop; cd shop; mqinfer up
  cd shop; mqinfer worker app:app --reload
  cd shop; mqinfer publish app:app review reviews.jsonl
"""


class _Commands(TyperGroup):
    """Imports a command when it is asked for: a worker, or a job of cron, needs one of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; None where there is none of this name."""
        # For an unknown name all are loaded: advice on typing errors is made of what is there.
        for name in [cmd_name] if cmd_name in _COMMANDS else _COMMANDS:
            if name not in self.commands:
                self.add_command(_load(name), name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of the help, for which no command's parameters, most of its work, are read."""
        listed = TyperGroup(commands={name: _listed(name) for name in _COMMANDS})
        listed.format_commands(ctx, formatter)


def _listed(name: str) -> TyperCommand:
    """A command that knows its name and what it does."""
    module = importlib.import_module(f"mqinfer.cli.{name}")
    group = hasattr(module, "COMMANDS")
    text = module.group.info.help if group else inspect.getdoc(getattr(module, name))
    return TyperCommand(name, help=text)


def _load(name: str) -> Any:
    """The command in a file, which is a function of its name, or a group with `COMMANDS`."""
    module = importlib.import_module(f"mqinfer.cli.{name}")
    commands = getattr(module, "COMMANDS", None)
    if commands is None:
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        _add(name, getattr(module, name), alone)
        return typer.main.get_command(alone)
    for command, function in commands.items():
        _add(command, function, module.group)
    return typer.main.get_group(module.group)


cli = typer.Typer(
    name="mqinfer",
    cls=_Commands,
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
    _app_dir: Annotated[
        str, typer.Option("--app-dir", metavar="FOLDER", help="Where APP's module is, else here.")
    ] = "",
    _env_file: Annotated[
        str,
        typer.Option("--env-file", metavar="FILE", help="Variables (.env); what is set wins."),
    ] = "",
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (also MQINFER_DEBUG=1).")
    ] = False,
) -> None:
    """The options before a command; but for --version they may stand behind it, too."""


def _add(name: str, command: Callable[..., None], group: typer.Typer) -> None:
    # Docstrings are raw, as the linter wants; click knows a block by the character itself.
    text = inspect.cleandoc(command.__doc__ or "").replace("\\b\n", "\b\n")
    group.command(name, help=text)(unfolded(command))
