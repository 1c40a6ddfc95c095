"""Following, without a server: each answer is told once, wherever it is gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mqinfer.gateway import showing
from mqinfer.requests import events
from mqinfer.requests.events import Event
from mqinfer.requests.following import Followed, follow
from mqinfer.requests.state import Answer, Body, State
from mqinfer.requests.watch import Pace, Watch

A, B, C = (Answer(name, "grade", Body.of(b"{}", "")) for name in "ABC")
ENDED = State("grade-1", "grade", 1.0, 2.0, 3.0, 1.0, "", status="succeeded", answers=(A, B, C))


async def followed(
    stream: list[tuple[int, Event]], after: int = 0, behind: str | None = None
) -> list[Followed]:
    """What is told of the request, with this in the stream."""

    async def look() -> State:
        return ENDED

    async def stored(first: int) -> AsyncIterator[tuple[int, bytes]]:
        for number, event in stream:
            if number >= first:
                yield number, events.encode(event)

    async def answers(state: State) -> tuple[Answer, ...]:
        return state.answers

    found = follow(Watch(Pace()), ENDED, look, stored, answers, after, behind, lambda: 1.5)
    return [one async for one in found]


async def told(
    stream: list[tuple[int, Event]], after: int = 0, behind: str | None = None
) -> list[tuple[str, int, str]]:
    """Kind, number and answer of each."""
    found = await followed(stream, after, behind)
    return [(one.event, one.number, one.answer.id if one.answer else "") for one in found]


async def test_what_the_stream_does_not_have_is_told_at_the_end() -> None:
    stream = [(3, Event("answer", answer=B)), (4, Event("progress", 1, 2))]
    whole = [("answer", 3, "B"), ("progress", 4, ""), ("answer", 4, "A"), ("answer", 4, "C")]
    assert await told(stream) == [*whole, ("end", 4, "")]
    assert await told(stream, 3) == [*whole[1:], ("end", 4, "")]
    assert await told(stream, 4) == [*whole[2:], ("end", 4, "")]
    assert await told(stream, 4, "A") == [*whole[3:], ("end", 4, "")]
    assert await told(stream, 4, "C") == [("end", 4, "")]


async def test_what_comes_behind_the_end_is_not_told_again() -> None:
    """A tracker that stood still for a while has its events stored when all is told."""
    stream = [(4, Event("progress", 1, 2))]
    late = [(5, Event("answer", answer=A)), (6, Event("answer", answer=C))]
    assert (await told(stream))[1:] == [("answer", 4, name) for name in "ABC"] + [("end", 4, "")]
    for known, rest in (("A", "BC"), ("B", "C"), ("C", "")):
        for behind in (late[:1], late[1:], late):
            found = await told([*stream, *behind], 4, known)
            assert found == [("answer", 4, name) for name in rest] + [("end", 4, "")]


async def test_each_event_is_a_place_to_go_on_behind() -> None:
    """Also where the last event of the stream was not told: a slow tracker's, of how far it was."""
    stream = [(3, Event("answer", answer=B)), (4, Event("progress", 2, 1)), (5, Event("progress"))]
    whole = [showing._frame(one) for one in await followed(stream)]
    assert [one.id for one in whole] == ["3", "4", "5+A", "5+C", "5.end"]
    for place, frame in enumerate(whole[:-1]):
        number, _, answer = (frame.id or "").partition("+")
        rest = [showing._frame(one) for one in await followed(stream, int(number), answer or None)]
        assert rest == whole[place + 1 :]


async def test_an_answer_that_nobody_gave_is_no_place() -> None:
    stream = [(4, Event("progress", 1, 2))]
    assert [one[2] for one in await told(stream, 4, "Z")] == ["A", "B", "C", ""]
