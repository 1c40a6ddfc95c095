"""Endpoint: an inert declaration of what may be asked for, and what answers it.

A request is a message of the type that an endpoint reads, whose sender is told what comes of it;
see `mqinfer.requests`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.joinwiring import below
from mqinfer.message import Message, Row
from mqinfer.stage import Stage
from mqinfer.times import parse_duration

# Before the name of an endpoint, where its requests are roots (`completion.roots`): the subject of
# no type has two dots in a row.
ROOT: Final = "request.."
# And where chunks of its jobs are.
CHUNK: Final = "job.."
# Before the subject of a type, where messages come of a job, which have consumers of their own.
BULK: Final = "bulk."
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[A]):
    """What may be asked for.

    Attributes:
        name: of the endpoint.
        reads: the type of what is asked.
        answers: the types of the outputs that are answers.
        deadline: seconds after which nobody wants an answer any more.
        keep: seconds for which the answer is kept.
    """

    name: str
    reads: type[Message]
    answers: tuple[type[A], ...]
    deadline: float
    keep: float

    @property
    def root(self) -> str:
        """What the roots that are its requests have for a type."""
        return ROOT + self.name

    @property
    def chunk(self) -> str:
        """What the roots that are chunks of its jobs have for a type."""
        return CHUNK + self.name

    @property
    def wanted(self) -> frozenset[str]:
        """The subjects of the outputs that are answers."""
        return frozenset(kind.__mqinfer__.subject for kind in self.answers)


class Endpoints:
    """The part of `App` that declares endpoints.

    Attributes:
        endpoints: by name.
    """

    endpoints: dict[str, Endpoint[Any]]
    max_age: float
    _stages: dict[str, Stage] | None

    def endpoint(
        self,
        name: str,
        reads: type[Message],
        *,
        answers: type[A] | tuple[type[A], ...],
        deadline: float | str = "5m",
        keep: float | str = "24h",
    ) -> Endpoint[A]:
        """Declare what may be asked for by `client.request`, and what answers it.

            app.endpoint("grade", Photo, answers=Grade, deadline="5m", keep="24h")

        Args:
            name: letters, digits, - and _.
            reads: the type of what is asked: one that a stage reads.
            answers: the types of the outputs that are answers, in the order of their causes,
                whatever number of stages lies between. A `Row` is taken from the stream.
            deadline: after which a request ends, whatever came of it (seconds or "5m").
            keep: how long the answer can be fetched after that (seconds or "24h").

        Raises:
            WiringError: one of these cannot be used. What needs the stages to be known (who reads
                and who writes the types) is said when the wiring is read, as by `mqinfer check`.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise WiringError(
                f"endpoint {name!r}: a name is letters, digits, - and _, at most 40 of them"
            )
        if name in self.endpoints:
            raise WiringError(f"endpoint {name}: declared twice; give one another name")
        given = answers if isinstance(answers, tuple) else (answers,)
        kind = _message(name, reads, "the second argument")
        for one in given:
            _message(name, one, "answers=")
        kinds = tuple(dict.fromkeys(given))
        if not kinds:
            raise WiringError(f"endpoint {name}: answers= names no type")
        if issubclass(kind, Row):
            raise WiringError(
                f"endpoint {name}: {kind.__name__} is a Row, which ends in its table; ask with the "
                "message that leads to it, with the row in answers="
            )
        if not kind.__mqinfer__.foreign_ids:
            raise WiringError(
                f"endpoint {name}: {kind.__name__} has foreign_ids=False: nothing in its headers "
                "would say which request it is; leave that out, or ask with another type"
            )
        seconds = _seconds(name, "deadline", deadline)
        if not 0 < seconds < self.max_age:
            raise WiringError(
                f"endpoint {name}: deadline={deadline!r} must be more than 0 and less than max_age "
                f"of the app, {self.max_age:g} s, after which what is asked is gone"
            )
        kept = _seconds(name, "keep", keep)
        if kept < 1:
            raise WiringError(f"endpoint {name}: keep={keep!r} must be a second at least")
        made = Endpoint(name, kind, kinds, seconds, kept)
        self.endpoints[name] = made
        self._stages = None  # what was read of the wiring is read again
        return made


def _message(name: str, given: object, what: str) -> type[Message]:
    info = getattr(given, "__mqinfer__", None)
    if not (isinstance(given, type) and issubclass(given, Message)) or info is None:
        told = getattr(given, "__name__", None) or repr(given)
        raise WiringError(
            f"endpoint {name}: {what} is {told}, which is no message type: "
            'app.endpoint("name", Asked, answers=Answer), or a tuple of types'
        )
    return given


def _seconds(name: str, what: str, given: float | str) -> float:
    try:
        return parse_duration(given)
    except ConfigurationError as error:
        raise WiringError(f"endpoint {name}: {what}={error}") from None


def misanswered(
    endpoints: Mapping[str, Endpoint[Any]], stages: Mapping[str, Stage]
) -> Iterator[WiringError]:
    """Endpoints that could never answer, and types that are in the way of their jobs."""
    for stage in stages.values() if endpoints else ():
        for kind in (stage.reads, *stage.writes):
            if f"{kind.__mqinfer__.subject}.".startswith(BULK):
                yield WiringError(
                    f"stage {stage.name}: {kind.__name__} has subject "
                    f"{kind.__mqinfer__.subject!r}; in an app with endpoints {BULK[:-1]!r} belongs "
                    "to jobs"
                )
    for endpoint in endpoints.values():
        name = endpoint.reads.__name__
        if not any(stage.reads is endpoint.reads for stage in stages.values()):
            yield WiringError(
                f"endpoint {endpoint.name}: no stage reads {name}, so nothing ever comes of one; "
                "ask with a type that a stage reads"
            )
            continue
        writes = {
            kind for stage in below(stages, endpoint.reads, own=True) for kind in stage.writes
        }
        for kind in endpoint.answers:
            if kind not in writes:
                told = ", ".join(sorted(one.__name__ for one in writes)) or "nothing"
                yield WiringError(
                    f"endpoint {endpoint.name}: answers={kind.__name__}, which nothing below "
                    f"{name} writes; what comes of it is {told}"
                )
