"""Places: buckets, subjects, consumers and paths of an app's indexes. Pure."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from mqinfer.rowpacks.which import may_come_packed, pack_subject

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.hits import Key
    from mqinfer.message import Message


def bucket(app: App) -> str:
    """Where generations, and what is known of their snapshots, are kept."""
    return f"{app.name}-index"


def generations(index: str, model: str) -> str:
    """What the keys of a model's generations begin with; the number follows."""
    return f"{index}.{model}.generation."


def generation(index: str, model: str, number: int) -> str:
    """The key of a generation."""
    return f"{generations(index, model)}{number}"


def current(index: str, model: str) -> str:
    """The key of which generation is searched."""
    return f"{index}.{model}.current"


def weights(index: str) -> str:
    """The key of the weights of an index's models."""
    return f"{index}.weights"


def snapshot(index: str, model: str, number: int, shard: int) -> str:
    """The key of a shard's newest snapshot."""
    return f"{index}.{model}.snapshot.{number}.{shard}"


def blob(app: App, key: str, sequence: int, token: str) -> str:
    """Where the blob store keeps a snapshot; of each there is one writer."""
    return f"index/{app.name}/{key.replace('.', '/')}/{sequence}-{token}"


# No stream holds what begins with `requests.<app>.`, but for its events: no app is called so.
def asked(app: App, index: str, model: str, number: int, shard: int) -> str:
    """Where one of a shard's replicas is asked."""
    return f"requests.{app.name}.search.{index}.{model}.{number}.{shard}"


def roll(app: App) -> str:
    """Where all processes that hold shards are asked what they hold."""
    return f"requests.{app.name}.index.roll"


def consumer(index: str, model: str, number: int, token: str) -> str:
    """What a process reads the vectors of a generation by."""
    return f"index={index}={model}={number}={token}"


def subjects(app: App, kind: type[Message], run: str | None) -> tuple[str, ...]:
    """Where vectors are published: live ones, those of jobs, and those of a replay run."""
    found = [*app.filters(kind), *app.filters(kind, bulk=True)]
    if run is not None:
        found += app.filters(kind, run)
    if may_come_packed(kind):
        found.append(pack_subject(app, kind))
        if run is not None:
            found.append(pack_subject(app, kind, run))
    return tuple(found)


def shard_of(key: Key, shards: int) -> int:
    """The shard of a key; the same in every process and version."""
    return zlib.crc32(str(key).encode()) % shards
