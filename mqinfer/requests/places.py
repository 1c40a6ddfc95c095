"""Places: ids, streams, keys and subjects of an app's requests. Pure.

An id is `<endpoint>-<32 hexadecimal digits>`. They are random, or, where whoever asks gives a key,
a keyed hash of who asks what under which key (BLAKE2b with a key, RFC 7693): no table of keys is
needed, and without the secret nobody can tell the id.

A key may be used again when its request is forgotten, of which messages are still there. So the
root of `completion` that a request is has a token of its own, made of the id and of when it began.
"""

from __future__ import annotations

import re
import secrets
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from mqinfer.completion.roots import Root
from mqinfer.endpoint import CHUNK, ROOT
from mqinfer.message import Message
from mqinfer.specs import StreamSpec

if TYPE_CHECKING:
    from mqinfer.app import App

TASK: Final = "mqinfer-requests-"  # before the name of an endpoint, the task that looks after them
_ID = re.compile(r"([A-Za-z0-9_-]{1,40})-([0-9a-f]{32})")


class Open(Message, subject="mqinfer-request"):
    """Stands for the states, which a task looks after; no message is one."""


def new_id(endpoint: str) -> str:
    """A random id."""
    return f"{endpoint}-{secrets.token_hex(16)}"


def keyed_id(endpoint: str, key: str, tenant: str, secret: str) -> str:
    """The id of what a tenant asks an endpoint under a key."""
    whom = blake2b(secret.encode(), digest_size=32).digest()  # of any length
    told = msgspec.msgpack.encode((tenant, endpoint, key))
    return f"{endpoint}-{blake2b(told, digest_size=16, key=whom).hexdigest()}"


def parts(identity: str) -> tuple[str, str] | None:
    """Endpoint and token of an id; None where it is none."""
    found = _ID.fullmatch(identity)
    return (found[1], found[2]) if found else None


def root_of(identity: str, created: float) -> Root:
    """The request that began then as a root."""
    endpoint, _ = identity.rsplit("-", 1)
    token = blake2b(f"{identity}\x1f{created!r}".encode(), digest_size=16).hexdigest()
    return Root(ROOT + endpoint, token)


def message_id(identity: str, created: float) -> str:
    """The identity of the root's message; its day says where rows that come of it are (`birth`)."""
    day = time.strftime("%Y-%m-%d", time.gmtime(created))
    return f"{identity}:{root_of(identity, created).token}@{day}"


def asked_by(message: str) -> str:
    """The id of the request whose message has this identity."""
    return message.partition(":")[0]


def key_of(identity: str) -> str:
    """Its key in the bucket."""
    return ".".join(identity.rsplit("-", 1))


def bucket(app: App) -> str:
    """Where the states of requests are."""
    return f"{app.name}-requests"


def stream(app: App) -> str:
    """The stream of events."""
    return f"{app.name}-requests"


def event(app: App, root: Root | None = None) -> str:
    """The subject of a request's events, or of all."""
    return f"requests.{app.name}.event.{_tokens(root)}"


def pushed_state(app: App, identity: str) -> str:
    """Where the server publishes the states of a request as they are stored."""
    return f"requests.{app.name}.push.{key_of(identity)}.state"


def pushed_event(app: App, root: Root) -> str:
    """Where the server publishes the events of a request as they are stored."""
    return f"requests.{app.name}.push.{_tokens(root)}.event"


def canceled(app: App, root: Root | None = None) -> str:
    """Where it is said that nobody wants the answer to a request any more."""
    return f"requests.{app.name}.cancel.{_tokens(root)}"


def _tokens(root: Root | None) -> str:
    if root is None:
        return "*.*"
    return f"{root.kind.removeprefix(ROOT).removeprefix(CHUNK)}.{root.token}"


def pushed_states(app: App) -> str:
    """What a state is republished as; see `pushed_state`."""
    return f"requests.{app.name}.push.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.state"


def events_spec(app: App) -> StreamSpec:
    """The stream of events, each of which has a time to live of its own."""
    push = f"requests.{app.name}.push.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.event"
    return StreamSpec(
        name=stream(app),
        subjects=(event(app),),
        replicas=app.replicas,
        ttls=True,
        pushed=(event(app), push),
    )
