"""Places: where timers lie, and which of two that want one place counts. Pure.

The timers of an app are messages of a stream of their own, `<app>=timers`. A place belongs to one
name of one stage and key, or to one timer without a name, and all below it is one history:

    <app>=timers.<stage>.<slot>.at.<operation>    waits: JetStream stores it when it is time, as
    <app>=timers.<stage>.<slot>.fired.<subject>   copied by the app's stream as `<app>.<subject>`
    <app>=timers.<stage>.<slot>.cancel            nothing is to come

The newest message of a place says what counts, and is replaced on the condition that it still is
the newest. Where that has come another may wait yet: one that replaced it as it came, which counts,
or one that it replaced, whose end a death or an outage has delayed. Each carries its order
(`Mq-Order`): where the message whose handler asked for it lies in the app's stream, or, where a
client did, one more than the last word had. What a message asks again, or later than one that came
after it, changes nothing.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

# Of what a timer is; they travel with the message that comes of it.
ORDER: Final = "Mq-Order"
OPERATION: Final = "Mq-Timer"
NAME: Final = "Mq-Timer-Name"
KEY: Final = "Mq-Timer-Key"
DUE: Final = "Mq-Due"

# What a client sets has this in the place of a stage; no stage is called so.
CLIENT: Final = "=client"
# Timers of one handling are numbered from here: outputs keep their numbers whatever is set.
FIRST: Final = 1 << 33

Order = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest message of a place.

    Attributes:
        sequence: in the stream of timers.
        kind: "at" (waits), "fired" or "cancel".
        headers: its own.
    """

    sequence: int
    kind: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """What was asked for, which whoever asks again calls the same."""
        return self.headers.get(OPERATION, "")

    @property
    def order(self) -> Order:
        """Where it was asked for."""
        return parse_order(self.headers.get(ORDER, ""))


def stream_of(app: str) -> str:
    """The stream of the timers of an app; no app can be called so."""
    return f"{app}=timers"


def place(app: str, stage: str, slot: str) -> str:
    """What the subjects of one place begin with."""
    return f"{stream_of(app)}.{stage}.{slot}"


def slot_of(name: str, key: str | None) -> str:
    """The slot of a name, among those of one stage; BLAKE2b with 16 bytes of digest (RFC 7693)."""
    text = f"{'' if key is None else key}\x1f{name}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def moment(seconds: float) -> str:
    """A time as the server reads it (RFC 3339, UTC), in milliseconds, never before `seconds`."""
    milliseconds = math.ceil(seconds * 1000)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    time = epoch + datetime.timedelta(milliseconds=milliseconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def era_of(created: str | None) -> int:
    """When a stream was made, as a number that orders streams of one name; 0 if that is not known.

    Args:
        created: as JetStream tells it (RFC 3339).
    """
    return int(datetime.datetime.fromisoformat(created).timestamp() * 1e6) if created else 0


def format_order(order: Order) -> str:
    """The inverse of `parse_order`."""
    return f"{order[0]}.{order[1]}"


def parse_order(text: str) -> Order:
    """The order in a header; (0, 0) where there is none."""
    first, _, second = text.partition(".")
    if not (first.isascii() and first.isdecimal() and second.isascii() and second.isdecimal()):
        return (0, 0)
    return (int(first[:20]), int(second[:20]))


def later_of(newest: Entry | None, waiting: Entry | None) -> Entry | None:
    """The last word of a place: what waits in it may have been asked for after what has come.

    Args:
        newest: message of the place.
        waiting: the newest one that waits in it.
    """
    if newest is not None and waiting is not None and waiting.order > newest.order:
        return waiting
    return newest


def stands(last: Entry, operation: str, order: Order | None, *, once: bool = False) -> bool:
    """Whether the last word of a place stays although `operation` is asked for.

    Args:
        last: word of the place; see `later_of`.
        operation: that is asked for.
        order: of it; None is after all that is there.
        once: whether what has come is never asked for again.
    """
    if last.operation == operation or (order is not None and last.order >= order):
        return True
    return once and last.kind == "fired"
