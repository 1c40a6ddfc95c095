"""What a tracker holds is bounded, and what it lets go it forgets wholly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.completion import held as module
from mqinfer.completion.held import EACH, Held

STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["add", "weigh", "drop"]), st.binary())
)


@given(STEPS)
def test_bytes_are_those_of_what_is_held(steps: list[tuple[str, str, bytes]]) -> None:
    held, truth = Held(), dict[str, list[bytes]]()
    weighed: dict[str, int] = {}
    for token, what, data in steps:
        if what == "add":
            held.add(token, [data])
            truth.setdefault(token, []).append(data)
        elif what == "drop":
            held.drop(token)
            truth.pop(token, None)
            weighed.pop(token, None)
        else:
            held.known[token] = data, 1
            held.weigh(token)
            if token in truth:
                weighed[token] = EACH + len(data)
        assert set(held.known) <= set(truth)
    assert {token: held.of(token) for token in truth} == truth
    payloads = sum(len(one) + EACH for found in truth.values() for one in found)
    assert len(held) == payloads + sum(weighed.values())


def test_the_roots_that_nothing_is_heard_of_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 10 * (EACH + 1_000))
    held = Held()
    for number in range(30):
        held.add(str(number), [b"x" * 1_000])
        held.add("busy", [])
    assert len(held) <= module.MEMORY
    assert held.of("busy") == []
    assert "busy" in held.known
    assert "3" not in held.known
    assert held.of("29")
