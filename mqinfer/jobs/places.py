"""Places: ids, keys, subjects and paths of an app's jobs. Pure.

An id is `job-<endpoint>-<32 hexadecimal digits>`, random or made of a key as those of requests are.
A chunk is a root of `completion`, called `<job>:c00017.<round>`; an item, whose id follows from job
and row, is a message below it. Each round of a job (the first, and each in which what failed is
tried again) has ids of its own, and so has a job that was made under a key when the one before was
forgotten.
"""

from __future__ import annotations

import re
import secrets
import time
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mqinfer.completion.roots import Root
from mqinfer.endpoint import CHUNK
from mqinfer.message import Message
from mqinfer.requests.places import keyed_id as request_id

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.jobs.state import State

TASK: Final = "mqinfer-jobs"  # the task that drives them
_ID = re.compile(r"job-([A-Za-z0-9_-]{1,40})-([0-9a-f]{32})")
_CHUNK = re.compile(r"(job-[A-Za-z0-9_-]{1,40}-[0-9a-f]{32}):c([0-9]{5,9})\.([0-9]{1,3})")


class Driven(Message, subject="mqinfer-job"):
    """Stands for the states, which a task drives; no message is one."""


def new_id(endpoint: str) -> str:
    """A random id."""
    return f"job-{endpoint}-{secrets.token_hex(16)}"


def keyed_id(endpoint: str, key: str, tenant: str, secret: str) -> str:
    """The id of the job that a tenant submits to an endpoint under a key."""
    return f"job-{request_id(endpoint, f'job:{key}', tenant, secret)}"


def endpoint_of(identity: str) -> str | None:
    """The endpoint of a job, by its id; None where it is none."""
    found = _ID.fullmatch(identity)
    return found[1] if found else None


def key_of(identity: str) -> str:
    """Its key in the bucket."""
    return ".".join(identity.removeprefix("job-").rsplit("-", 1))


def chunk_id(identity: str, number: int, turn: int) -> str:
    """The identity of a chunk as a root.

    Args:
        identity: of the job.
        number: of the chunk.
        turn: the job's round.
    """
    return f"{identity}:c{number:05}.{turn}"


def parse_chunk(chunk: str) -> tuple[str, int, int] | None:
    """Job, number and round of a chunk; None where it is none."""
    found = _CHUNK.fullmatch(chunk)
    return (found[1], int(found[2]), int(found[3])) if found else None


def root_of(state: State, number: int) -> Root:
    """A chunk of this round as a root."""
    text = f"{chunk_id(state.id, number, state.round)}\x1f{state.created!r}"
    return Root(CHUNK + state.endpoint, blake2b(text.encode(), digest_size=16).hexdigest())


def item_id(state: State, row: int) -> str:
    """The identity of an item's message; its day says where rows that come of it are (`birth`)."""
    return f"{state.id}:{row}:{_round(state.created, state.round)}"


@lru_cache(maxsize=256)
def _round(created: float, number: int) -> str:
    """What ids of one round of one job end in; all of its rows ask for the same."""
    turn = blake2b(f"{created!r}\x1f{number}".encode(), digest_size=6).hexdigest()
    return f"{turn}@{time.strftime('%Y-%m-%d', time.gmtime(created))}"


def bucket(app: App) -> str:
    """Where the states of jobs are."""
    return f"{app.name}-jobs"


def pushed_state(app: App, identity: str) -> str:
    """Where the server publishes the states of a job as they are stored."""
    return f"requests.{app.name}.push.{key_of(identity)}.job"


def pushed_states(app: App) -> str:
    """What a state is republished as; see `pushed_state`."""
    return f"requests.{app.name}.push.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.job"


def home(identity: str) -> str:
    """What the paths of all blobs of a job begin with."""
    return f"jobs/{identity}/"


def new_folder(identity: str) -> str:
    """A folder of blobs for a job that is being made: of two under one key, one is taken."""
    return home(identity) + secrets.token_hex(4)


def chunk(folder: str, number: int) -> str:
    """The path of a chunk's items."""
    return f"{folder}/chunks/{number:05}.jsonl"


def part(folder: str, number: int, turn: int) -> str:
    """The path of what came of a chunk, in a round."""
    return f"{folder}/parts/{number:05}.{turn}.jsonl"


def success(folder: str) -> str:
    """The path of what is there once all parts of a job are, in any of its rounds."""
    return f"{folder}/_SUCCESS"


def manifest(folder: str) -> str:
    """The path of what is known of all chunks; see `planning.Planned`."""
    return f"{folder}/manifest.json"


def results(state: State) -> str:
    """The path of what came of all rows, once a job has ended; each round has one of its own."""
    return f"{state.folder}/results{_turn(state)}.jsonl"


def errors(state: State) -> str:
    """The path of those of the results that have errors."""
    return f"{state.folder}/errors{_turn(state)}.jsonl"


def _turn(state: State) -> str:
    return f".{state.round}" if state.round else ""
