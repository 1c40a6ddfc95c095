"""Applied: what was deployed last, in a bucket of the app; changed by compare-and-set.

Two people who deploy at once do not undo each other's work unseen: whoever compared with an older
record than there is when he applies is told to look again.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import msgspec

from mqinfer.deploy.declaration import Declaration
from mqinfer.deploy.deployment import Deployment
from mqinfer.errors import ConflictError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket

KEY = "applied"


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment.

    Attributes:
        target: where to: local, compose or k8s.
        deployment: what the file said.
        declaration: what the code declared.
        at: when.
    """

    target: str
    deployment: Deployment
    declaration: Declaration
    at: datetime.datetime


def bucket_name(app: App) -> str:
    """Where it is kept; for ever."""
    return f"{app.name}-deploys"


async def load(bucket: Bucket) -> tuple[Applied | None, int]:
    """What was applied last, and the revision of that; (None, revision) if it cannot be read.

    Raises:
        Unavailable: NATS does not answer.
    """
    value, revision = await bucket.load(KEY) or (b"", 0)
    try:
        return (msgspec.json.decode(value, type=Applied) if value else None), revision
    except msgspec.MsgspecError:  # of another version of mqinfer: all counts as new
        return None, revision


async def save(bucket: Bucket, applied: Applied, revision: int) -> None:
    """Write down what is applied now.

    Raises:
        ConflictError: somebody deployed since `revision` was read.
        Unavailable: NATS does not answer.
    """
    await bucket.ensure()
    if not await bucket.save(KEY, msgspec.json.encode(applied), revision):
        raise ConflictError(
            "somebody else has deployed this app since the differences were looked at: "
            "`mqinfer deploy diff` shows them anew"
        )
