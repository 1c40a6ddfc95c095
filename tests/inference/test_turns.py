"""Callers take turns: a lone call beside thousands of another's, in the batcher and before it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.context import Context, current
from mqinfer.inference.batcher import Batcher
from mqinfer.inference.turns import Turns
from mqinfer.model import Answer, Model
from mqinfer.model import inference as current_inference
from tests.support.inference import Server, ask, hold, inference_on, until, x


def items(batcher: Batcher[int], slots: int = 1) -> list[int]:
    found = [entry.item for entry in batcher.take(slots)]
    batcher.finish()
    return found


def test_a_lone_call_goes_with_the_next_request() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8, max_calls=10_000)
    for number in range(5_000):
        batcher.add("a", number, 10, now=0.0, caller="flood")
    assert items(batcher) == list(range(8))
    batcher.add("a", -1, 10, now=0.0, caller="lone")
    batcher.add("b", -2, 10, now=0.0, caller="of another shape")
    following = [items(batcher), items(batcher)]
    assert sorted(map(len, following)) == [1, 8], "a request still holds the calls of all callers"
    assert {-1, -2} < {item for part in following for item in part}
    assert items(batcher) == list(range(15, 23))


def test_two_floods_share_and_one_that_is_taken_back_costs_nothing() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8)
    entries = [batcher.add("a", n, 1, now=0.0, caller="cancelled") for n in range(1_000)]
    for entry in reversed(entries[1:]):
        assert entry is not None
        assert batcher.remove(entry)
    items(batcher)
    for number in range(100):
        batcher.add("a", number, 1, now=0.0, caller="other")
    for number in range(-100, 0):
        batcher.add("a", number, 1, now=0.0, caller="cancelled")
    for _ in range(10):
        part = items(batcher)
        assert sum(item < 0 for item in part) == 4


@given(
    st.lists(
        st.one_of(
            st.sampled_from("abc"),  # one of three callers asks
            st.just("take"),
            st.just("back"),  # a request is lost
        ),
        max_size=80,
    ),
    st.integers(1, 5),
)
def test_each_caller_is_served_in_order_and_waits_for_no_more_than_its_share(
    events: list[str], max_batch: int
) -> None:
    batcher: Batcher[tuple[str, int]] = Batcher(max_batch=max_batch)
    served: dict[str, list[int]] = {caller: [] for caller in "abc"}
    for number, event in enumerate([*events, *["take"] * 80]):
        if event in ("take", "back"):
            part = batcher.take(1)
            if event == "back":
                batcher.put_back(part)
            else:
                for entry in part:
                    batcher.done(entry)
                    served[entry.item[0]].append(entry.item[1])
            if part:
                batcher.finish()
        else:
            batcher.add("s", (event, number), 1, now=0.0, caller=event)
    for caller, numbers in served.items():
        assert numbers == [number for number, event in enumerate(events) if event == caller]
    assert len(batcher) == 0


@given(st.lists(st.sampled_from("ab"), max_size=200))
def test_turns_keep_nothing_of_those_who_are_gone(callers: list[str]) -> None:
    turns = Turns()
    places = [turns.place(caller) for caller in callers]
    assert len(set(places)) == len(places)
    for caller, place in zip(callers, places, strict=True):
        turns.over(place)
        turns.gone(caller)
    turns.back("a", (1, 0))
    turns.gone("a")
    assert not turns._waiting
    turn, _ = turns.place("a")
    assert turn == max((place[0] for place in places), default=0) + 1


def asking(server_inference: object, stage: str, *values: float) -> list[asyncio.Task[Answer]]:
    token = current.set(Context(id="1", stage=stage, sequence=1))
    try:
        return ask(server_inference, *values)  # type: ignore[arg-type]
    finally:
        current.reset(token)


async def test_a_lone_call_of_another_stage_passes_a_flood_also_before_there_is_room() -> None:
    server = Server()
    async with inference_on(server, max_calls=64) as inference:
        first = await hold(server, inference)
        flood = asking(inference, "flood", *range(100, 400))
        await until(lambda: inference.statistics().queues[0].calls == 301)
        lone = asking(inference, "lone", 7)
        await until(lambda: inference.statistics().queues[0].calls == 302)
        server.gate.set()
        await asyncio.gather(first, *flood, *lone)
    passed = next(index for index, values in enumerate(server.values) if 7 in values)
    assert passed <= 2, "one request makes room, the next takes it along"
    assert len(server.values[passed]) == 8


async def test_outside_of_handlers_handles_take_turns() -> None:
    server = Server()
    async with inference_on(server) as inference:
        current_inference.set(inference)
        first = await hold(server, inference)
        one, other = Model("double"), Model("double")
        flood = [asyncio.create_task(one(x=x(number))) for number in range(100, 200)]
        await until(lambda: inference.statistics().queues[0].calls == 101)
        lone = asyncio.create_task(other(x=x(7)))
        await until(lambda: inference.statistics().queues[0].calls == 102)
        server.gate.set()
        await asyncio.gather(first, *flood, lone)
    assert 7 in server.values[1]


async def test_callers_who_leave_before_there_is_room_leave_nothing() -> None:
    server = Server()
    async with inference_on(server, max_calls=8) as inference:
        first = await hold(server, inference)
        flood = asking(inference, "flood", *range(100, 140))
        await until(lambda: inference.statistics().queues[0].waiting_for_room == 33)
        for call in flood[::2]:
            call.cancel()
        await asyncio.gather(*flood[::2], return_exceptions=True)
        server.gate.set()
        answers = await asyncio.gather(first, *flood[1::2])
    assert [answer["y"].item() for answer in answers[1:]] == [2 * n for n in range(101, 140, 2)]
