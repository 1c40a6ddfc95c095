"""Known: the stages that an app has had, and where each one was, kept in the app's state bucket.

It tells a new app, whose stages handle what was published before its first worker, from a new stage
of an app that ran before, which must not handle the past unasked. It is one value, changed by
compare-and-set, to which workers only add, so that two versions keep what each of them knows. It is
written before the first consumer is made: whoever sees a consumer sees it, too.

The places are for a consumer that is gone (an operator deleted it, it expired): it is made again
where it was when somebody last looked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mqinfer import plan
from mqinfer.bucket import change

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.streams import Streams

KEY = "stages"


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a stage or sink was.

    Attributes:
        created: when the stream that it reads was made; "" before it has begun.
        floors: consumer -> all up to this sequence was acknowledged.
    """

    created: str = ""
    floors: dict[str, int] = {}


class Known(msgspec.Struct, frozen=True):
    """The stages and sinks of an app, those that are no more among them.

    Attributes:
        created: when the app's stream was made: in another one of its name nobody ran.
        written: when this was, in seconds since the epoch.
        stages: place of each.
    """

    created: str
    written: float = 0.0
    stages: dict[str, Place] = {}


def read(value: bytes | None, created: str | None) -> Known | None:
    """What lies in the bucket; None if that is nothing, or of an earlier stream.

    Args:
        value: of the bucket.
        created: when the app's stream was made.
    """
    try:
        found = msgspec.json.decode(value or b"", type=Known)
    except msgspec.MsgspecError:
        return None
    return found if found.created == created else None


async def load(bucket: Bucket, created: str | None) -> Known | None:
    """What is known, as a worker reads it.

    Raises:
        Unavailable: the bucket does not answer.
    """
    value, _ = await bucket.load(KEY) or (None, 0)
    return read(value, created)


async def look(app: App, streams: Streams) -> Known | None:
    """What is known, as somebody reads it who looks at streams.

    Raises:
        Unavailable: the server does not answer.
    """
    created = await streams.stream_created(app.name)
    name = plan.state_bucket(app)
    async for stored in streams.messages(f"KV_{name}", f"$KV.{name}.{KEY}"):
        return read(stored.data, created)
    return None


async def add(
    bucket: Bucket, created: str, names: Iterable[str], places: Mapping[str, Place]
) -> None:
    """Add stages, and say where some of them are now.

    Args:
        bucket: of the app's state.
        created: when the app's stream was made.
        names: of stages and sinks.
        places: of those that are under way.

    Raises:
        ConflictError: others were quicker again and again.
        Unavailable: the bucket does not answer.
        PermissionDenied: these credentials may not write it.
    """

    def grown(value: bytes | None) -> bytes:
        before = read(value, created) or Known(created)
        stages = {**dict.fromkeys(names, Place()), **before.stages, **places}
        return msgspec.json.encode(Known(created, time.time(), stages))

    await change(bucket, KEY, grown, what="the list of stages")


async def forget(bucket: Bucket, created: str, name: str) -> None:
    """Take out a stage that has another name now.

    Raises:
        ConflictError: others were quicker again and again.
        Unavailable: the bucket does not answer.
        PermissionDenied: these credentials may not write it.
    """

    def shrunk(value: bytes | None) -> bytes | None:
        before = read(value, created)
        if before is None or name not in before.stages:
            return value
        stages = {other: place for other, place in before.stages.items() if other != name}
        return msgspec.json.encode(Known(created, time.time(), stages))

    await change(bucket, KEY, shrunk, what="the list of stages")
