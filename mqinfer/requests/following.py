"""Following: a request's events in order, each once, whatever was pushed twice or not at all.

The stream has them all; what is pushed only spares reading it. A reader that begins, or finds a
gap, reads the stream; so does one that hears nothing for a while. At the end the state says what
the answers are: those that were not told on the way are told then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from mqinfer.errors import Unavailable
from mqinfer.requests import events
from mqinfer.requests.events import Event
from mqinfer.requests.state import Answer, State
from mqinfer.requests.watch import Watch

AGAIN: Final = 0.25  # seconds between tries, while NATS is away
OUTAGE: Final = 30.0  # seconds after a deadline for which it is waited for


@dataclass(frozen=True, slots=True)
class Followed:
    """One event.

    Attributes:
        event: "progress", "answer" or, at last, "end".
        number: its place, to go on behind; one of the end's has that of the last before it.
        settled: of progress, messages that are done, of what came of the request so far.
        open: of progress, those that are not.
        answer: of an answer.
        state: of the end.
        rest: of an answer that is told at the end, since the stream did not have it: it has the
            number of the last event there, as all that are told with it.
    """

    event: Literal["progress", "answer", "end"]
    number: int
    settled: int = 0
    open: int = 0
    answer: Answer | None = None
    state: State | None = None
    rest: bool = False


class _Told:
    """What was told, so that nothing is told twice, and progress never goes backwards.

    Args:
        after: number of the last event that is known.
        behind: id of the last answer that is known, of those that were told at the end.
    """

    def __init__(self, after: int, behind: str | None):
        self.number = 0
        self._after = after
        self._behind = behind
        self._answers: set[str] = set()
        self._settled = -1

    def take(self, number: int, event: Event) -> Followed | None:
        """An event to be told, or None."""
        late = self._behind is not None and number > self._after  # it was told at the end
        if number <= self.number or late:
            return None
        self.number = number
        if event.answer is not None:
            new = event.answer.id not in self._answers
            self._answers.add(event.answer.id)
        else:
            new = event.settled >= self._settled
            self._settled = max(self._settled, event.settled)
        if not new or number <= self._after:
            return None
        return Followed(event.event, number, event.settled, event.open, event.answer)

    def rest(self, answers: tuple[Answer, ...]) -> list[Followed]:
        """Answers that were not told."""
        left = [answer for answer in answers if answer.id not in self._answers]
        known = [place for place, answer in enumerate(left, 1) if answer.id == self._behind]
        left = left[known[0] :] if known else left
        return [Followed("answer", self.number, answer=answer, rest=True) for answer in left]


async def follow(
    watch: Watch,
    state: State,
    look: Callable[[], Awaitable[State]],
    stored: Callable[[int], AsyncIterator[tuple[int, bytes]]],
    answers: Callable[[State], Awaitable[tuple[Answer, ...]]],
    after: int,
    behind: str | None,
    now: Callable[[], float],
) -> AsyncGenerator[Followed]:
    """The events of a request; see `Requests.follow`.

    Args:
        watch: what is pushed of it, from before this begins.
        state: of the request, as it was read since.
        look: reads its state.
        stored: numbers and data of the events of the stream, from one number on.
        answers: of a request that has ended.
        after: the last event that is known.
        behind: the last answer that is known, of those that have the number of that event: it was
            told at the end, where all were that the stream did not have then. What a slow tracker
            has put there since is passed over.
        now: seconds since the epoch.
    """
    told = _Told(after, None if state.open else behind)
    read = True  # the stream, for what was before, or is missing
    while True:
        try:
            if read:
                async for number, data in stored(told.number + 1):
                    if one := told.take(number, events.decode(data)):
                        yield one
            if not state.open:
                break
            pushed = watch.take_events(told.number)
            state = watch.take_state() or state
            if pushed is None and state.open:
                state = await look()  # the end may be among what was lost
            read = pushed is None or not state.open
            for number, data in pushed or ():
                if one := told.take(number, events.decode(data)):
                    yield one
            if read or pushed:
                continue
            due = max(0.0, state.deadline - now())
            await watch.changed(min(watch.pace.seconds, due + 0.5))
            if watch.silent:
                state, read = await look(), True
        except Unavailable:
            if outlasted(state, now()):
                raise
            await asyncio.sleep(AGAIN)
            read = True
    for one in told.rest(await answers(state)):
        yield one
    yield Followed("end", told.number, state=state)


def outlasted(state: State, now: float) -> bool:
    """Whether an outage lasts for longer than anybody would wait for a request.

    Args:
        state: of the request.
        now: seconds since the epoch.
    """
    return now > state.deadline + OUTAGE
