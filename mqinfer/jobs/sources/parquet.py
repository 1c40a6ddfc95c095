"""Parquet: a table with types, read some rows of a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mqinfer.errors import ConfigurationError
from mqinfer.jobs.sources import BLOCK, Read
from mqinfer.message import Message


def rows(path: Path, kind: type[Message]) -> Iterator[Read]:
    """The rows of a file as fields of a message.

    Raises:
        ConfigurationError: pyarrow is not installed, or cannot read it.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError(
            f"{path}: Parquet needs pyarrow: pip install 'mqinfer[jobs]'"
        ) from None
    fields = msgspec.structs.fields(kind)
    needed = {one.encode_name for one in fields if one.required}
    defaults = {one.encode_name for one in fields if not one.required}
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := sorted(needed - set(names)):
                raise ConfigurationError(
                    f"{path}: it has no column {', '.join(map(repr, missing))}, which "
                    f"{kind.__name__} needs; it has {', '.join(map(repr, names))}"
                )
            for batch in file.iter_batches(batch_size=BLOCK):
                for row in batch.to_pylist():
                    yield Read(fields=_given(row, defaults))
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: pyarrow cannot read it: {error}") from None


def _given(row: dict[str, Any], defaults: set[str]) -> dict[str, Any]:
    """A row without the cells that are empty where the field has a default."""
    return {name: value for name, value in row.items() if value is not None or name not in defaults}
