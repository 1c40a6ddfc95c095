"""Which messages a share consists of: the same ones for everybody, of one input together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.choice import chosen, root_of, root_of_delivery
from mqinfer.identity import ANCESTORS, IDENTITY, MSG_ID

pytestmark = pytest.mark.hypothesis

ids = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1)
shares = st.floats(0, 1)


@given(st.text(), shares, shares)
def test_a_larger_share_keeps_what_a_smaller_one_had(root: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert chosen(root, small) == chosen(root, small)
    assert chosen(root, small) <= chosen(root, large)
    assert chosen(root, 1.0)
    assert not chosen(root, 0.0)


@given(ids, st.lists(ids, min_size=1, max_size=5), st.integers(1), st.integers(1), shares)
def test_all_that_came_of_one_input_goes_the_same_way(
    root: str, others: list[str], sequence: int, again: int, share: float
) -> None:
    """Whatever lies between, wherever a copy or a redelivery lies in the stream."""
    first = root_of_delivery({MSG_ID: root}, "app", sequence)
    below = {MSG_ID: others[-1], ANCESTORS: " ".join([root, *others[:-1]])}
    part = root_of_delivery(below, "app", again)
    assert chosen(first, share) == chosen(part, share)
    assert root_of(below, others[-1]) == root_of({**below, MSG_ID: "x"}, "x") == part


def test_without_an_id_the_place_counts() -> None:
    assert root_of_delivery({}, "app", 7) == "app:7"
    assert root_of_delivery({MSG_ID: "a"}, "app", 7, foreign_ids=False) == "app:7"
    assert root_of_delivery({IDENTITY: "a", MSG_ID: "photo:a"}, "app", 7) == "a"


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_a_share_is_about_as_large_as_was_asked_for(share: float) -> None:
    """Of 20,000 ids that follow one another: within 4 standard deviations, and always the same."""
    n = 20_000
    found = sum(chosen(f"photo-{number}", share) for number in range(n))
    assert abs(found - n * share) < 4 * (n * share * (1 - share)) ** 0.5
