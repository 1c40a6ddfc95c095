"""Following a job: by what is pushed, whatever of it is lost, late, or no state."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mqinfer.jobs import state as states
from mqinfer.jobs.following import Numbered, Pushed, follow
from mqinfer.jobs.state import Counts, State
from tests.jobs.test_outages import state_of

ENDS = 6


def nth(number: int) -> State:
    """The state of a revision; the last one is an end."""
    status = "completed" if number == ENDS else "open"
    return replace(state_of(), counts=Counts(succeeded=number), status=status)  # type: ignore[arg-type]


class Server:
    """Pushes what a test says."""

    def __init__(self, first: int) -> None:
        self.revision = first
        self.looks = 0
        self.pushed = Pushed()

    async def look(self) -> Numbered:
        self.looks += 1
        return nth(self.revision), self.revision

    def push(self, revision: int) -> None:
        header = f"NATS/1.0\r\nNats-Sequence: {revision}\r\n\r\n".encode()
        self.pushed.heard("", states.encode(nth(revision)), header)


@given(
    st.integers(1, ENDS),
    st.lists(st.one_of(st.integers(1, ENDS), st.just(0), st.none()), max_size=12),
)
def test_states_only_go_on_and_the_end_is_always_told(first: int, events: list[int | None]) -> None:
    async def run() -> list[int]:
        server, seen = Server(first), list[int]()

        async def read() -> None:
            async for state in follow(server.pushed, server.look, 0.001):
                seen.append(state.counts.succeeded)

        reading = asyncio.create_task(read())
        for event in events:
            if event is None:
                await asyncio.sleep(0)
            elif event == 0:
                server.pushed.heard("", b"no state", b"")
            else:
                server.revision = max(server.revision, event)
                server.push(event)
        server.revision = ENDS  # and nothing of it is pushed
        async with asyncio.timeout(120):
            await reading
        return seen

    seen = asyncio.run(run())
    assert seen == sorted(set(seen))
    assert seen[-1] == ENDS


async def test_what_is_pushed_is_not_read() -> None:
    server = Server(1)
    seen = []
    async for state in follow(server.pushed, server.look, 3600.0):
        seen.append(state.counts.succeeded)
        if state.open:
            server.push(seen[-1] + 1)
    assert seen == list(range(1, ENDS + 1))
    assert server.looks == 1
