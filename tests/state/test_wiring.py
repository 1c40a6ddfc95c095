"""What cannot be a state is refused when the wiring is read, with what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App, Blob, Context, Message, State
from mqinfer.errors import WiringError
from mqinfer.signature import read_signature


class In(Message, key="name", ordered=True):
    name: str


class Free(Message, key="name"):
    name: str


class Kept(State, ttl="90d"):
    count: int = 0


class Other(State):
    count: int = 0


class Bare(State):
    count: int


class Frozen(State, frozen=True):
    count: int = 0


class Pictures(State):
    last: Blob | None = None


class Odd(State):
    place: Path = Path()


def refused(handler: Any) -> str:
    with pytest.raises(WiringError) as error:
        read_signature("s", handler)
    return str(error.value).removeprefix("stage s: ")


def test_what_is_taken() -> None:
    async def plain(message: In, state: Kept) -> None: ...
    async def before(message: In, state: Kept, ctx: Context) -> None: ...
    async def behind(message: In, ctx: Context, state: Kept) -> None: ...
    async def unsaid(message: In, state: Kept, ctx) -> None: ...  # type: ignore[no-untyped-def]
    async def batch(messages: list[In], states: Sequence[Kept]) -> None: ...
    async def without(message: In, ctx: Context) -> None: ...

    for handler, arguments in [
        (plain, ("m", "s")),
        (before, ("m", "s", "c")),
        (behind, ("m", "c", "s")),
        (unsaid, ("m", "s", "c")),
        (batch, ("m", "s")),
    ]:
        signature = read_signature("s", handler)
        assert signature.state is Kept
        assert signature.with_state("m", "c", "s") == arguments
    assert read_signature("s", without).state is None
    assert Kept.__mqinfer__.ttl == 90 * 86_400
    assert Kept.__mqinfer__.name == "kept"


def test_what_is_refused() -> None:
    async def unordered(message: Free, state: Kept) -> None: ...
    async def two(message: In, state: Kept, other: Other) -> None: ...
    async def twice(message: In, ctx: Context, more: Context, state: Kept) -> None: ...
    async def first(state: Kept, message: In) -> None: ...
    async def returned(message: In) -> Kept: ...
    async def one_of_a_batch(messages: list[In], state: Kept) -> None: ...
    async def listed(message: In, states: list[Kept]) -> None: ...
    async def bare(message: In, state: Bare) -> None: ...
    async def frozen(message: In, state: Frozen) -> None: ...
    async def base(message: In, state: State) -> None: ...
    async def pictures(message: In, state: Pictures) -> None: ...
    async def odd(message: In, state: Odd) -> None: ...
    async def more(message: In, state: Kept, size: int) -> None: ...

    for handler, text in [
        (unordered, "takes the state Kept, but Free is not in order by key: declare it with key="),
        (two, "takes Kept and Other: a key has one state"),
        (twice, "a handler takes a message and, if it likes, a context"),
        (first, "Kept is a State, which stands beside the message: (message: In, state: Kept)"),
        (returned, "returns Kept, which is a State: change it in place"),
        (one_of_a_batch, "a batch handler takes the states of its messages: list[Kept]"),
        (listed, "a handler of one message takes one state: Kept, not list[Kept]"),
        (bare, "Bare.count needs a default: a state begins as Bare()"),
        (frozen, "Frozen is frozen, and a state is changed in place"),
        (base, "it takes State itself; derive a type from it"),
        (pictures, "Pictures.last: a state holds no Blob"),
        (odd, "Odd.place: a Path cannot be read back: use str"),
        (more, "the other parameter is the Context, not int"),
    ]:
        assert refused(handler).startswith(text), refused(handler)
    with pytest.raises(WiringError, match="must be a second at least"):
        type(State)("Quick", (State,), {}, ttl=0.5)
    with pytest.raises(WiringError, match="Quick: ttl="):
        type(State)("Quick", (State,), {}, ttl="soon")


async def test_a_handler_is_called_by_hand_with_a_state() -> None:
    app = App("plants")

    @app.stage
    async def watch(message: In, state: Kept) -> None:
        state.count += 1

    state = Kept()
    await watch(In("p"), state)
    assert state == Kept(1)
    assert [stage.signature.state for stage in app.stages.values()] == [Kept]
