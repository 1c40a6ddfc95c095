"""Fresh: a new request, and what of it is kept, once that is known to be possible. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.errors import DecodeError, PayloadTooLarge
from mqinfer.requests import state as states
from mqinfer.requests.state import Asked, State

if TYPE_CHECKING:
    from mqinfer.endpoint import Endpoint

_BESIDE = 1024  # bytes of headers, and of what a state has more later


def state(identity: str, endpoint: Endpoint[Any], asked: Asked, tenant: str, now: float) -> State:
    """A request as it begins.

    Args:
        identity: of it.
        endpoint: that is asked.
        asked: the message.
        tenant: who asks.
        now: seconds since the epoch.
    """
    return State(
        id=identity,
        endpoint=endpoint.name,
        created=now,
        deadline=now + endpoint.deadline,
        expires=now + endpoint.deadline + endpoint.keep,
        keep=endpoint.keep,
        fingerprint=states.fingerprint(asked),
        tenant=tenant,
        asked=asked,
    )


def kept(fresh: State, max_payload: int) -> bytes:
    """The bytes of a request, which can be read again.

    Args:
        fresh: the request.
        max_payload: bytes that the server takes.

    Raises:
        PayloadTooLarge: it exceeds that.
        DecodeError: its message is said to be JSON, and is none.
    """
    value = states.encode(fresh)
    if len(value) + _BESIDE > max_payload:
        raise PayloadTooLarge(
            f"endpoint {fresh.endpoint}: the request has {len(value):,} bytes, the server "
            f"takes {max_payload:,}: carry what is large as a Blob with a path"
        )
    try:
        states.decode(value)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"endpoint {fresh.endpoint}: this is no JSON: {error}") from None
    return value
