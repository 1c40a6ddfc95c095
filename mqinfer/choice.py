"""Choice: which messages a part of the traffic consists of; the same ones, whoever is asked. Pure.

A share of what passes is chosen by a hash of its first input's id: so a redelivery, a retry and
every worker choose alike, all that came of one input goes the same way, and a share that is made
larger keeps those that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from mqinfer.identity import ANCESTORS, input_id, parse_ancestors

_ALL = 1 << 64


def root_of(headers: Mapping[str, str] | None, identity: str) -> str:
    """The id of the first input that a message came of: its own, where it is one.

    Args:
        headers: of the message.
        identity: of the message.
    """
    ancestors = parse_ancestors(headers.get(ANCESTORS)) if headers else ()
    return ancestors[0] if ancestors else identity


def root_of_delivery(
    headers: Mapping[str, str] | None, stream: str, sequence: int, *, foreign_ids: bool = True
) -> str:
    """As `root_of`, of a message as it came.

    Args:
        headers: of the message.
        stream: that it is in.
        sequence: its place there.
        foreign_ids: whether its headers say who it is; else its place alone does.
    """
    if not foreign_ids:
        return f"{stream}:{sequence}"
    return root_of(headers, input_id(headers, stream, sequence))


def chosen(root: str, share: float) -> bool:
    """Whether what came of an input belongs to a share of all.

    BLAKE2b with 8 bytes of digest (RFC 7693), taken as a number between 0 and 1.

    Args:
        root: id of the first input.
        share: 0 is none, 1 is all.
    """
    digest = blake2b(root.encode("utf-8", "surrogatepass"), digest_size=8, person=b"mqinfer share")
    return int.from_bytes(digest.digest()) < share * _ALL
