"""Packing: each listed class as a version in the repository, where it is not there already."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mqinfer.catalog.reading import Catalog, Entry
from mqinfer.errors import ConfigurationError
from mqinfer.packed.kinds import PythonClass
from mqinfer.packed.pack import Place, digest_of, facts_of, newest, pack


class Done(NamedTuple):
    """What became of a model.

    Attributes:
        model: its name.
        folder: of the version that stands for the file now.
        written: whether it was written; else it was there.
    """

    model: str
    folder: Path
    written: bool


def pack_all(
    catalog: Catalog,
    *,
    environment: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> list[Done]:
    """Write a version of each model that is not as its newest version is.

    Args:
        catalog: the models.
        environment: as of `mqinfer.packed.pack.Place`.
        say: gets a line for what takes long.

    Raises:
        ConfigurationError: one cannot be packed as it is listed; those before it are.
    """
    return [
        _pack(catalog, name, entry, environment, say) for name, entry in catalog.entries.items()
    ]


def _pack(
    catalog: Catalog, name: str, entry: Entry, environment: bool, say: Callable[[str], None]
) -> Done:
    folder = catalog.folder
    model = PythonClass(
        entry.model_class,
        files=tuple(folder / path for path in entry.files),
        sources=tuple(folder / path for path in entry.source),
        rejects=tuple(entry.rejects),
        folder=folder,
    )
    place = Place(
        to=catalog.repository / name,
        max_batch=entry.max_batch,
        requirements=entry.requirements,
        python=entry.python,
        environment=environment,
    )
    try:
        there = newest(place.to)
        if there is not None and facts_of(there).get("digest") == digest_of(model, place):
            done = Done(name, there, written=False)
        else:
            done = Done(name, pack(model, place, say).folder, written=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"{catalog.file.name}: models.{name}: {error}") from error
    _set_batch(place.to / "config.pbtxt", entry.max_batch)
    return done


def _set_batch(config: Path, most: int) -> None:
    """Have the configuration say the batch that the file says now; all else in it is the user's."""
    text = config.read_text()
    found = re.sub(r"(?m)^max_batch_size:\s*\d+", f"max_batch_size: {most}", text, count=1)
    if found != text:
        config.write_text(found)
