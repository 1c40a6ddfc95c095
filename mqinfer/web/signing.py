"""Signing: tokens that stand for a key where no header can be sent, and for a short time.

A browser's EventSource sends no headers, and a key in an address would end up in logs. So an answer
that leads to a stream of events carries a token that opens this stream alone, for a while.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

_TOKEN = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{0,60})\.([0-9a-f]{64})", re.ASCII)


def sign(secret: str, identity: str, tenant: str, until: float) -> str:
    """A token for the events of a request.

    Args:
        secret: that all replicas share.
        identity: of the request.
        tenant: whose it is.
        until: when the token ends, in seconds since the epoch.
    """
    return f"{int(until)}.{tenant}.{_mac(secret, identity, tenant, int(until))}"


def opened(secret: str, identity: str, token: str, now: float) -> str | None:
    """The tenant that a token stands for, if it is for these events, and has not ended."""
    found = _TOKEN.fullmatch(token)
    if found is None or int(found[1]) < now:
        return None
    right = _mac(secret, identity, found[2], int(found[1]))
    return found[2] if hmac.compare_digest(found[3], right) else None


def _mac(secret: str, identity: str, tenant: str, until: int) -> str:
    told = f"events\0{tenant}\0{identity}\0{until}".encode()
    return hmac.new(secret.encode(), told, sha256).hexdigest()
