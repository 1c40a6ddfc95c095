"""Building: the app of a `models.toml`; a message, a stage and an endpoint for each model.

    app = mqinfer.catalog.app_of("models.toml")

What a model takes and gives is read from the version that was packed last, so that neither its
libraries nor its class are needed where workers and gateways run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mqinfer.app import App
from mqinfer.catalog.reading import Catalog, Entry, read, type_name
from mqinfer.catalog.types import message_type
from mqinfer.errors import ConfigurationError, ModelError, Reject
from mqinfer.model import Tensor
from mqinfer.packed.pack import facts_of, newest

if TYPE_CHECKING:
    from mqinfer.message import Message
    from mqinfer.model import Answer, Model
    from mqinfer.packed.schema import Tensors


def app_of(path: Path | str) -> App:
    """The app of a file; `mqinfer worker models.toml` and the like make it by themselves.

    For a model `iris` it has the message types `Iris` and `IrisAnswer` (`app.endpoints["iris"]`
    has both), a stage `iris` and an endpoint `iris`.

    Raises:
        ConfigurationError: what is wrong in the file, or a model in it is not packed yet.
    """
    catalog = read(path)
    try:
        app = App(catalog.app, max_age=catalog.max_age, replicas=catalog.replicas)
    except ConfigurationError as error:
        raise ConfigurationError(f"{catalog.file.name}: {error}") from error
    for name, entry in catalog.entries.items():
        _add(app, catalog, name, entry)
    return app


def _add(app: App, catalog: Catalog, name: str, entry: Entry) -> None:
    where = f"{catalog.file.name}: models.{name}"
    version = newest(catalog.repository / name)
    if version is None:
        raise ConfigurationError(
            f"{where} is not packed in {catalog.repository}: "
            f"mqinfer models pack {catalog.file.name}"
        )
    facts = facts_of(version)
    schema, about = facts["schema"], facts.get("about", {})
    asked = message_type(
        type_name(name), name, schema["inputs"], about.get("inputs", {}),
        about.get("doc") or f"What is asked of {name}.", where,
    )  # fmt: skip
    answer = message_type(
        f"{type_name(name)}Answer", f"{name}.answer", schema["outputs"], about.get("outputs", {}),
        f"What {name} answers.", where,
    )  # fmt: skip
    wanted = {label: Tensor(dtype, tuple(shape)) for label, (dtype, shape) in _sides(schema)}
    model = app.model(name, inputs=wanted)
    try:
        app.stage(name=name, models=(model,), timeout=entry.timeout, attempts=entry.attempts)(
            _handler(model, asked, answer, schema)
        )
        app.endpoint(
            entry.endpoint or name,
            asked,
            answers=answer,
            deadline=entry.deadline,
            keep=entry.keep,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _sides(schema: Mapping[str, Tensors]) -> list[tuple[str, tuple[str, list[int]]]]:
    """The inputs as they are sent: one value an item has a side of its own."""
    return [(label, (dtype, shape or [1])) for label, (dtype, shape) in schema["inputs"].items()]


def _handler(
    model: Model, asked: type[Message], answer: type[Message], schema: Mapping[str, Tensors]
) -> Callable[..., Any]:
    """What a stage does: a message's fields to the model, its outputs to a message."""
    inputs = [
        (label, np.dtype(object if dtype in ("string", "bytes") else dtype), shape or [1])
        for label, (dtype, shape) in _sides(schema)
    ]
    outputs = schema["outputs"]

    async def handle(message: Any) -> Any:
        given = {
            label: _array(label, getattr(message, label), dtype, sides)
            for label, dtype, sides in inputs
        }
        found = await model(**given)
        values = {label: _value(found, label, *outputs[label]) for label in outputs}
        try:
            return msgspec.convert(values, answer)
        except msgspec.ValidationError as error:
            raise ModelError(
                f"model {model.name}: it answered what its class does not declare: {error}"
            ) from None

    handle.__name__ = handle.__qualname__ = model.name
    handle.__annotations__ = {"message": asked, "return": answer}
    return handle


def _array(label: str, value: Any, dtype: np.dtype[Any], sides: list[int]) -> Any:
    """What a field holds, as the model takes it.

    Raises:
        Reject: it is larger than its type, or a nested list is not regular.
    """
    try:
        with np.errstate(over="ignore"):
            found = np.asarray([value] if sides == [1] and not isinstance(value, list) else value,
                               dtype)  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise Reject(f"{label}: {error}") from None
    if found.ndim != len(sides):
        raise Reject(f"{label} has {found.ndim} sides, not {len(sides)}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise Reject(f"{label} is larger than a {dtype} can be")
    return found


def _value(found: Answer, label: str, dtype: str, shape: list[int]) -> Any:
    """An output as a field has it."""
    value = found[label].tolist()
    if dtype == "string":
        value = _texts(value)
    return value if shape else value[0]


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value
