"""`change`: the one loop that changes a value where nobody was quicker."""

from __future__ import annotations

import pytest

from mqinfer import bucket as module
from mqinfer.backoff import Backoff
from mqinfer.bucket import change
from mqinfer.errors import ConflictError
from tests.support.bucket import Memory


def one_more(value: bytes | None) -> bytes:
    return b"%d" % (int(value or b"0") + 1)


async def test_a_value_is_made_changed_and_deleted() -> None:
    bucket = Memory()
    assert await change(bucket, "a", one_more, what="a") == (None, b"1")
    assert await change(bucket, "a", one_more, what="a") == (b"1", b"2")
    assert await change(bucket, "a", lambda _: None, what="a") == (b"2", None)
    assert bucket.values["a"] == (b"", 3)
    assert await change(bucket, "a", one_more, what="a") == (None, b"1")


async def test_what_does_not_change_is_not_written() -> None:
    bucket = Memory()
    assert await change(bucket, "a", lambda value: value, what="a") == (None, None)
    await change(bucket, "a", one_more, what="a")
    assert await change(bucket, "a", lambda value: value, what="a") == (b"1", b"1")
    assert bucket.writes == 1


async def test_whoever_is_slower_begins_with_what_the_others_wrote() -> None:
    bucket = Memory(quicker=3)
    assert await change(bucket, "a", one_more, what="a") == (b"300", b"301")
    assert bucket.values["a"][0] == b"301"


async def test_it_gives_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY", Backoff(initial=0.0))
    bucket = Memory(quicker=1_000)
    with pytest.raises(ConflictError, match="the run r1 keeps changing: try again"):
        await change(bucket, "a", one_more, what="the run r1")
    assert bucket.writes == 0
    assert bucket.quicker == 990  # a bounded number of attempts


async def test_who_refuses_changes_nothing() -> None:
    bucket = Memory()

    def refuse(_value: bytes | None) -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await change(bucket, "a", refuse, what="a")
    assert bucket.values == {}


class Counting(Memory):
    """One that counts what is read."""

    loads = 0

    async def load(self, key: str) -> tuple[bytes, int] | None:
        self.loads += 1
        return await super().load(key)


async def test_what_is_known_is_not_read_again() -> None:
    bucket, known = Counting(), {"a": (b"", 0)}
    for _ in range(3):
        await change(bucket, "a", one_more, what="a", known=known)
    assert (bucket.loads, bucket.values["a"], known["a"]) == (0, (b"3", 3), (b"3", 3))
    await change(bucket, "b", one_more, what="b", known=known)
    assert (bucket.loads, known["b"]) == (1, (b"1", 1))


async def test_what_is_believed_and_wrong_is_found_out() -> None:
    bucket, known = Counting(), {"a": (b"5", 1)}
    bucket.values["a"] = (b"10", 7)
    assert await change(bucket, "a", one_more, what="a", known=known) == (b"10", b"11")
    assert (bucket.loads, bucket.values["a"], known["a"]) == (1, (b"11", 8), (b"11", 8))
