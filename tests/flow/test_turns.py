"""The order by key, against a model of the server: no turn comes before it may, none is forgotten.

The model is what JetStream does: it numbers the deliveries of a consumer, gives out what was given
back or whose time ran out again, in any order, and hears of ends in the order in which one
connection said them. Another worker, that should not, pulls beside this one, dies, and settles.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mqinfer.flow.ordered.turns import ENDS, Found, Turns

KEYS = "abc"


class Server(RuleBasedStateMachine):
    """One partition, one worker that keeps turns, and one that does not ask whether it may."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns()
        self.keys: dict[int, str] = {}  # sequence -> key; sequences begin at 1
        self.next = 1  # message that was not delivered yet
        self.deliveries = 0
        self.attempts: dict[int, int] = {}
        self.unsettled: dict[int, str] = {}  # delivered, and no end: who has it
        self.again: list[int] = []  # to be delivered again
        self.under_way: list[tuple[int, int, bool]] = []  # to this worker: sequence, number, again
        self.said: list[int] = []  # settled here, and the server does not know yet
        self.working: set[int] = set()  # begun here
        self.storing: set[int] = set()  # handled here, and not settled
        self.resting: set[int] = set()  # of these, those that wait for their time
        self.infos: list[tuple[int, int, int]] = []  # answers of the server that are under way

    # --- the server -----------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS))
    def publish(self, key: str) -> None:
        self.keys[len(self.keys) + 1] = key

    def deliver(self, who: str) -> int | None:
        if self.again:
            sequence = self.again.pop(0)
        elif self.next <= len(self.keys):
            sequence, self.next = self.next, self.next + 1
        else:
            return None
        self.deliveries += 1
        self.attempts[sequence] = self.attempts.get(sequence, 0) + 1
        self.unsettled[sequence] = who
        return sequence

    @rule()
    def deliver_here(self) -> None:
        sequence = self.deliver("here")
        if sequence is not None:
            self.under_way.append((sequence, self.deliveries, self.attempts[sequence] > 1))

    @rule(key=st.sampled_from(KEYS))
    def burst(self, key: str) -> None:
        """Three of a key come one behind the other, to a worker that knows where it stands."""
        for _ in range(3):
            self.publish(key)
            self.deliver_here()
        while self.under_way:
            self.arrive()
        while self.said:
            self.hear()
        self.answer()
        self.look()

    @rule()
    def deliver_there(self) -> None:
        self.deliver("there")

    @rule(seed=st.integers(0, 5))
    def run_out(self, seed: int) -> None:
        """What somebody else had, and did not settle, is given out again, in any order."""
        theirs = [one for one, who in self.unsettled.items() if who == "there"]
        random.Random(seed).shuffle(theirs)
        for sequence in theirs:
            self.unsettled[sequence] = "nobody"
            self.again.append(sequence)

    @precondition(lambda self: "here" in self.unsettled.values())
    @rule(data=st.data())
    def run_out_here(self, data: st.DataObject) -> None:
        """The server is told of one too late, and gives it out again, whatever is done with it."""
        coming = {sequence for sequence, _, _ in self.under_way}
        here = [one for one, who in self.unsettled.items() if who == "here" and one not in coming]
        assume(here)
        sequence = data.draw(st.sampled_from(here))
        self.unsettled[sequence] = "nobody"
        self.again.append(sequence)

    @rule()
    def settle_there(self) -> None:
        """The other worker keeps to the rule as well: it settles only the first of a key."""
        for sequence, who in sorted(self.unsettled.items()):
            if who == "there" and self.first(sequence):
                del self.unsettled[sequence]
                return

    @rule()
    def answer(self) -> None:
        self.infos.append((self.turns.lost, len(self.unsettled), self.deliveries))

    # --- the worker -----------------------------------------------------------------------------

    @precondition(lambda self: self.under_way)
    @rule()
    def arrive(self) -> None:
        sequence, number, again = self.under_way.pop(0)
        known = sequence in self.turns
        self.turns.delivered(sequence, self.keys[sequence], number, again=again)
        if sequence not in self.turns:
            self.give_back(sequence)
        elif not known and self.turns.arrived(sequence, sequence):
            self.begin(sequence)

    @precondition(lambda self: self.infos)
    @rule()
    def look(self) -> None:
        lost, *counts = self.infos.pop(0)
        if lost == self.turns.lost:  # as an owner does it
            found = self.turns.look(*counts)
            for sequence in found.ready:
                self.begin(sequence)
            for sequence in found.stale:
                self.part_with(sequence)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        """Its handler is done: the next of its key may begin beside what it led to."""
        sequence = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(sequence)
        self.storing.add(sequence)
        following = self.turns.passes(sequence)
        if following is not None:
            self.begin(following)

    @precondition(lambda self: self.working or self.storing)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """In their order: who hands on states sees to that."""
        may = [one for one in sorted(self.working | self.storing) if self.first(one, self.said)]
        assume(may)
        self.say(data.draw(st.sampled_from(may)))

    def say(self, sequence: int) -> None:
        self.working.discard(sequence)
        self.storing.discard(sequence)
        self.said.append(sequence)

    @precondition(lambda self: self.said)
    @rule()
    def hear(self) -> None:
        """The server reads an end, and answers what was asked after it."""
        sequence = self.said.pop(0)
        self.unsettled.pop(sequence, None)
        if sequence in self.again:
            self.again.remove(sequence)
        following = self.turns.settled(sequence)
        if following is not None:
            self.begin(following)

    @precondition(lambda self: self.working or self.storing)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """It failed, and is to be tried again here: its turn stays.

        Those that began beside it fail as well, sooner or later.
        """
        self.rest(data.draw(st.sampled_from(sorted(self.working | self.storing))))

    def rest(self, sequence: int) -> None:
        self.turns.rest(sequence, sequence)
        self.working.discard(sequence)
        self.storing.discard(sequence)
        self.resting.add(sequence)

    @precondition(lambda self: self.resting)
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.resting)))
        if self.turns.due(sequence):
            self.begin(sequence)

    @precondition(lambda self: len(self.turns) > 0)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        here = sorted(set(self.turns.items()) - set(self.said))
        assume(here)
        self.part_with(data.draw(st.sampled_from(here)))

    def part_with(self, sequence: int) -> None:
        for some in (self.working, self.storing, self.resting):
            some.discard(sequence)
        self.turns.left(sequence)
        self.give_back(sequence)

    def give_back(self, sequence: int) -> None:
        if self.unsettled.get(sequence) == "here":
            self.unsettled[sequence] = "nobody"
            self.again.append(sequence)

    @precondition(lambda self: not self.under_way and not self.said)
    @rule()
    def lose(self) -> None:
        """The claim is lost: all is dropped, and the partition taken anew when nothing is left."""
        for sequence in self.turns.items():
            self.turns.left(sequence)
            self.give_back(sequence)
        for some in (self.working, self.storing, self.resting):
            some.clear()
        self.turns.doubt()

    # --- what must hold -------------------------------------------------------------------------

    def first(self, sequence: int, but: Iterable[int] = ()) -> bool:
        """Whether all of the key before it are settled, or are among `but`."""
        key = self.keys[sequence]
        return not any(
            self.keys[other] == key and other not in but
            for other in (*self.unsettled, *range(self.next, sequence))
            if other < sequence
        )

    def begin(self, sequence: int) -> None:
        assert sequence not in self.working
        assert sequence not in self.storing
        beside = {*self.storing, *self.said}  # handled here, and what comes of it is in order
        assert self.first(sequence, beside), (sequence, self.unsettled)
        self.resting.discard(sequence)
        self.working.add(sequence)

    @invariant()
    def one_of_a_key_is_at_work(self) -> None:
        keys = [self.keys[sequence] for sequence in self.working]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        """Left alone with the server, the worker brings everything to its end."""
        self.run_out(0)
        self.infos.clear()
        patience = 2 * len(self.keys) + 6
        for turn in range(6 * patience):
            self.deliver_here()
            while self.under_way:
                self.arrive()
            for sequence in sorted(self.resting):
                if self.turns.due(sequence):
                    self.begin(sequence)
            for sequence in sorted(self.working | self.storing):
                if self.first(sequence, self.said):
                    self.say(sequence)
                else:
                    self.rest(sequence)
            while self.said:
                self.hear()
            if not self.working and not self.storing and not self.said:
                self.answer()
                self.look()
                if turn % patience == patience - 1 and not self.turns.sure:
                    self.lose()  # it has waited for too long: another has settled what is here
        assert not self.unsettled
        assert self.next == len(self.keys) + 1
        assert len(self.turns) == 0


TestServer = Server.TestCase
TestServer.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


def sure(messages: int) -> Turns[int]:
    """Messages of one key, and the first has begun."""
    turns: Turns[int] = Turns()
    turns.look(0, 0)
    for number in range(1, messages + 1):
        turns.delivered(number, "k", number, again=False)
        assert turns.arrived(number, number) is (number == 1)
    return turns


def test_the_next_begins_beside_one_that_is_handled_and_the_others_when_their_turn_comes() -> None:
    turns = sure(4)
    assert turns.passes(1) == 2
    assert turns.passes(1) is None  # once
    assert turns.settled(1) is None  # its successor is at work already
    assert turns.settled(2) == 3
    assert turns.passes(3) == 4
    assert turns.passes(4) is None
    turns.delivered(5, "k", 5, again=False)
    assert not turns.arrived(5, 5)
    assert turns.settled(3) is None
    assert turns.settled(4) == 5


def test_what_began_beside_one_that_failed_begins_anew_behind_it() -> None:
    for first, second in ((1, 2), (2, 1)):  # whichever is told first
        turns = sure(3)
        assert turns.passes(1) == 2
        turns.rest(first, first)
        assert turns.busy
        assert not turns.due(first)  # the other is at work
        assert turns.look(3, 3) == Found()
        turns.rest(second, second)
        assert turns.look(3, 3) == Found(ready=[1])
        assert turns.settled(1) == 2
        assert turns.settled(2) == 3


def test_one_that_was_settled_elsewhere_does_not_stand_for_one_that_is_missing() -> None:
    turns = sure(2)
    # The server gives the first out again: it is settled elsewhere, where the third is now, too.
    turns.delivered(4, "k", 5, again=False)
    turns.rest(1, 1)  # it failed here
    assert not turns.arrived(4, 4)
    assert turns.look(3, 5) == Found(stale=[1, 2])  # as many as are here
    for sequence in (1, 2):
        turns.left(sequence)
    turns.delivered(2, "k", 6, again=True)
    assert not turns.arrived(2, 2)
    assert turns.look(3, 6) == Found()  # the third has no end, and is not here
    turns.delivered(3, "k", 7, again=True)
    assert not turns.arrived(3, 3)
    assert turns.look(3, 7) == Found(ready=[2])
    assert turns.settled(2) == 3
    assert turns.settled(3) == 4


def test_what_went_elsewhere_last_may_have_been_one_that_is_here() -> None:
    turns = sure(1)
    turns.rest(1, 1)
    turns.doubt()
    # The first went elsewhere, and ended there; so did the second, and is there.
    assert turns.look(1, 3) == Found()  # it may be on its way to here
    assert turns.look(1, 3) == Found(stale=[1])
    turns.left(1)
    turns.delivered(2, "k", 4, again=True)
    assert not turns.arrived(2, 2)
    assert turns.look(1, 4) == Found(ready=[2])


def test_one_that_was_settled_as_it_came_again_does_not_stand_for_one_that_is_missing() -> None:
    turns = sure(3)
    assert turns.settled(1) == 2
    turns.rest(2, 2)
    turns.left(3)
    turns.delivered(1, "k", 4, again=True)  # given out just before the server heard of its end
    assert 1 not in turns
    assert turns.look(2, 4) == Found()  # the third is with nobody
    turns.delivered(3, "k", 5, again=True)
    assert not turns.arrived(3, 3)
    assert turns.look(2, 5) == Found(ready=[2])
    assert turns.settled(2) == 3


def test_one_at_a_time_one_that_was_settled_as_it_came_again_is_not_handled_twice() -> None:
    turns: Turns[int] = Turns()
    turns.sure = turns.single = True
    turns.delivered(1, "k", 1, again=False)
    assert turns.arrived(1, 1)
    turns.settled(1)
    turns.delivered(1, "k", 2, again=True)
    assert len(turns) == 0


def test_a_server_that_has_forgotten_an_end_has_its_message_handled_at_last() -> None:
    turns = sure(1)
    turns.settled(1)
    turns.delivered(1, "k", 2, again=True)
    assert 1 not in turns  # handed back
    turns.delivered(1, "k", 3, again=True)
    assert not turns.arrived(1, 1)
    assert turns.look(1, 3) == Found(ready=[1])


def test_a_stream_that_was_made_anew_begins_with_the_same_numbers() -> None:
    turns = sure(1)
    turns.settled(1)
    turns.delivered(1, "k", 1, again=False)
    assert 1 in turns


def test_ends_are_remembered_for_two_windows() -> None:
    turns = sure(1)
    turns.settled(1)
    for number in range(2, ENDS + 2):
        turns.delivered(number, "k", number, again=False)
        turns.arrived(number, number)
        turns.settled(number)
    turns.delivered(2, "k", ENDS + 2, again=True)
    turns.delivered(1, "k", ENDS + 3, again=True)
    assert 2 not in turns
    assert 1 in turns
