"""`mqinfer init`: an app to begin with, out of one of the templates."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import typer

from mqinfer.cli.errors import Failed
from mqinfer.errors import ConfigurationError

Template = Literal["pipeline", "requests", "search", "monitor"]

_MODELS: dict[str, str] = {"search": "Embedding"}  # the class in model.py
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NAMED = "myapp"  # in every template, where the app's name belongs
# Under their own names they would count for the tree that the templates lie in.
_HIDDEN = {"gitignore": ".gitignore", "dockerignore": ".dockerignore"}


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the app, and of its folder.")],
    template: Annotated[
        Template,
        typer.Option("--template", "-t", help="What it is to begin with.", show_choices=True),
    ] = "pipeline",
) -> None:
    r"""Make an app that runs: a model, a stage, a row, tests, and what deploys it.

    Nothing is overwritten. The README in the folder says what to do next, in ten lines.

    \b
      mqinfer init shop                     messages through a model into a table
      mqinfer init shop -t requests         whoever asks gets an answer, also by HTTP
      mqinfer init shop -t search           what is like what, by vectors
      mqinfer init shop -t monitor          a model that is watched
    """
    folder = Path(name)
    if not _NAME.fullmatch(folder.name):
        raise ConfigurationError(
            f"NAME is small letters, digits and _, and begins with a letter, not {folder.name!r}"
        )
    from mqinfer.app import App
    from mqinfer.errors import WiringError

    try:
        App(folder.name)
    except WiringError as error:
        raise ConfigurationError(str(error)) from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there, and not empty: choose another NAME")
    for path, text in files(template).items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace(_NAMED, folder.name))
    print(f"made {folder}/ of the template {template}")
    _pack(folder.absolute(), _MODELS.get(template, "Sentiment"))
    print(f"next: cd {folder}, and what README.md says:\n")
    print((folder / "README.md").read_text(), end="")


def files(template: Template) -> dict[str, str]:
    """The texts of a template by their paths in an app's folder."""
    found: dict[str, str] = {}
    for part in ("common", template):  # a file of the template's own takes the other's place
        found |= _texts(resources.files("mqinfer.templates") / part)
    return dict(sorted(found.items()))


def _texts(folder: Traversable) -> dict[str, str]:
    return {
        _HIDDEN.get(one.name, one.name): one.read_text("utf-8")
        for one in folder.iterdir()
        if one.is_file()
    }


def _pack(folder: Path, name: str) -> None:
    """Put the model where `mqinfer up` serves it from, as the command in the README does."""
    from mqinfer.packed.kinds import PythonClass
    from mqinfer.packed.pack import HERE, Place, pack

    place = Place(to=folder / "triton_models" / name.lower(), python=HERE)
    try:
        packed = pack(PythonClass(f"model.py:{name}", folder=folder), place)
    except ConfigurationError as error:
        print(f"its model was not packed: {error}")
        raise Failed from error
    print(f"packed its model: {packed.folder.relative_to(folder.parent)}")
