"""The batcher alone: nothing lost, order, bounds, fairness."""

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqinfer.inference.batcher import Batcher, Entry


def items(entries: list[Entry[int]]) -> list[int]:
    return [entry.item for entry in entries]


def filled(count: int, *, max_batch: int = 8, signature: Hashable = "a") -> Batcher[int]:
    batcher: Batcher[int] = Batcher(max_batch=max_batch)
    for number in range(count):
        batcher.add(signature, number, 10, now=float(number))
    return batcher


def test_a_call_goes_out_at_once_while_a_slot_is_free() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8)
    for number in range(2):
        batcher.add("a", number, 10, now=0.0)
        assert items(batcher.take(slots=2)) == [number]
    batcher.add("a", 2, 10, now=0.0)
    assert batcher.take(slots=2) == []


def test_calls_gather_while_all_slots_are_busy_and_go_together() -> None:
    batcher = filled(1)
    batcher.take(slots=1)
    for number in range(1, 6):
        batcher.add("a", number, 10, now=1.0)
        assert batcher.take(slots=1) == []
    batcher.finish()
    assert items(batcher.take(slots=1)) == [1, 2, 3, 4, 5]


def test_a_request_holds_no_more_than_the_batch() -> None:
    batcher = filled(20)
    assert items(batcher.take(slots=8)) == list(range(8))
    assert items(batcher.take(slots=8)) == list(range(8, 16))
    assert items(batcher.take(slots=8)) == list(range(16, 20))


def test_a_request_holds_no_more_than_the_bytes_unless_one_call_does() -> None:
    batcher: Batcher[str] = Batcher(max_batch=8, request_bytes=25)
    for name, size in (("10", 10), ("15", 15), ("1", 1), ("99", 99), ("2", 2)):
        batcher.add("a", name, size, now=0.0)
    taken = []
    while part := batcher.take(slots=8):
        taken.append([entry.item for entry in part])
    assert taken == [["10", "15"], ["1"], ["99"], ["2"]]


def test_the_signature_with_the_oldest_call_goes_first() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2)
    for number, signature in enumerate("abbbaab"):
        batcher.add(signature, number, 1, now=0.0)
    taken = []
    while part := batcher.take(slots=8):
        taken.append(items(part))
    assert taken == [[0, 4], [1, 2], [3, 6], [5]]


def test_calls_put_back_keep_their_place() -> None:
    batcher = filled(6, max_batch=3)
    first = batcher.take(slots=2)
    batcher.take(slots=2)
    batcher.put_back(first)
    batcher.finish()
    batcher.add("a", 6, 10, now=9.0)
    assert items(batcher.take(slots=2)) == [0, 1, 2]


def test_a_batch_limit_bounds_the_request_of_a_call() -> None:
    batcher = filled(8)
    part = batcher.take(slots=1)
    for entry in part[2:4]:
        entry.batch_limit = 1
    batcher.put_back(part)
    batcher.finish()
    taken = []
    while part := batcher.take(slots=8):
        taken.append(items(part))
        batcher.finish()
    assert taken == [[0, 1], [2], [3], [4, 5, 6, 7]]


def test_suspects_go_without_any_other_request_beside() -> None:
    batcher = filled(12, max_batch=4)
    first, second = batcher.take(slots=8), batcher.take(slots=8)
    for entry in first:
        entry.batch_limit = 2
    batcher.put_back(first)
    batcher.finish()
    # The other request is still under way.
    assert batcher.take(slots=8) == []
    for entry in second:
        batcher.done(entry)
    batcher.finish()
    assert items(batcher.take(slots=8)) == [0, 1]
    assert batcher.take(slots=8) == []
    batcher.finish()
    assert items(batcher.take(slots=8)) == [2, 3]
    batcher.finish()
    assert items(batcher.take(slots=8)) == [8, 9, 10, 11]


def test_a_removed_call_is_not_sent() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8)
    entries = [batcher.add("a", number, 10, now=0.0) for number in range(3)]
    assert entries[1] is not None
    assert batcher.remove(entries[1])
    assert not batcher.remove(entries[1])
    assert items(batcher.take(slots=1)) == [0, 2]
    assert entries[0] is not None
    assert not batcher.remove(entries[0])


def test_what_does_not_fit_is_refused_until_there_is_room() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8, max_calls=2, max_bytes=100)
    first = batcher.add("a", 0, 60, now=0.0)
    assert batcher.add("a", 1, 60, now=0.0) is None
    assert batcher.add("a", 2, 40, now=0.0) is not None
    assert batcher.add("a", 3, 0, now=0.0) is None
    part = batcher.take(slots=1)
    assert batcher.add("a", 4, 1, now=0.0) is None
    for entry in part:
        batcher.done(entry)
    assert first is part[0]
    # A single call over the bound is let in alone: it could never be otherwise.
    assert batcher.add("a", 5, 1_000, now=0.0) is not None


def test_statistics_and_repr_show_the_state() -> None:
    batcher = filled(3, max_batch=2)
    batcher.take(slots=1)
    look = batcher.statistics(now=10.0)
    assert (look.waiting, look.waiting_bytes, look.sent, look.busy) == (1, 10, 2, 1)
    assert look.oldest == pytest.approx(8.0)
    assert repr(batcher) == "Batcher(waiting=1, busy=1, sent=2, signatures=1, max_batch=2)"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60))
def test_each_signature_is_first_in_first_out(calls: list[tuple[str, int]]) -> None:
    batcher: Batcher[int] = Batcher(max_batch=5, request_bytes=40)
    for number, (signature, size) in enumerate(calls):
        batcher.add(signature, number, size, now=0.0)
    out: list[int] = []
    while part := batcher.take(slots=1):
        assert len({entry.signature for entry in part}) == 1
        out += items(part)
        batcher.finish()
    for signature in "abc":
        assert [n for n in out if calls[n][0] == signature] == sorted(
            n for n in out if calls[n][0] == signature
        )
    assert sorted(out) == list(range(len(calls)))


class Life(RuleBasedStateMachine):
    """Any order of adds, removals, requests, answers and outages."""

    @initialize(max_batch=st.integers(1, 5), slots=st.integers(1, 3))
    def start(self, max_batch: int, slots: int) -> None:
        self.slots = slots
        self.batcher: Batcher[int] = Batcher(
            max_batch=max_batch, request_bytes=50, max_calls=12, max_bytes=150
        )
        self.added: dict[int, Entry[int]] = {}
        self.waiting: set[int] = set()
        self.requests: list[list[Entry[int]]] = []
        self.ended: set[int] = set()

    @rule(signature=st.sampled_from("ab"), size=st.integers(0, 80))
    def add(self, signature: str, size: int) -> None:
        fits = self.batcher.fits(size)
        number = len(self.added)
        entry = self.batcher.add(signature, number, size, now=float(number))
        assert (entry is not None) == fits
        if entry is not None:
            self.added[number] = entry
            self.waiting.add(number)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.batcher.remove(self.added[number])
        self.waiting.discard(number)
        self.ended.add(number)

    @rule()
    def take(self) -> None:
        busy = self.batcher.busy
        part = self.batcher.take(self.slots)
        if busy >= self.slots or not self.waiting:
            assert part == []
            return
        if any(entry.batch_limit for request in self.requests for entry in request):
            assert part == [], "suspects must be alone"
            return
        if busy and self.added[min(self.waiting)].batch_limit:
            assert part == [], "suspects must wait until they can be alone"
            return
        assert len({entry.batch_limit is None for entry in part}) == 1
        numbers = items(part)
        assert part
        assert len(part) <= self.batcher.max_batch
        assert len(part) == 1 or sum(entry.size for entry in part) <= 50
        assert all(len(part) <= (entry.batch_limit or len(part)) for entry in part)
        assert numbers[0] == min(self.waiting)
        assert numbers == sorted(numbers)
        assert set(numbers) <= self.waiting
        self.waiting -= set(numbers)
        self.requests.append(part)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        part = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        for entry in part:
            self.batcher.done(entry)
            self.ended.add(entry.item)
        self.batcher.finish()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        part = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        for entry in part:
            entry.batch_limit = max(1, len(part) // 2)
        self.batcher.put_back(part)
        self.batcher.finish()
        self.waiting |= set(items(part))

    @invariant()
    def nothing_is_lost(self) -> None:
        sent = {entry.item for part in self.requests for entry in part}
        assert sorted(self.added) == sorted([*self.waiting, *sent, *self.ended])
        assert {entry.item for entry in self.batcher} == self.waiting
        look = self.batcher.statistics(now=0.0)
        assert look.waiting == len(self.batcher) == len(self.waiting)
        assert look.sent == len(sent)
        assert look.busy == len(self.requests) <= self.slots
        assert look.waiting + look.sent <= 12
        held = sum(self.added[number].size for number in self.waiting | sent)
        assert held <= 150 or look.waiting + look.sent == 1


TestLife = Life.TestCase
