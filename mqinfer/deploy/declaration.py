"""Declaration: what an app's code declares, as plain values that can be kept and compared. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from mqinfer import plan
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.model import Model
    from mqinfer.task import Task


class StageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A stage or sink.

    Attributes:
        reads: subject of its messages.
        ordered: whether they are handled in order by key.
        models: that it calls, with the version or alias.
        limits: its limits, as text by name; of sinks they are mqinfer's own and not told.
    """

    reads: str
    ordered: bool = False
    models: tuple[str, ...] = ()
    limits: dict[str, str] = {}


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint.

    Attributes:
        reads: subject of what is asked.
        answers: subjects of the answers.
        deadline: in seconds.
        keep: in seconds.
    """

    reads: str
    answers: tuple[str, ...]
    deadline: float
    keep: float


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A table.

    Attributes:
        columns: type of each.
        order_by: columns that sort it.
        keep: seconds after which a day is dropped; None is never.
    """

    columns: dict[str, str]
    order_by: tuple[str, ...]
    keep: float | None = None


class IndexFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An index.

    Attributes:
        models: subject of the vectors of each.
        key: field that says whose vector it is.
        vector: field of the vector.
        filters: fields that searches filter by.
        shards: of generations that are built from now on.
        parameters: of the same, by name.
    """

    models: dict[str, str]
    key: str
    vector: str
    filters: tuple[str, ...]
    shards: int
    parameters: dict[str, str | int]


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """An app.

    Attributes:
        app: its name.
        max_age: seconds that messages are kept.
        max_bytes: the most that the stream holds; None is no limit.
        replicas: copies of the streams.
        duplicate_window: seconds for which message ids are remembered.
        partitions: of ordered types.
        stages: stages and sinks, in the order of the app.
        tables: by name.
        endpoints: by name.
        indexes: by name.
    """

    app: str
    max_age: float
    max_bytes: int | None
    replicas: int
    duplicate_window: float
    partitions: int
    stages: dict[str, StageFacts]
    tables: dict[str, TableFacts]
    endpoints: dict[str, EndpointFacts]
    indexes: dict[str, IndexFacts] = {}


def declaration(app: App) -> Declaration:
    """What an app declares.

    Raises:
        ConfigurationError: its wiring is wrong.
    """
    return Declaration(
        app=app.name,
        max_age=app.max_age,
        max_bytes=app.max_bytes,
        replicas=app.replicas,
        duplicate_window=app.duplicate_window,
        partitions=app.partitions,
        stages={task.name: _stage(task) for task in plan.tasks(app)},
        tables={name: _table(name, app) for name in app.rows},
        endpoints={
            name: EndpointFacts(
                reads=one.reads.__mqinfer__.subject,
                answers=tuple(kind.__mqinfer__.subject for kind in one.answers),
                deadline=one.deadline,
                keep=one.keep,
            )
            for name, one in app.endpoints.items()
        },
        indexes={
            name: IndexFacts(
                models={model: kind.__mqinfer__.subject for model, kind in one.models.items()},
                key=one.key,
                vector=one.vector,
                filters=one.filters,
                shards=one.shards,
                parameters=dataclasses.asdict(one.parameters),
            )
            for name, one in app.indexes.items()
        },
    )


def _stage(task: Task) -> StageFacts:
    limits = {}
    if task.stage is not None:
        for field in dataclasses.fields(task.limits):
            value = getattr(task.limits, field.name)
            limits[field.name] = f"{value:g}" if isinstance(value, float) else str(value)
    return StageFacts(
        reads=task.reads.__mqinfer__.subject,
        ordered=task.ordered,
        models=tuple(_called(model) for model in task.stage.models) if task.stage else (),
        limits=limits,
    )


def _called(model: Model) -> str:
    if model.alias is not None:
        return f"{model.name}@{model.alias}"
    return model.name if model.version is None else f"{model.name} version {model.version}"


def _table(name: str, app: App) -> TableFacts:
    schema = schema_of(app.rows[name])
    columns = {column.name: column.kind.type for column in schema.columns}
    return TableFacts(columns=columns, order_by=schema.order_by, keep=schema.keep)
