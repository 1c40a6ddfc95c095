"""The loops that are compared: consume, handle, publish with an id, acknowledge.

One file each. Every module has `async def drain(job: Job) -> Drained`, run in a process of its own
by `python -m benchmarks.contenders`; what a module needs beyond the standard library it imports in
there, so that a rival that is not installed is a row that is left out.

All keep the same promise: an input is acknowledged after its output was, both are on disk, and the
output has an id that is made of the input's.
"""

from __future__ import annotations

import json
import time

from msgspec import Struct


class Job(Struct, frozen=True):
    """What a contender has to do.

    Attributes:
        contender: the module here.
        url: of the broker.
        stream: to drain; its messages are on `<stream>.in`, outputs go to `<stream>.out`.
        messages: that wait there.
        size: bytes of each.
        loop: "asyncio" or "uvloop".
        processes: to work in.
    """

    contender: str
    url: str
    stream: str
    messages: int
    size: int
    loop: str = "asyncio"
    processes: int = 1


class Drained(Struct, frozen=True):
    """What it took.

    Attributes:
        messages: that the times are of.
        wall: seconds from the first pull to the last acknowledgement.
        cpu: processor seconds of the contender's own processes in that time.
        outputs: the number of each output, where the broker is not NATS and can only be looked
            into by the contender.
    """

    messages: int
    wall: float
    cpu: float
    outputs: list[int] | None = None


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, messages: int) -> Drained:
        return Drained(messages, time.perf_counter() - self._wall, time.process_time() - self._cpu)


def text(number: int, size: int) -> str:
    """What fills the message `number` up to `size` bytes of JSON, quotes and names included."""
    return "x" * max(1, size - len(json.dumps({"n": number, "text": ""})))


def payload(number: int, size: int) -> bytes:
    """The message `number` as JSON of `size` bytes."""
    return json.dumps({"n": number, "text": text(number, size)}).encode()
