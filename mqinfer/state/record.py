"""Record: a state as it lies in its bucket, and under which key. Pure.

A value is a msgpack array: the version of this layout, the sequence of the last message that the
state has seen, when the app's stream was made (numbers count anew in another one of its name), the
key as text where the bucket's key does not tell, and the state's own fields as a map. Later
versions may add to its end.

A bucket's key is `live.<stage>.<key>`, or `run.<run>.<stage>.<key>`. The last part is what stands
in the message's subject behind that of its type: order is kept by subject, so a state must be of
one subject, whatever the payload says. It is cut where it is long.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import unquote

import msgspec

from mqinfer.errors import StateError
from mqinfer.message import key_token

VERSION = 1
MAX_KEY = 160  # characters of a key that stand in the bucket as they are
NOTHING = msgspec.Raw(b"\xc0")  # msgpack's nil: a state that was reset


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A state and what it has seen.

    Attributes:
        version: of the layout.
        sequence: of the last message that changed it, in the app's stream.
        created: when that stream was made.
        key: its text where the bucket's key is cut, or "".
        data: the state's fields; nil where it begins anew.
    """

    version: int
    sequence: int
    created: str
    key: str
    data: msgspec.Raw

    @property
    def empty(self) -> bool:
        """Whether the state was reset."""
        return self.data == NOTHING


class _Version(msgspec.Struct, frozen=True, array_like=True):
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
_version = msgspec.msgpack.Decoder(_Version).decode


def record_of(sequence: int, created: str, key: str, data: bytes | msgspec.Raw) -> Record:
    """A record of this version; `data` is msgpack."""
    return Record(VERSION, sequence, created, key, msgspec.Raw(data))


def encode(record: Record) -> bytes:
    """The value of a record."""
    return _encode(record)


def decode(value: bytes) -> Record:
    """The record in a value.

    Raises:
        StateError: it is none, or of a later version of mqinfer.
    """
    try:
        if (found := _version(value).version) > VERSION:
            raise StateError(
                f"it was written by a later version of mqinfer (layout {found}, this one knows "
                f"{VERSION}): run that version"
            )
        return _decode(value)
    except msgspec.MsgspecError as error:
        raise StateError(f"it is no record of mqinfer: {error}") from None


def prefix(stage: str, run: str | None) -> str:
    """What the bucket's keys of one stage's states begin with."""
    return f"live.{stage}" if run is None else f"run.{run}.{stage}"


def bucket_key(stage: str, run: str | None, token: str) -> str:
    """The bucket's key of a state.

    Args:
        stage: its name.
        run: the replay run, or None.
        token: the key as it stands in subjects; "" is that of messages without one.
    """
    start = prefix(stage, run)
    return f"{start}.{bounded(token)}" if token else start


def bounded(token: str) -> str:
    """A key's token, cut and ended with its digest where it is long: others stay different."""
    if len(token) <= MAX_KEY:
        return token
    return f"{token[:MAX_KEY]}~{blake2b(token.encode(), digest_size=16).hexdigest()}"


def token_of(subject: str, starts: tuple[str, ...]) -> str:
    """The key's token in the subject of a message.

    Args:
        subject: of the message.
        starts: the subjects that its type may have, without a key.
    """
    for start in starts:
        if subject == start:
            return ""
        if subject.startswith(f"{start}."):
            return subject[len(start) + 1 :]
    return subject


def kept_key(token: str) -> str:
    """What a record says of its key: its text, where the bucket's key does not tell."""
    return text_of(token) if len(token) > MAX_KEY else ""


def text_of(token: str) -> str:
    """The key that a token stands for, as text."""
    return "" if token == key_token("") else unquote(token, errors="replace")


def is_cut(token: str) -> bool:
    """Whether a bucket's key is cut, so that its record says the whole."""
    return len(token) > MAX_KEY
