"""What the user sees of an error: one line that says what to do, and an exit code with a name."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
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


# Where code lies that is not the app's: ours, what is installed, and <frozen importlib._bootstrap>.
_LIBRARIES = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED = ("<", *(f"{path}{os.sep}" for path in (Path(__file__).parents[1], *_LIBRARIES)))


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
    for line in dict.fromkeys(_line(leaf, debug) for leaf in leaves):
        if line:
            print(line, file=sys.stderr)
    configuration = all(isinstance(leaf, ConfigurationError) for leaf in leaves)
    return ExitCode.USAGE if configuration else ExitCode.FAILED


def find(error: BaseException, kind: type[E]) -> E | None:
    """The first error of a kind, also in a group of errors."""
    return next((leaf for leaf in _leaves(error) if isinstance(leaf, kind)), None)


def in_words(error: BaseException) -> str:
    """Its type and text in one line, and what Python guesses was meant by a misspelt name."""
    text = str(error)
    if isinstance(error, (NameError, AttributeError, ImportError)):
        told = traceback.TracebackException.from_exception(error)
        last = "".join(told.format_exception_only()).strip()
        text = text if text not in last else text + last.rpartition(text)[2]
    kind = type(error).__name__
    return " ".join(f"{kind}: {text}".split()) if text else kind


def place_in_app(error: BaseException) -> str | None:
    """Where in the app's own code it came from, as `file:line`; None if it came from elsewhere."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_INSTALLED)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _line(error: BaseException, debug: bool) -> str:
    if isinstance(error, Failed):
        return ""
    text = " ".join(str(error).split())
    if isinstance(error, MqinferError):
        return f"error: {text}"
    place = place_in_app(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
        return f"error: {text}" + (f" ({place})" if place else "")
    what = f"error: {in_words(error)}"
    whose = f" ({place})" if place else ", which is a bug in mqinfer or in a library that it uses"
    return what + whose + ("" if debug else "; --debug (or MQINFER_DEBUG=1) shows the traceback")


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
