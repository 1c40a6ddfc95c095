"""Join: an inert declaration of what a handler waits for: all that came of one message.

It is handled as a stage is, whose messages are told by the tracker; see `mqinfer.joins`.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import field

from mqinfer.blob import Blob
from mqinfer.completion.assemble import Died, Found
from mqinfer.completion.record import Payload
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.message import Message, MessageMeta
from mqinfer.times import parse_duration

SUBJECT = "joined"  # the first token of the subjects of what joins are told


@dataclass(frozen=True, slots=True)
class Join:
    """What a join waits for.

    Attributes:
        name: of the join, its stage and its consumer.
        root: the type of the messages that it is called for.
        of: the types of the outputs that it is given.
        deadline: seconds after the root was stored; None waits for as long as messages are kept.
        joined: the type of what its stage reads.
    """

    name: str
    root: type[Message]
    of: tuple[type[Message], ...]
    deadline: float | None
    joined: type[Joined]


class Joined(Message, subject=SUBJECT, wire="msgpack"):
    """What the stage of a join is told; each join has a type derived from this one.

    Attributes:
        root: the bytes of the root.
        outputs: in the order of their causes.
        died: what was dead-lettered.
        incomplete: why that is not all, or "".
        missing: by stage, how many messages it has not settled.
        stored: root, outputs and what died, where they are too much for a message.
    """

    root: Payload | None
    outputs: tuple[Found, ...]
    died: tuple[Died, ...] = ()
    incomplete: str = ""
    missing: dict[str, int] = field(default_factory=dict)
    stored: Blob | None = None


def joined_type(name: str) -> type[Joined]:
    """The type of what the stage of one join reads."""
    namespace = {"__module__": __name__, "__qualname__": f"Joined[{name}]"}
    kind: type[Joined] = MessageMeta(
        f"Joined[{name}]", (Joined,), namespace, subject=f"{SUBJECT}.{name}", wire="msgpack"
    )
    return kind


def read_deadline(name: str, given: float | str | None, max_age: float) -> float | None:
    """The `deadline=` that `app.join` was given, in seconds.

    Raises:
        WiringError: it is no duration, or longer than messages are kept.
    """
    if given is None:
        return None
    try:
        seconds = parse_duration(given)
    except ConfigurationError as error:
        raise WiringError(f"join {name}: deadline={error}") from None
    if not 0 < seconds < max_age:
        raise WiringError(
            f"join {name}: deadline={given!r} must be more than 0 and less than max_age of the "
            f"app, {max_age:g} s, after which its root is gone"
        )
    return seconds
