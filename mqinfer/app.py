"""App: the registry of messages, stages and models that share one stream.

An app is declared at import time and does no I/O. Handlers are kept as they were written; their
annotations are read when the wiring is first asked for, so that types may be declared in any order
and `mqinfer check` can report every mistake, not only the first.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mqinfer.errors import WiringError
from mqinfer.message import Message, Row
from mqinfer.model import Model, Tensor
from mqinfer.stage import Lifespan, Limits, Stage, read_signature
from mqinfer.times import parse_duration, parse_size

if TYPE_CHECKING:
    from mqinfer.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z0-9_-]+")
# Each is a consumer a stage, and an open request a worker.
MAX_PARTITIONS = 1024
# `mqinfer.connect`, which stands above this module and puts itself here for `App.connect`.
connector: Callable[[App, Settings | None], AbstractAsyncContextManager[Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Declared:
    """A decorated handler before its annotations are read."""

    name: str
    handler: Callable[..., Any]
    limits: dict[str, Any]
    models: tuple[Model, ...]
    lifespan: Lifespan | None
    scope: Mapping[str, Any]


class App:
    """One JetStream stream and what happens on it.

    Args:
        name: of the stream, and the first token of every subject.
        max_age: how long a message is kept, and so can be replayed (seconds or "7d").
        max_bytes: the most the stream may hold; the server reserves it. When it is reached,
            publishers wait. None is no limit.
        replicas: copies in a NATS cluster (1, 3 or 5).
        duplicate_window: how long the stream remembers message ids (seconds or "2m"); beyond
            it ClickHouse alone drops repeats.
        partitions: of every message type with `ordered=True`; so many of its messages are handled
            at once, by all workers together. Fixed once a worker has run.
        lifespan: entered once a process, before any stage starts.

    Raises:
        WiringError: the name cannot be one of a stream.
    """

    def __init__(
        self,
        name: str,
        *,
        max_age: float | str = "7d",
        max_bytes: int | str | None = None,
        replicas: int = 1,
        duplicate_window: float | str = "2m",
        partitions: int = 8,
        lifespan: Lifespan | None = None,
    ):
        if not _NAME.fullmatch(name) or name == "dead":
            raise WiringError(
                f"an app's name is letters, digits, - and _ (and not 'dead'): {name!r}"
            )
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise WiringError(f"app {name}: partitions={partitions} must be 1 to {MAX_PARTITIONS}")
        self.name = name
        self.partitions = partitions
        self.max_age = parse_duration(max_age)
        self.max_bytes = None if max_bytes is None else parse_size(max_bytes)
        self.replicas = replicas
        self.duplicate_window = min(parse_duration(duplicate_window), self.max_age)
        self.lifespan = lifespan
        self.models: dict[str, Model] = {}
        self._declared: list[_Declared] = []
        self._stages: dict[str, Stage] | None = None

    # --- declaring ------------------------------------------------------------------------------

    @overload
    def stage(self, handler: Handler, /) -> Handler: ...

    @overload
    def stage(
        self,
        *,
        name: str | None = None,
        models: tuple[Model, ...] = (),
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        **limits: Any,
    ) -> Callable[[Handler], Handler]: ...

    def stage(
        self,
        handler: Any = None,
        *,
        name: str | None = None,
        models: tuple[Model, ...] = (),
        lifespan: Lifespan | None = None,
        **limits: Any,
    ) -> Any:
        """Declare a stage; the handler is returned as it is, to be called in tests.

        Args:
            handler: when used as `@app.stage`.
            name: of the stage and its consumer; default the function's.
            models: that the handler calls in a way its code does not show.
            lifespan: makes `ctx.state`, once a process.
            limits: any field of `mqinfer.stage.Limits` (timeout=, attempts=, ...).
        """
        # Types declared inside a function are found in the frame that declares the stage.
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        scope = dict(caller.f_locals) if caller and caller.f_locals is not caller.f_globals else {}

        def declare(function: Handler) -> Handler:
            self._declared.append(
                _Declared(
                    name=name or str(getattr(function, "__name__", function)),
                    handler=function,
                    limits=limits,
                    models=models,
                    lifespan=lifespan,
                    scope=scope,
                )
            )
            self._stages = None
            return function

        return declare if handler is None else declare(handler)

    def model(
        self,
        name: str,
        *,
        version: str | int | None = None,
        alias: str | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> Model:
        """A handle on a model of the inference server.

        Args:
            name: on the server.
            version: pin one; None is the newest that the server serves.
            alias: follow the version that `mqinfer models APP --set NAME@ALIAS=VERSION` names, at
                run time; until it is set, `version` answers.
            inputs: what handlers send, for `mqinfer check` to compare.

        Raises:
            WiringError: the alias cannot be one.
        """
        if alias is not None and not _NAME.fullmatch(alias):
            raise WiringError(f"model {name}: an alias is letters, digits, - and _: {alias!r}")
        pinned = None if version is None else str(version)
        model = Model(name, version=pinned, alias=alias, inputs=inputs)
        key = name if pinned is None else f"{name}:{pinned}"
        self.models[key if alias is None else f"{key}@{alias}"] = model
        return model

    # --- reading the wiring ---------------------------------------------------------------------

    @property
    def stages(self) -> dict[str, Stage]:
        """Every stage by name.

        Raises:
            WiringError: the first mistake in the wiring.
        """
        if self._stages is None:
            stages, problems = self._resolve()
            if problems:
                raise problems[0]
            self._stages = stages
        return self._stages

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """Every type that a stage reads or writes, in the order of first use."""
        found: dict[type[Message], None] = {}
        for stage in self.stages.values():
            found.update(dict.fromkeys((stage.reads, *stage.writes)))
        return tuple(found)

    @property
    def rows(self) -> dict[str, type[Row]]:
        """Every row type by its table."""
        return {
            kind.__mqinfer__.table: kind
            for kind in self.messages
            if issubclass(kind, Row) and kind.__mqinfer__.table
        }

    def problems(self) -> list[WiringError]:
        """Every mistake in the wiring; empty when it is sound."""
        return self._resolve()[1]

    def _resolve(self) -> tuple[dict[str, Stage], list[WiringError]]:
        stages: dict[str, Stage] = {}
        problems: list[WiringError] = []
        for declared in self._declared:
            try:
                stage = self._stage(declared)
            except WiringError as error:
                problems.append(error)
                continue
            if stage.name in stages:
                problems.append(
                    WiringError(f"stage {stage.name}: declared twice; give one a name=")
                )
            stages[stage.name] = stage
        problems.extend(_collisions(stages))
        return stages, problems

    def _stage(self, declared: _Declared) -> Stage:
        name = declared.name
        if not _NAME.fullmatch(name) or name.startswith(("sink-", "run-")):
            raise WiringError(
                f"stage {name!r}: a name is letters, digits, - and _, not beginning with "
                "'sink-' or 'run-'; give it one with name="
            )
        try:
            limits = Limits(**declared.limits)
        except TypeError as error:
            known = ", ".join(Limits.__dataclass_fields__)
            raise WiringError(f"stage {name}: {error}; the limits are {known}") from None
        except WiringError as error:
            raise WiringError(f"stage {name}: {error}") from None
        used = {
            (model.name, model.version, model.alias): model
            for model in (*declared.models, *models_in(declared.handler))
        }
        return Stage(
            name=name,
            handler=declared.handler,
            signature=read_signature(name, declared.handler, declared.scope),
            limits=limits,
            models=tuple(used.values()),
            lifespan=declared.lifespan,
        )

    # --- names ----------------------------------------------------------------------------------

    def subject(self, kind: type[Message], run: str | None = None) -> str:
        """The subject of a message type, without its key."""
        base = self.name if run is None else f"{self.name}.run.{run}"
        return f"{base}.{kind.__mqinfer__.subject}"

    def filters(self, kind: type[Message], run: str | None = None) -> tuple[str, ...]:
        """The subjects a consumer of `kind` filters by."""
        subject = self.subject(kind, run)
        return (subject, f"{subject}.>") if kind.__mqinfer__.key else (subject,)

    def readers(self, kind: type[Message]) -> list[str]:
        """Names of the consumers that read `kind`: stages, and the sink of a row."""
        names = [stage.name for stage in self.stages.values() if stage.reads is kind]
        table = kind.__mqinfer__.table
        return names + ([f"sink-{table}"] if table else [])

    # --- running --------------------------------------------------------------------------------

    def connect(self, settings: Settings | None = None) -> AbstractAsyncContextManager[Any]:
        """The old name of `mqinfer.connect(app)`; it goes with the next release.

        Args:
            settings: None reads the environment.
        """
        warnings.warn(
            "app.connect() goes with the next release: write mqinfer.connect(app)",
            DeprecationWarning,
            stacklevel=2,
        )
        assert connector is not None
        return connector(self, settings)

    def __repr__(self) -> str:
        return f"App({self.name!r}, stages={[declared.name for declared in self._declared]})"


def models_in(handler: Callable[..., Any]) -> Iterator[Model]:
    """The models that a handler's code refers to, also in functions of its own module it calls."""
    seen: set[Any] = set()
    todo: list[Callable[..., Any]] = [inspect.unwrap(handler)]
    while todo:
        function = todo.pop()
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        closure = inspect.getclosurevars(function)
        for value in (*closure.globals.values(), *closure.nonlocals.values()):
            if isinstance(value, Model):
                yield value
            elif isinstance(value, (list, tuple, dict)):
                items = value.values() if isinstance(value, dict) else value
                yield from (item for item in items if isinstance(item, Model))
            elif inspect.isfunction(value) and value.__module__ == function.__module__:
                todo.append(value)


def _collisions(stages: Mapping[str, Stage]) -> Iterator[WiringError]:
    """Two types with one subject or table, and subjects that contain one another."""
    kinds: dict[type[Message], str] = {}
    for stage in stages.values():
        for kind in (stage.reads, *stage.writes):
            kinds.setdefault(kind, stage.name)
    seen: list[tuple[type[Message], str]] = []
    for kind, stage_name in kinds.items():
        info = kind.__mqinfer__
        if info.subject.split(".")[0] == "run":
            yield WiringError(
                f"stage {stage_name}: {kind.__name__} has subject {info.subject!r}; "
                "'run' belongs to replays"
            )
        for other, other_stage in seen:
            theirs = other.__mqinfer__
            if info.table is not None and info.table == theirs.table:
                yield WiringError(
                    f"stage {stage_name}: {kind.__name__} and {other.__name__} (stage "
                    f"{other_stage}) both have table {info.table!r}; rename one with table="
                )
            elif info.subject == theirs.subject:
                yield WiringError(
                    f"stage {stage_name}: {kind.__name__} and {other.__name__} (stage "
                    f"{other_stage}) both have subject {info.subject!r}; rename one with subject="
                )
            elif (theirs.key and info.subject.startswith(theirs.subject + ".")) or (
                info.key and theirs.subject.startswith(info.subject + ".")
            ):
                yield WiringError(
                    f"stage {stage_name}: the subjects {info.subject!r} and {theirs.subject!r} "
                    "overlap, since a key is a further token; rename one with subject="
                )
        seen.append((kind, stage_name))
