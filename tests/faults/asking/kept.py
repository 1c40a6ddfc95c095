"""What is kept at the end of a run, and the history of what is not as it must be."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from mqinfer import App
from mqinfer.completion import progress, record, roots
from mqinfer.completion.roots import Root
from mqinfer.identity import ROOTS
from mqinfer.requests import places
from mqinfer.requests import state as states
from mqinfer.requests.kept import root_of
from mqinfer.requests.listing import listed, plain
from mqinfer.requests.state import State
from mqinfer.streams import Stored
from mqinfer.testing import Harness

from .account import Account, Kept
from .app import Ask, Slow, Survey
from .client import Told


class Ends:
    """The ends of requests that the server told of while it was listened to.

    Attributes:
        numbers: of the clients that asked, by the ids of their requests.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        # Of two requests under one key, the first of which was deleted, each has its own.
        self._seen: dict[Root, set[int]] = defaultdict(set)

    @classmethod
    @asynccontextmanager
    async def heard(cls, app: App, harness: Harness) -> AsyncIterator[Ends]:
        """Inside, every end counts."""
        ends = cls()
        core = harness.services.core
        assert core is not None
        async with core.listen(f"requests.{app.name}.push.*.*.state", ends._heard):
            yield ends

    def _heard(self, _subject: str, data: bytes, _header: bytes) -> None:
        state = states.decode(data)
        if state.asked is not None:
            self.numbers[state.id] = json.loads(state.asked.body.payload)["n"]
        else:
            self._seen[root_of(state)].add(hash(data))

    def of(self, state: State) -> int:
        """How many different ends a request had, with the one that it has."""
        return len(self._seen[root_of(state)] | {hash(states.encode(state))})


async def still_open(app: App, harness: Harness) -> int:
    """How many requests have not ended."""
    assert harness.services.streams is not None
    return sum([one.open async for one in listed(app, harness.services.streams)])


async def kept(app: App, harness: Harness, told: Iterable[Told], ends: Ends) -> list[Kept]:
    """Every request."""
    assert harness.services.streams is not None
    requests = await harness.client.requests()
    # Also of those of which nobody knows that they were accepted, and of those never published.
    number_of = dict(ends.numbers)
    for kind in (Ask, Survey, Slow):
        for stored in await harness.stored(subject=app.subject(kind)):
            identity = places.asked_by(stored.headers["Mq-Id"])
            number_of[identity] = json.loads(stored.data)["n"]
    number_of |= {identity: one.wish.number for one in told for identity in one.ids}
    found = []
    async for state in listed(app, harness.services.streams):
        answers = [plain(one) for one in await requests.answers(state)]
        errors = [msgspec.to_builtins(one) for one in state.errors]
        number, count = number_of.get(state.id, -1), ends.of(state)
        found.append(Kept(state.id, number, state.status, answers, errors, state.ended, count))
    return found


async def letters(harness: Harness) -> list[tuple[str, str, str]]:
    """Stage, kind and id of each dead letter."""
    return [
        (one.stage, one.kind, one.headers.get("Mq-Id", one.stored.subject))
        for one in await harness.dead()
    ]


async def histories(
    app: App, harness: Harness, account: Account, told: Iterable[Told], folder: Path
) -> None:
    """Write down all that is known of each request that is not as it must be."""
    if not account.offenders:
        return
    assert harness.services.streams is not None
    by_id = {identity: one for one in told for identity in one.ids}
    messages = await harness.stored()
    async for state in listed(app, harness.services.streams):
        if state.id in account.offenders[:20]:
            lines = [states.encode(state).decode()[:4000]]
            if (client := by_id.get(state.id)) is not None:
                lines += [f"client, {client.began + at:.2f}: {what}" for at, what in client.history]
            lines += await of_root(app, harness, root_of(state), messages)
            (folder / f"offender-{state.id}.txt").write_text("\n".join(lines) + "\n")


async def of_root(app: App, harness: Harness, root: Root, messages: Iterable[Stored]) -> list[str]:
    """What is known of a root, and of what came of it."""
    lines = [str(root)]
    found = await harness.services.broker.bucket(roots.bucket(app)).load(root.token)
    if found is not None and found[0]:
        value = progress.decode(found[0])
        lines.append(f"known: {value.counts}, rooted {value.rooted}, done {value.done}")
        lines.append(f"decided: { {n: (d.how, d.told) for n, d in value.decided.items()} }")
    lines += [
        _line(one, one.data[:60].decode(errors="replace"))
        for one in messages
        if root.token in one.headers.get(ROOTS, "")
    ]
    for one in await harness.stored(roots.stream(app), roots.subject_of(app, root)):
        for each in record.decode(one.data):
            outputs = [output.id[-20:] for output in each.outputs]
            what = f"{each.stage} {each.id[-30:]} {each.outcome} {each.error or ''} {outputs}"
            lines.append(_line(one, f"{what}{' first' if each.first else ''}"))
    lines += [
        _line(one, one.data[:100].decode(errors="replace"))
        for one in await harness.stored(places.stream(app), places.event(app, root))
    ]
    lines += [
        _line(letter.stored, f"{letter.kind}: {letter.reason}")
        for letter in await harness.dead()
        if root.token in letter.stored.headers.get(ROOTS, "")
    ]
    return lines


def _line(stored: Stored, text: str) -> str:
    time = stored.time.astimezone(datetime.UTC).timestamp()
    identity = stored.headers.get("Mq-Id", "")
    return f"{time:.2f} {stored.subject} {stored.sequence} {identity} {text}"
