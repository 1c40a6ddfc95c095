"""What the user sees of an error: one line that says what to do, and an exit code with a name."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeVar

import typer

from mqinfer.errors import ConfigurationError, MqinferError

E = TypeVar("E", bound=BaseException)


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # the command line, a setting or a declaration has to be changed first
    AGAIN = 75  # of a supervised process that had its share: another begins (sysexits' TEMPFAIL)
    INTERRUPTED = 130


# The root of what typer raises about a command line. Newer releases carry their own copy of click,
# so its module has no fixed name.
_ClickException = typer.BadParameter.__mro__[2]


class Failed(MqinferError):
    """A command has said all there is to say and ends with `ExitCode.FAILED`."""


def report(error: BaseException, *, debug: bool) -> ExitCode:
    """Print `error` for a person and give its exit code.

    Args:
        error: whatever ended the command.
        debug: whether to show the traceback too.
    """
    leaves = list(_leaves(error))
    if any(isinstance(leaf, (KeyboardInterrupt, typer.Abort)) for leaf in leaves):
        return ExitCode.INTERRUPTED
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves) and _stdout_is_gone():
        return ExitCode.FAILED  # `mqinfer ... | head`: nobody is left to tell
    if isinstance(error, typer.Exit):
        return ExitCode(error.exit_code)
    if isinstance(error, SystemExit):
        return ExitCode.DONE if not error.code else ExitCode.FAILED
    if isinstance(error, _ClickException):
        return _usage(error)
    if debug:
        traceback.print_exception(error)
    # Several parts of a worker may fail for one reason: it is told once.
    for line in dict.fromkeys(_line(leaf) for leaf in leaves):
        if line:
            print(line, file=sys.stderr)
    if not debug and not all(isinstance(leaf, (MqinferError, OSError)) for leaf in leaves):
        print(
            "this is a bug in the app or in mqinfer: --debug (or MQINFER_DEBUG=1) shows where",
            file=sys.stderr,
        )
    configuration = all(isinstance(leaf, ConfigurationError) for leaf in leaves)
    return ExitCode.USAGE if configuration else ExitCode.FAILED


def find(error: BaseException, kind: type[E]) -> E | None:
    """The first error of a kind, also in a group of errors."""
    return next((leaf for leaf in _leaves(error) if isinstance(leaf, kind)), None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _line(error: BaseException) -> str:
    if isinstance(error, Failed):
        return ""
    text = " ".join(str(error).split())
    if isinstance(error, MqinferError):
        return f"error: {text}"
    if isinstance(error, OSError) and error.strerror:
        return f"error: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    return f"error: {type(error).__name__}" + (f": {text}" if text else "")


def _usage(error: BaseException) -> ExitCode:
    context = getattr(error, "ctx", None)
    message: str = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message or (context.get_help() if context else ""))
        return ExitCode.USAGE
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    print(f"error: {' '.join(message.split())}{hint}", file=sys.stderr)
    return ExitCode.USAGE


def _stdout_is_gone() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the interpreter would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    except (OSError, ValueError):
        return True
    return False
