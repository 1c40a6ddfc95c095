"""Options that may stand anywhere on a command line, as they are about all commands alike.

They become variables of the environment, so that the processes that a command starts know of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mqinfer.errors import ConfigurationError

APP_DIR = "MQINFER_APP_DIR"
DEBUG = "MQINFER_DEBUG"

_PATHS = ("--app-dir", "--env-file")


def split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The arguments without these options, and the options with their values."""
    rest: list[str] = []
    found: list[tuple[str, str]] = []
    left = iter(arguments)
    for one in left:
        option, equals, value = one.partition("=")
        if one == "--debug":
            found.append((one, ""))
        elif option in _PATHS:
            found.append((option, value if equals else next(left, "")))
        else:
            rest.append(one)
    return rest, found


def heed(options: Sequence[tuple[str, str]]) -> None:
    """Do what these options say.

    Raises:
        ConfigurationError: one has no value, or names nothing that is there.
    """
    for option, value in options:
        if option == "--debug":
            os.environ[DEBUG] = "1"
        elif not value:
            raise ConfigurationError(f"{option} needs a path")
        elif option == "--app-dir":
            _app_dir(Path(value))
        else:
            _env_file(Path(value))


def app_dir() -> Path:
    """Where the module of APP is searched first."""
    return Path(os.environ.get(APP_DIR) or Path.cwd())


def _app_dir(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"--app-dir {folder}: there is no such folder")
    os.environ[APP_DIR] = str(folder.absolute())


def _env_file(file: Path) -> None:
    """Take variables that are not set yet; what is set wins."""
    if not file.is_file():
        raise ConfigurationError(f"--env-file {file}: there is no such file")
    from dotenv import dotenv_values

    for name, value in dotenv_values(file).items():
        if value is not None:
            os.environ.setdefault(name, value)
