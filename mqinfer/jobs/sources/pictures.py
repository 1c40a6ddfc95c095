"""Pictures: every picture in a folder, on a disk here or in the blob store, in the order of paths.

Its path below the folder is the row's `custom_id`, and what a field of text says that the message
cannot do without. A picture of a disk here is read, and goes into the message or the blob store; of
the blob store its path is enough.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from mqinfer.blob import Blob, Listed
from mqinfer.errors import ConfigurationError
from mqinfer.jobs.sources import BLOCK, Read
from mqinfer.message import Message

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"])
AT_ONCE = 4  # that are held before their bytes are stored


def is_picture(name: str) -> bool:
    """Whether a file is called like one."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - a name in a store


def rows(folder: Path, kind: type[Message]) -> Iterator[Read]:
    """The pictures below a folder, hidden ones left out.

    Raises:
        ConfigurationError: the type does not say where a picture goes.
    """
    made = _maker(kind)
    for path in _below(folder):
        name = path.relative_to(folder).as_posix()
        try:
            yield Read(fields=made(Blob(path.read_bytes()), name), custom_id=name)
        except OSError as error:
            yield Read(problem=f"the picture cannot be read: {error.strerror}", custom_id=name)


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(entry)
        elif is_picture(entry.name):
            yield entry


class StoredPictures:
    """The pictures under a prefix of the blob store; see `jobs.sources.Source`.

    Args:
        store: that has them.
        prefix: of their paths.
        kind: the type of the messages.

    Raises:
        ConfigurationError: the type does not say where a picture goes.
    """

    def __init__(self, store: Listed, prefix: str, kind: type[Message]):
        self._store = store
        self._prefix = prefix
        self._made = _maker(kind)

    async def blocks(self) -> AsyncIterator[list[Read]]:
        """Some of them at a time."""
        block: list[Read] = []
        async for path in self._store.names(self._prefix):
            if not is_picture(path):
                continue
            name = path.removeprefix(self._prefix)
            block.append(Read(fields=self._made(Blob.at(path), name), custom_id=name))
            if len(block) == BLOCK:
                yield block
                block = []
        if block:
            yield block


def _maker(kind: type[Message]) -> Callable[[Blob, str], dict[str, Any]]:
    """Makes the fields of a message of a picture and its name."""
    needed = [field for field in msgspec.structs.fields(kind) if field.required]
    infos = {field.encode_name: inspect.type_info(field.type) for field in needed}
    blobs = [name for name, info in infos.items() if _is_blob(info)]
    texts = [name for name, info in infos.items() if isinstance(info, inspect.StrType)]
    if len(blobs) != 1 or len(texts) > 1 or len(infos) > len(blobs) + len(texts):
        raise ConfigurationError(
            f"a folder of pictures makes a {kind.__name__} each where it needs one Blob and at "
            f"most one text, its name; it needs {', '.join(infos) or 'nothing'}: name the pictures "
            "in a file of rows instead"
        )
    blob = blobs[0]
    return lambda picture, name: {blob: picture, **dict.fromkeys(texts, name)}


def _is_blob(info: inspect.Type) -> bool:
    return isinstance(info, inspect.CustomType) and issubclass(info.cls, Blob)
