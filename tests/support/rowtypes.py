"""Row types made of annotations, and their rows written as a sink does."""

from __future__ import annotations

from typing import Any

import msgspec

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink


def row(fields: dict[str, Any], *, table: str = "t", order_by: Any = (), **config: Any) -> Any:
    """A row type made of annotations, or of (annotation, default) pairs."""
    plain = {n: v if isinstance(v, tuple) else (v, msgspec.NODEFAULT) for n, v in fields.items()}
    namespace: dict[str, Any] = {"__annotations__": {n: t for n, (t, _) in plain.items()}}
    namespace |= {n: d for n, (_, d) in plain.items() if d is not msgspec.NODEFAULT}
    namespace["__module__"] = __name__
    metaclass: Any = type(Row)
    return metaclass(
        "T", (Row,), namespace, table=table, order_by=order_by, frozen=True, kw_only=True, **config
    )


async def write(db: ClickHouse, row_type: Any, *rows: Any, **origin: Any) -> dict[int, str]:
    items = [(r, Origin(id=f"id-{i}", **origin)) for i, r in enumerate(rows)]
    return await Sink(db, row_type).write(items)
