"""Records and their keys; what a worker keeps of them for as long as that counts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import StateError
from mqinfer.message import key_token
from mqinfer.state import record
from mqinfer.state.cache import Cache, Version


@given(st.integers(1, 1 << 60), st.text(), st.text(), st.dictionaries(st.text(), st.integers(0, 9)))
def test_a_record_is_what_was_written(
    sequence: int, created: str, key: str, fields: dict[str, int]
) -> None:
    data = msgspec.msgpack.encode(fields)
    found = record.decode(record.encode(record.record_of(sequence, created, key, data)))
    assert (found.sequence, found.created, found.key) == (sequence, created, key)
    assert bytes(found.data) == data
    assert not found.empty
    assert record.decode(record.encode(record.record_of(1, "", "", record.NOTHING))).empty


def test_what_is_no_record_or_of_a_later_version() -> None:
    later = msgspec.msgpack.encode([2, "whatever", 3])
    with pytest.raises(StateError, match="later version of mqinfer"):
        record.decode(later)
    for value in (b"", b"{}", b"\xc1", msgspec.msgpack.encode([1, "x", "", "", {}])):
        with pytest.raises(StateError, match="no record"):
            record.decode(value)
    longer = msgspec.msgpack.encode([1, 5, "", "", {}, "a later field"])
    assert record.decode(longer).sequence == 5


# A NUL alone stands in subjects as no key does.
@given(st.lists(st.text(max_size=400).filter(lambda key: key != "\0"), unique=True, max_size=5))
def test_keys_that_differ_stay_different_and_are_bounded(keys: list[str]) -> None:
    tokens = {key_token(key) for key in keys}
    made = {record.bucket_key("stage", None, token) for token in tokens}
    assert len(made) == len(tokens)
    assert all(len(key) < 250 for key in made)
    for key in keys:
        token = record.bounded(key_token(key))
        told = record.kept_key(key_token(key)) if record.is_cut(token) else record.text_of(token)
        assert told == key


def test_the_key_is_what_stands_behind_the_type_in_the_subject() -> None:
    starts = ("a.run.r.leaf", "a.leaf", "a.run.r.mqinfer-retry.leaf")
    for start in starts:
        assert record.token_of(start, starts) == ""
        assert record.token_of(f"{start}.k", starts) == "k"
        assert record.token_of(f"{start}.k.l", starts) == "k.l"
    assert record.token_of("a.leaflet.k", starts) == "a.leaflet.k"
    assert record.bucket_key("s", "r", "k") == "run.r.s.k"
    assert record.bucket_key("s", None, "") == "live.s"


def version(size: int, revision: int = 1) -> Version:
    data = msgspec.msgpack.encode(b"x" * size)
    return Version(revision, record.record_of(1, "", "", data))


def test_what_is_kept_counts_within_its_tenure_and_time() -> None:
    cache = Cache()
    one = version(10)
    cache.put("k", 7, one, until=100.0)
    assert cache.get("k", 7, 99.0) is one
    assert cache.get("k", 7, 100.0) is None
    assert len(cache) == 0
    assert cache.size == 0
    cache.put("k", 7, one)
    assert cache.get("k", 8, 0.0) is None
    assert cache.get("k", 7, 0.0) is None  # another owner was there meanwhile
    cache.put("k", None, one)
    assert len(cache) == 0
    cache.put("k", 7, one)
    assert cache.get("k", None, 0.0) is None


def test_what_is_kept_is_bounded_and_the_least_used_goes() -> None:
    cache = Cache(10_000)
    for number in range(5):
        cache.put(f"k{number}", 1, version(2_000))
        assert cache.get("k0", 1, 0.0) is not None
        assert cache.size <= 10_000
    assert cache.get("k1", 1, 0.0) is None
    assert len(cache) == 4
    cache.put("k0", 1, version(1))
    cache.put("huge", 1, version(20_000))
    assert cache.get("huge", 1, 0.0) is None
    assert len(cache) == 4
    for number in range(5):
        cache.drop(f"k{number}")
    assert cache.size == 0
