"""The command line: one file a command group, `main` around them.

Commands raise; `main` alone turns what they raise into one line on stderr and an exit code. Nothing
heavy (nats, tritonclient, clickhouse_connect, numpy, rich) is imported before a command needs it,
so that `mqinfer --help` answers at once. A signal is taken before anything else is imported: only
the interpreter's own start, a few hundredths of a second, comes earlier.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from mqinfer import signals
from mqinfer.cli import everywhere
from mqinfer.collector import collect_less

# They run until they are told to stop, and end in order whenever that is.
_STOPPED = ("worker", "gateway", "console", "up")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; `sys.argv` by default.

    Returns:
        The exit code; see `ExitCode`.
    """
    given, options = everywhere.split(sys.argv[1:] if arguments is None else arguments)
    stopped = (given[:1] and given[0] in _STOPPED) or given[:2] == ["deploy", "apply"]
    if arguments is None and stopped:  # and a process of its own
        signals.listen()
    if arguments is None:
        collect_less()
        if "--help" not in given:
            _import_structlog()
    from mqinfer.cli.errors import ExitCode, report

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A header may hold bytes that are no text, and a terminal know little of Unicode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        everywhere.heed(options)
        from mqinfer.cli.root import cli

        code = cli(given, prog_name="mqinfer", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the shell gets a code
        return report(error, debug=bool(os.environ.get(everywhere.DEBUG)))
    return code if isinstance(code, int) else ExitCode.DONE


def _import_structlog() -> None:
    """Without rich, a tenth of the start: its tracebacks, which show values, are not used."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # which makes an import of it fail
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
