"""Stage: an inert, frozen declaration of a handler and its limits; nothing here does I/O.

What the annotations of the handler say is its signature; see `mqinfer.signature`.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mqinfer.backoff import Backoff
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.hooks import Hook
from mqinfer.join import Join
from mqinfer.lifespan import Lifespan
from mqinfer.message import Message
from mqinfer.model import Model
from mqinfer.referred import referred
from mqinfer.schedule import Schedule
from mqinfer.signature import Signature
from mqinfer.times import parse_duration, parse_size, parse_time

# Where a stage begins that has no consumer yet; what was stored before is not handled.
Start = datetime.datetime | Literal["oldest", "new"]

# The limits that may be written as text.
_PARSED: Mapping[str, Callable[[str], float]] = {
    "max_bytes": parse_size,
    "timeout": parse_duration,
    "snooze_for": parse_duration,
    "ack_wait": parse_duration,
    "batch_wait": parse_duration,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the work of one stage in one process.

    Attributes:
        max_in_flight: messages taken from the stream and not yet acknowledged. Of these, 512 (or as
            many as the handlers take) may wait for a handler or be in it; outputs of the others
            are being stored.
        max_bytes: their payloads and headers, in bytes.
        concurrency: handlers that run at once; None is 512 (or `max_in_flight`, if that is less)
            for `async def` and twice the processors for a plain `def`, which runs in threads.
        timeout: seconds one handling may take; then it has failed. Neither outages count nor the
            time for which model calls stand behind those of other messages of this process; a call
            that was sent has what is left of it. So it is longer than the model takes, times the
            processes that share it.
        attempts: that may fail before a message is dead-lettered. A restart, a delivery that
            never began, a server that is away and a `Snooze` spend none.
        snooze_for: seconds for which a message may be snoozed without a break.
        backoff: the wait between attempts.
        ack_wait: seconds after which the server gives a silent worker's messages to another
            (fixed when the consumer is created; changed on the next start of a worker).
        batch_size: the most messages a batch handler gets at once.
        batch_wait: the longest a batch waits for more, in seconds, once it has a first message.
        max_downstream: messages waiting for a stage that reads what this one writes, or rows for
            its sink (about: packs of them are counted); above it this stage stops pulling. None is
            no bound.
    """

    max_in_flight: int = 2048
    max_bytes: int = 64 * 1024 * 1024
    concurrency: int | None = None
    timeout: float = 60.0
    attempts: int = 5
    snooze_for: float = 86_400.0
    backoff: Backoff = Backoff()
    ack_wait: float = 30.0
    batch_size: int = 100
    batch_wait: float = 0.05
    max_downstream: int | None = 1_000_000

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            WiringError: naming the limit and its range.
        """
        for name, least, optional in (
            ("max_in_flight", 1, False),
            ("max_bytes", 1024, False),
            ("concurrency", 1, True),
            ("timeout", 0.001, False),
            ("attempts", 1, False),
            ("snooze_for", 0.0, False),
            ("ack_wait", 0.3, False),
            ("batch_size", 1, False),
            ("batch_wait", 0.0, False),
            ("max_downstream", 1, True),
        ):
            value = getattr(self, name)
            if value is None and optional:
                continue
            none = ", or None" if optional else ""
            whole = isinstance(least, int)
            kinds = int if whole else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool):
                kind = "a whole number" if whole else "a number"
                raise WiringError(f"{name}={value!r} must be {kind}{none}")
            if not value >= least:
                raise WiringError(f"{name}={value} must be at least {least}{none}")
        if not isinstance(self.backoff, Backoff):
            raise WiringError(f"backoff={self.backoff!r} must be a mqinfer.Backoff")


@dataclass(frozen=True, slots=True)
class Stage:
    """One handler bound to a subject; the durable consumer has its name.

    Attributes:
        name: the stage's and its consumer's name.
        handler: the function as the user wrote it.
        signature: what it reads and writes.
        limits: what bounds it.
        models: that the handler's code refers to, or that were named with `models=`.
        lifespan: makes `ctx.state`, once a process.
        early: each output leaves as it is yielded, not when the handler is done.
        start: where it begins; None is at the oldest message in a new app, and asked about in one
            that ran before. Without effect once it has begun.
        later: the message types that it may set timers of.
        clock: when the clock feeds it; None is a stage that messages feed.
        join: what it waits for, if it is the stage of a join.
        around: hooks around the handler, the outermost first.

    Raises:
        WiringError: nothing is yielded that could leave early.
    """

    name: str
    handler: Callable[..., Any]
    signature: Signature
    limits: Limits
    models: tuple[Model, ...] = ()
    lifespan: Lifespan | None = None
    early: bool = False
    start: Start | None = None
    later: tuple[type[Message], ...] = ()
    clock: Schedule | None = None
    join: Join | None = None
    around: tuple[Hook, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be early."""
        if self.early and (self.signature.batch or self.signature.kind == "coroutine"):
            raise WiringError(
                f"stage {self.name}: early=True is for a handler of one message that yields; "
                "another one calls `await ctx.emit(output)`"
            )

    @property
    def reads(self) -> type[Message]:
        """The message type that the stage reads."""
        return self.signature.reads

    @property
    def writes(self) -> tuple[type[Message], ...]:
        """The message types that the stage may write."""
        return self.signature.writes

    @property
    def sends(self) -> tuple[type[Message], ...]:
        """The message types that it may write, or set timers of."""
        return tuple(dict.fromkeys((*self.writes, *self.later)))


def read_limits(name: str, given: Mapping[str, Any]) -> Limits:
    """The limits that `app.stage` was given, where times and sizes may be text ("2m", "64MB").

    Args:
        name: the stage's name, for error texts.
        given: by the names of `Limits`.

    Raises:
        WiringError: there is no such limit, or its value cannot work.
    """
    known = Limits.__dataclass_fields__
    if unknown := [limit for limit in given if limit not in known]:
        raise WiringError(
            f"stage {name}: {unknown[0]}= is no keyword of a stage; "
            f"the limits are {', '.join(known)}"
        )
    values = dict(given)
    for limit, parse in _PARSED.items():
        if isinstance(values.get(limit), str):
            try:
                values[limit] = parse(values[limit])
            except ConfigurationError as error:
                raise WiringError(f"stage {name}: {limit}={error}") from None
    try:
        return Limits(**values)
    except WiringError as error:
        raise WiringError(f"stage {name}: {error}") from None


def read_start(name: str, given: object, reads: type[Message]) -> Start | None:
    """The `start=` that `app.stage` was given.

    Args:
        name: the stage's name, for error texts.
        given: "oldest", "new", a time, or how long ago.
        reads: the type that the stage reads.

    Raises:
        WiringError: it is none of these, or cannot be for an ordered type.
    """
    if given is None or given == "oldest":
        return given
    if reads.__mqinfer__.ordered:
        raise WiringError(
            f"stage {name}: start={given!r} cannot be for {reads.__name__}, which is ordered: its "
            "copies are younger than its messages; leave it out"
        )
    if given == "new":
        return "new"
    if isinstance(given, datetime.datetime):
        zone = datetime.UTC if given.tzinfo is None else given.tzinfo
        return given.replace(tzinfo=zone).astimezone(datetime.UTC)
    if isinstance(given, str):
        try:
            return parse_time(given)
        except ConfigurationError as error:
            raise WiringError(f"stage {name}: start={error}; or 'oldest', or 'new'") from None
    raise WiringError(
        f"stage {name}: start={given!r} must be 'oldest', 'new', a datetime, or text such as '2h'"
    )


def read_later(name: str, given: object) -> tuple[type[Message], ...]:
    """The `later=` that `app.stage` was given.

    Args:
        name: the stage's name, for error texts.
        given: a message type, or several.

    Raises:
        WiringError: it is neither.
    """
    kinds = given if isinstance(given, (list, tuple)) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Message)) or (
            getattr(kind, "__mqinfer__", None) is None
        ):
            raise WiringError(
                f"stage {name}: later= names the message types that it sets timers of, not "
                f"{getattr(kind, '__name__', kind)}"
            )
    return tuple(dict.fromkeys(kinds))


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
        for value in referred(function).values():
            if isinstance(value, Model):
                yield value
            elif isinstance(value, (list, tuple, dict)):
                items = value.values() if isinstance(value, dict) else value
                yield from (item for item in items if isinstance(item, Model))
            elif inspect.isfunction(value) and value.__module__ == function.__module__:
                todo.append(value)
