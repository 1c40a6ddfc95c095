"""`APP` on the command line: `module:attribute`, as with uvicorn; or a `models.toml`."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from types import ModuleType
from typing import TYPE_CHECKING

from mqinfer import signals
from mqinfer.cli.errors import in_words, place_in_app
from mqinfer.cli.everywhere import app_dir
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.app import App

_EXAMPLE = "app:app"


def load_app(name: str) -> App:
    """Import the app that `name` names; the current directory, or --app-dir, is searched first.

    Args:
        name: `module:attribute`, or the path of a file of model classes (see `mqinfer.catalog`).

    Raises:
        ConfigurationError: what is wrong with the name, with the module or in the file.
    """
    if name.endswith(".toml"):
        from mqinfer.catalog import app_of

        return app_of(name)
    from mqinfer.app import App

    module_name, colon, attribute = name.partition(":")
    if not module_name or (colon and not attribute):
        raise ConfigurationError(f"APP is module:attribute, such as {_EXAMPLE}, not {name!r}")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(
            f"APP is module:attribute with dots: {dotted}:{attribute or 'app'}, not {name!r}"
        )
    here = str(app_dir())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = _module(module_name)
    finally:
        signals.heed()  # a signal, whatever the module made of it
    if not colon:
        raise ConfigurationError(f"APP is module:attribute, not {name!r}{_apps_in(module)}")
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise ConfigurationError(
            f"module {module_name} has no attribute {attribute!r}{_apps_in(module)}"
        ) from None
    if not isinstance(found, App):
        raise ConfigurationError(
            f"{name} is a {type(found).__name__}, not an mqinfer.App{_apps_in(module)}"
        )
    return found


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself or a package above it, rather than something that it imports.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"no module {error.name!r} in {app_dir()} or among the installed packages: run "
                "mqinfer in the folder that holds it, or name that: --app-dir FOLDER"
            ) from error
        raise ConfigurationError(_cannot_import(name, error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(_cannot_import(name, error)) from error


def _cannot_import(name: str, error: BaseException) -> str:
    place = None if isinstance(error, SyntaxError) else place_in_app(error)  # its text has it
    return f"cannot import {name}: {in_words(error)}" + (f" ({place})" if place else "")


def _apps_in(module: ModuleType) -> str:
    from mqinfer.app import App

    names = [name for name, value in vars(module).items() if isinstance(value, App)]
    if not names:
        return f"; {module.__name__} holds no App"
    return "; did you mean " + " or ".join(f"{module.__name__}:{name}" for name in names) + "?"
