"""Reading: states as a person, a client or a check looks at them; and how one begins anew."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from mqinfer import plan
from mqinfer.bucket import change
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError, DecodeError, StateError
from mqinfer.message import key_token
from mqinfer.state import record as records

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.stage import Stage
    from mqinfer.statetype import State
    from mqinfer.streams import Stored, Streams

MSGPACK = "application/msgpack"
_PASSES = 3


class Kept(msgspec.Struct, frozen=True):
    """A state as it lies in its bucket.

    Attributes:
        key: as text.
        state: None where it was reset, or cannot be read.
        sequence: of the last message that changed it.
        time: of its last change.
        problem: why it cannot be read as its type is now, or "".
        place: in the bucket's stream.
    """

    key: str
    state: State | None
    sequence: int
    time: datetime.datetime
    problem: str = ""
    place: int = 0


def remembering(app: App, name: str) -> tuple[Stage, type[State]]:
    """A stage that remembers, and the type of its states.

    Raises:
        ConfigurationError: there is none of that name, or it remembers nothing.
    """
    (task,) = plan.tasks(app, [name])
    if task.stage is None or task.remembers is None:
        others = [stage.name for stage in app.stages.values() if stage.signature.state is not None]
        raise ConfigurationError(
            f"stage {name} of app {app.name} has no states; those that have: "
            f"{', '.join(others) or 'none'}"
        )
    return task.stage, task.remembers


async def load(
    app: App, name: str, key: object, bucket: Bucket, codec: Codec, run: str | None = None
) -> State | None:
    """The state of a key; None where there is none, or it was reset.

    Raises:
        ConfigurationError: the stage has no states.
        StateError: it cannot be read as its type is now.
        Unavailable: the server does not answer.
    """
    _, kind = remembering(app, name)
    found = await bucket.load(records.bucket_key(name, run, key_token(key)))
    if found is None or not found[0]:
        return None
    one = records.decode(found[0])
    if one.empty:
        return None
    try:
        return codec.decode(kind, bytes(one.data), MSGPACK)
    except DecodeError as error:
        raise StateError(f"the state of stage {name} for key {str(key)!r}: {error}") from None


async def listed(
    app: App,
    name: str,
    streams: Streams,
    codec: Codec,
    run: str | None = None,
    *,
    token: str | None = None,
    first: int = 1,
) -> AsyncGenerator[Kept]:
    """The states of a stage, those that changed last at the end.

    A state that changes meanwhile may come again.

    Args:
        app: whose.
        name: of the stage.
        streams: of the server.
        codec: to decode.
        run: the replay run, or None.
        token: of one key alone, as it stands in subjects; None is all.
        first: place in the bucket's stream from which on.

    Raises:
        ConfigurationError: the stage has no states.
        Unavailable: the server does not answer.
    """
    _, kind = remembering(app, name)
    bucket = plan.memory_bucket(app)
    stream = f"KV_{bucket}"
    start = f"$KV.{bucket}.{records.prefix(name, run)}"
    subjects = [start, f"{start}.>"]
    if token is not None:
        subjects = [f"$KV.{bucket}.{records.bucket_key(name, run, token)}"]
    for _ in range(_PASSES):  # what changed behind the last one's back is at the stream's end
        info = await streams.stream_info(stream)
        last = 0 if info is None else int(info["state"]["last_seq"])
        if last < first:
            return
        for subject in subjects:
            async for stored in streams.messages(stream, subject, first=first, last=last):
                if stored.data:
                    yield _kept(stored, start, kind, codec)
        first = last + 1


def _kept(stored: Stored, start: str, kind: type[State], codec: Codec) -> Kept:
    token = stored.subject.removeprefix(start).removeprefix(".")
    key, sequence, state, problem = records.text_of(token), 0, None, ""
    try:
        one = records.decode(stored.data)
        key, sequence = one.key if records.is_cut(token) else key, one.sequence
        if not one.empty:
            state = codec.decode(kind, bytes(one.data), MSGPACK)
    except (StateError, DecodeError) as error:
        problem = str(error)
    return Kept(key, state, sequence, stored.time, problem, stored.sequence)


async def reset(app: App, name: str, key: str, bucket: Bucket, run: str | None = None) -> bool:
    """Let the state of a key begin anew, also beside workers at work.

    What it has seen stays: no message is applied a second time. A message that is handled
    meanwhile comes again, to the new state.

    Returns:
        Whether there was one.

    Raises:
        ConfigurationError: the stage has no states.
        ConflictError: workers were quicker again and again.
        Unavailable: the server does not answer; it may have been reset.
    """
    remembering(app, name)

    def emptied(value: bytes | None) -> bytes | None:
        if value is None:
            return None
        one = records.decode(value)
        return records.encode(
            records.record_of(one.sequence, one.created, one.key, records.NOTHING)
        )

    at = records.bucket_key(name, run, key_token(key))
    before, _ = await change(bucket, at, emptied, what=f"the state of {key!r}")
    return before is not None and not records.decode(before).empty


async def unreadable(app: App, name: str, streams: Streams, most: int) -> tuple[int, list[Kept]]:
    """How many states of a stage were looked at, and those that its type cannot be made of.

    Raises:
        Unavailable: the server does not answer.
    """
    looked, found = 0, []
    codec = Codec()
    async for kept in listed(app, name, streams, codec):
        looked += 1
        if kept.problem:
            found.append(kept)
        if looked >= most:
            break
    return looked, found
