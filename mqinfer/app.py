"""App: the registry of messages, stages and models that share one stream.

An app is declared at import time and does no I/O. Handlers are kept as they were written; their
annotations are read when the wiring is first asked for, so that types may be declared in any order
and `mqinfer check` can report every mistake, not only the first.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mqinfer import oldnames
from mqinfer.around import Surrounded, Surrounding, surround
from mqinfer.backoff import Backoff
from mqinfer.clocked import Clocked, StageKeywords
from mqinfer.collisions import collisions
from mqinfer.declared import Declared, declared_in, stage_of, unreadables
from mqinfer.endpoint import BULK, Endpoint, Endpoints, misanswered
from mqinfer.errors import WiringError
from mqinfer.index import Index, Indexes
from mqinfer.joinwiring import misjoined
from mqinfer.lifespan import Lifespan, misused
from mqinfer.message import Message, Row
from mqinfer.model import Model, Priority, Tensor
from mqinfer.schedule import Schedule
from mqinfer.stage import Stage, Start
from mqinfer.times import parse_duration, parse_size

if TYPE_CHECKING:
    from mqinfer.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z0-9_-]+")
# Streams beside an app's own: dead letters, copies of ordered types (`plan`), buckets of NATS.
_OURS = re.compile(r"-dead$|-settled$|-requests$|-ordered-|^KV_|^OBJ_")
# Each is a consumer a stage, and an open request a worker.
MAX_PARTITIONS = 1024


class App(Clocked, Endpoints, Indexes, Surrounded):
    """One JetStream stream and what happens on it.

    Args:
        name: of the stream, and the first token of every subject.
        max_age: how long a message is kept, and so can be replayed (seconds or "7d").
        max_bytes: the most the stream may hold; the server reserves it. When it is reached,
            publishers wait. None is no limit.
        replicas: copies in a NATS cluster (1, 3 or 5).
        duplicate_window: how long the stream remembers message ids (seconds or "2m"); beyond
            it ClickHouse alone drops repeats.
        partitions: of every message type with `ordered=True`; each is handled by one worker at a
            time, many keys at once. Fixed once a worker has run.
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
        if not _NAME.fullmatch(name) or name in ("dead", "settled", "requests"):
            raise WiringError(
                "an app's name is letters, digits, - and _ (and not 'dead', 'settled' or "
                f"'requests'): {name!r}"
            )
        if _OURS.search(name):
            raise WiringError(
                "an app's name does not end in '-dead', '-settled' or '-requests', hold "
                "'-ordered-' or begin with 'KV_' or 'OBJ_': so are streams called that stand "
                f"beside another app's: {name!r}"
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
        self.endpoints: dict[str, Endpoint[Any]] = {}
        self.indexes: dict[str, Index] = {}
        self._declared: list[Declared] = []
        self._surroundings: list[Surrounding] = []
        self._stages: dict[str, Stage] | None = None

    # --- declaring ------------------------------------------------------------------------------

    @overload
    def stage(self, handler: Handler, /) -> Handler: ...

    @overload
    def stage(
        self,
        *,
        name: str | None = None,
        models: Sequence[Model] = (),
        lifespan: Lifespan | None = None,
        early: bool = False,
        start: Start | str | None = None,
        later: type[Message] | Sequence[type[Message]] = (),
        max_in_flight: int = 2048,
        max_bytes: int | str = 64 * 1024 * 1024,
        concurrency: int | None = None,
        timeout: float | str = 60.0,
        attempts: int = 5,
        snooze_for: float | str = 86_400.0,
        backoff: Backoff = Backoff(),
        ack_wait: float | str = 30.0,
        batch_size: int = 100,
        batch_wait: float | str = 0.05,
        max_downstream: int | None = 1_000_000,
    ) -> Callable[[Handler], Handler]: ...

    def stage(
        self,
        handler: Handler | None = None,
        *,
        name: str | None = None,
        models: Sequence[Model] = (),
        lifespan: Lifespan | None = None,
        early: bool = False,
        start: Start | str | None = None,
        later: type[Message] | Sequence[type[Message]] = (),
        max_in_flight: int = 2048,
        max_bytes: int | str = 64 * 1024 * 1024,
        concurrency: int | None = None,
        timeout: float | str = 60.0,
        attempts: int = 5,
        snooze_for: float | str = 86_400.0,
        backoff: Backoff = Backoff(),
        ack_wait: float | str = 30.0,
        batch_size: int = 100,
        batch_wait: float | str = 0.05,
        max_downstream: int | None = 1_000_000,
        **unknown: object,
    ) -> Handler | Callable[[Handler], Handler]:
        """Declare a stage; the handler is returned as it is, to be called in tests.

        The limits are told more of in `mqinfer.stage.Limits`.

        Args:
            handler: when used as `@app.stage`.
            name: of the stage and its consumer; default the function's.
            models: that the handler calls in a way its code does not show.
            lifespan: makes `ctx.state`, once a process.
            early: of a handler that yields: each output leaves at once, and stays on the stream
                also when the handler fails later.
            start: where a stage begins that never ran: "oldest", "new" (what is published from
                then on), a datetime, or "2h" (ago). None is "oldest" in a new app; in one that ran
                before a worker asks, if there is anything old. Without effect once it has begun.
            later: the message types that the handler sets timers of with `ctx.later`.
            max_in_flight: messages taken and not yet acknowledged; 2048.
            max_bytes: of their payloads and headers (bytes or "64MB"); 64 MiB.
            concurrency: handlers that run at once; None is 512 for `async def`, and twice the
                processors for a plain `def`.
            timeout: of one handling, outages not counted (seconds or "2m"); 60 s.
            attempts: that may fail before a message is dead-lettered; 5.
            snooze_for: seconds for which a message may be snoozed without a break; a day.
            backoff: the wait between attempts; 0.5 s, doubled up to 60 s.
            ack_wait: after which a silent worker's messages go to another (seconds or "30s"); 30 s.
            batch_size: the most messages a batch handler gets at once; 100.
            batch_wait: the longest a batch waits for more (seconds or "50ms"); 50 ms.
            max_downstream: messages that may wait for a stage that reads what this one writes, or
                rows (about) for its sink; above it, this stage stops pulling. None is no bound;
                1,000,000.
            unknown: is refused when the wiring is read, with every other mistake in it.
        """
        if isinstance(handler, str):
            raise WiringError(f"stage: write its name as name=: @app.stage(name={handler!r})")
        clock = unknown.get("clock")
        if isinstance(clock, Schedule):  # of `every` or `cron`
            del unknown["clock"]
        scope = declared_in(4 if isinstance(clock, Schedule) else 2)
        limits: dict[str, object] = {
            "max_in_flight": max_in_flight,
            "max_bytes": max_bytes,
            "concurrency": concurrency,
            "timeout": timeout,
            "attempts": attempts,
            "snooze_for": snooze_for,
            "backoff": backoff,
            "ack_wait": ack_wait,
            "batch_size": batch_size,
            "batch_wait": batch_wait,
            "max_downstream": max_downstream,
            **unknown,
        }

        def declare(function: Handler) -> Handler:
            self._declared.append(
                Declared(
                    name=name or str(getattr(function, "__name__", function)),
                    handler=function,
                    limits=limits,
                    models=tuple(models),
                    lifespan=lifespan,
                    early=early,
                    start=start,
                    later=later,
                    clock=clock if isinstance(clock, Schedule) else None,
                    scope=scope,
                )
            )
            self._stages = None
            return function

        return declare if handler is None else declare(handler)

    def _clocked(self, clock: Schedule, stage: StageKeywords) -> Callable[[Handler], Handler]:
        declare: Any = self.stage
        made: Callable[[Handler], Handler] = declare(clock=clock, **{"max_in_flight": 1, **stage})
        return made

    def join(
        self,
        root: type[Message],
        *,
        of: type[Message] | tuple[type[Message], ...],
        deadline: float | str | None = None,
        name: str | None = None,
        models: Sequence[Model] = (),
        lifespan: Lifespan | None = None,
        **limits: Any,
    ) -> Callable[[Handler], Handler]:
        """Declare a handler that is called once for each `root`, when all that came of it is done.

            @app.join(Photo, of=Grade, deadline="10m")
            async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report: ...

        Args:
            root: the type that it is called for.
            of: the types of the outputs that it is given, in the order of their causes.
            deadline: after which it is called with what there is (seconds or "10m"), from when the
                stream took the root. None waits for as long as messages are kept.
            name: of the join and its consumer; default the function's.
            models: as of a stage, and so are these:
            lifespan: makes `ctx.state`, once a process.
            limits: timeout, attempts and the others.
        """
        scope = declared_in(2)

        def declare(function: Handler) -> Handler:
            self._declared.append(
                Declared(
                    name=name or str(getattr(function, "__name__", function)),
                    handler=function,
                    limits=limits,
                    models=tuple(models),
                    lifespan=lifespan,
                    scope=scope,
                    join=(root, of, deadline),
                )
            )
            self._stages = None
            return function

        return declare

    def model(
        self,
        name: str,
        *,
        version: str | int | None = None,
        alias: str | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        timeout: float | None = None,
        priority: Priority = "live",
        max_batch: int | None = None,
        pad: Mapping[str, bool | float | str | bytes] | None = None,
    ) -> Model:
        """A handle on a model of the inference server.

        Args:
            name: on the server.
            version: pin one; None is the newest that the server serves.
            alias: follow the version that `mqinfer models APP --set NAME@ALIAS=VERSION` names, at
                run time; until it is set, `version` answers.
            inputs: what handlers send, for `mqinfer check` to compare.
            timeout: seconds a call may take outside of a handler, outages included; None is ten
                minutes. In a handler its stage's timeout bounds it.
            priority: "bulk" lets the live calls of the same process go before, as those of a replay
                do; a quarter of the requests is left to bulk calls while live ones wait.
            max_batch: the most items of one request, where that is to be less than the model's own
                bound.
            pad: by input, the value that it is filled up with at its end, so that items of
                different lengths go together in one request: `pad={"tokens": 0, "mask": 0}`.

        Raises:
            WiringError: one of these cannot be used.
        """
        if alias is not None and not _NAME.fullmatch(alias):
            raise WiringError(f"model {name}: an alias is letters, digits, - and _: {alias!r}")
        if timeout is not None and not timeout > 0:
            raise WiringError(f"model {name}: timeout={timeout!r} must be more than 0 seconds")
        if priority not in ("live", "bulk"):
            raise WiringError(f"model {name}: priority={priority!r} must be 'live' or 'bulk'")
        if max_batch is not None and (type(max_batch) is not int or max_batch < 1):
            raise WiringError(f"model {name}: max_batch is at least 1, not {max_batch!r}")
        for one, value in dict(pad or {}).items():
            if not isinstance(one, str) or not isinstance(value, bool | int | float | str | bytes):
                raise WiringError(
                    f"model {name}: pad is an input's name and a number or text, "
                    f'such as {{"tokens": 0}}, not {one!r}: {value!r}'
                )
        pinned = None if version is None else str(version)
        model = Model(
            name,
            version=pinned,
            alias=alias,
            inputs=inputs,
            timeout=timeout,
            priority=priority,
            max_batch=max_batch,
            pad=pad,
        )
        model.app = self
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
            stages, problems = self.resolve()
            if problems:
                raise problems[0]
            self._stages = stages
        return self._stages

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """Every type that a stage reads, writes or sets timers of, or that is indexed.

        In the order of first use.
        """
        found: dict[type[Message], None] = {}
        for stage in self.stages.values():
            found.update(dict.fromkeys((stage.reads, *stage.sends)))
        for index in self.indexes.values():
            found.update(dict.fromkeys(index.models.values()))
        return tuple(found)

    @property
    def rows(self) -> dict[str, type[Row]]:
        """Every row type by its table."""
        return {
            kind.__mqinfer__.table: kind
            for kind in self.messages
            if issubclass(kind, Row) and kind.__mqinfer__.table
        }

    def resolve(self) -> tuple[dict[str, Stage], list[WiringError]]:
        """The stages that are sound, by name, and every mistake in the wiring."""
        stages: dict[str, Stage] = {}
        problems = [*misused(f"app {self.name}", self.lifespan)]
        for declared in self._declared:
            try:
                stage = stage_of(declared, self.max_age)
            except WiringError as error:
                problems.append(error)
                continue
            if stage.name in stages:
                problems.append(
                    WiringError(f"stage {stage.name}: declared twice; give one a name=")
                )
            stages[stage.name] = stage
        stages, wrong = surround(stages, self._surroundings)
        problems.extend(wrong)
        problems.extend(collisions(stages))
        problems.extend(misjoined(stages))
        problems.extend(misanswered(self.endpoints, stages))
        problems.extend(unreadables(stages))
        return stages, problems

    # --- names ----------------------------------------------------------------------------------

    def subject(self, kind: type[Message], run: str | None = None, *, bulk: bool = False) -> str:
        """The subject of a message type, without its key.

        Args:
            kind: the type.
            run: a replay run, or None.
            bulk: of what comes of jobs, where that has consumers of its own.
        """
        base = self.name if run is None else f"{self.name}.run.{run}"
        return f"{base}.{BULK if bulk else ''}{kind.__mqinfer__.subject}"

    def filters(
        self, kind: type[Message], run: str | None = None, *, bulk: bool = False
    ) -> tuple[str, ...]:
        """The subjects a consumer of `kind` filters by; arguments as of `subject`."""
        subject = self.subject(kind, run, bulk=bulk)
        return (subject, f"{subject}.>") if kind.__mqinfer__.key else (subject,)

    def kind_of(self, subject: str) -> type[Message] | None:
        """The message type that a full subject, with a key or without, belongs to."""
        own = f"{self.name}."
        subject = own + subject.removeprefix(own).removeprefix(BULK)
        for kind in self.messages:
            base = self.subject(kind)
            if subject == base or (kind.__mqinfer__.key and subject.startswith(base + ".")):
                return kind
        return None

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
        assert oldnames.connector is not None
        connecting: AbstractAsyncContextManager[Any] = oldnames.connector(self, settings)
        return connecting

    def __repr__(self) -> str:
        return f"App({self.name!r}, stages={[declared.name for declared in self._declared]})"
