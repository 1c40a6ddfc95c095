"""CSV: a table of texts (RFC 4180), whose first row names the fields.

Where a row ends only a scan from the beginning tells, since a quoted cell may hold line ends; so it
is read by Python's `csv`, line by line. A cell of more than 128 kB (`csv.field_size_limit`), such
as a quote that is never closed begins, is an error of its row, which ends there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from mqinfer.errors import ConfigurationError
from mqinfer.jobs.sources import Read
from mqinfer.jobs.sources.lines import LONGEST, lines
from mqinfer.message import Message

_DELIMITERS = ",;\t"
Cell = Callable[[str], Any]
_LEFT_OUT: Any = object()


def rows(path: Path, kind: type[Message]) -> Iterator[Read]:
    """The rows of a file as fields of a message; a row without any cell is none.

    Raises:
        ConfigurationError: its first row does not name the fields.
    """
    texts = _Texts(path)
    try:
        reader, names = _begin(path, texts)
        if names is None:
            return
        _check_names(path, names, kind)
        cells = _cells(kind)
        while True:
            texts.broken = False
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Read(problem=f"line {reader.line_num} is no CSV: {error}")
                continue
            if row:
                yield _read(row, names, cells, texts.broken)
    finally:
        texts.close()


class _Texts:
    """The lines of a file as text; `broken` once one was no UTF-8."""

    def __init__(self, path: Path):
        self.broken = False
        self._path = path
        self._file = path.open("rb")
        self._lines = lines(self._file)

    def __iter__(self) -> Iterator[str]:
        for line, whole in self._lines:
            if not whole:
                raise ConfigurationError(f"{self._path}: a line has more than {LONGEST:,} bytes")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self.broken = True
                yield line.decode(errors="replace")

    def close(self) -> None:
        self._file.close()


def _begin(path: Path, texts: _Texts) -> tuple[Any, list[str] | None]:
    """A reader behind the row of names, and these; None where the file has no row."""
    for text in texts:
        if not text.strip():
            continue
        delimiter = max(_DELIMITERS, key=text.count)
        reader = csv.reader(_chain(text, texts), delimiter=delimiter)
        try:
            names = [name.strip() for name in next(reader)]
        except csv.Error as error:
            raise ConfigurationError(f"{path}: its first row is no CSV: {error}") from None
        if texts.broken:
            raise ConfigurationError(f"{path}: its first row is no UTF-8")
        return reader, names
    return None, None


def _chain(first: str, rest: _Texts) -> Iterator[str]:
    yield first
    yield from rest


def _check_names(path: Path, names: Sequence[str], kind: type[Message]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{path}: its first row names {', '.join(map(repr, twice))} twice")
    fields = msgspec.structs.fields(kind)
    missing = [one.encode_name for one in fields if one.required and one.encode_name not in names]
    if missing:
        raise ConfigurationError(
            f"{path}: its first row names no {', '.join(map(repr, missing))}, which "
            f"{kind.__name__} needs; it names {', '.join(map(repr, names))}"
        )


def _read(row: list[str], names: Sequence[str], cells: Mapping[str, Cell], broken: bool) -> Read:
    if broken:
        return Read(problem="the row is no UTF-8")
    if len(row) != len(names):
        return Read(problem=f"the row has {len(row)} cells, the first row of the file {len(names)}")
    found = {}
    for name, text in zip(names, row, strict=True):
        value = cells[name](text) if name in cells else text
        if value is not _LEFT_OUT:
            found[name] = value
    return Read(fields=found)


def _cells(kind: type[Message]) -> dict[str, Cell]:
    """What a cell of each field says."""
    return {field.encode_name: _cell(field) for field in msgspec.structs.fields(kind)}


def _cell(field: msgspec.structs.FieldInfo) -> Cell:
    info = inspect.type_info(field.type)
    parts = info.types if isinstance(info, inspect.UnionType) else (info,)
    takes_none = any(isinstance(part, inspect.NoneType) for part in parts)
    takes_text = any(isinstance(part, inspect.StrType) for part in parts)
    empty = "" if field.required and (takes_text or not takes_none) else None

    def value(text: str) -> Any:
        if not text:
            return _LEFT_OUT if not field.required else empty
        if not takes_text and text[0] in "[{":
            try:
                return msgspec.json.decode(text)
            except msgspec.DecodeError:
                return text  # whose error is told by the field
        return text

    return value
