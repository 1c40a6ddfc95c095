"""The order by key, against a model of the server: no turn comes before it may, none is forgotten.

The model is what JetStream does: it numbers the deliveries of a consumer, gives out what was given
back or whose time ran out again, in any order, and hears of ends in the order in which one
connection said them. Another worker, that should not, pulls beside this one, dies, and settles.
"""

from __future__ import annotations

import random

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mqinfer.flow.ordered.turns import Turns

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
        self.resting: set[int] = set()  # of these, those that wait for their time
        self.infos: list[tuple[int, int]] = []  # answers of the server that are under way

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
        self.infos.append((len(self.unsettled), self.deliveries))

    # --- the worker -----------------------------------------------------------------------------

    @precondition(lambda self: self.under_way)
    @rule()
    def arrive(self) -> None:
        sequence, number, again = self.under_way.pop(0)
        known = sequence in self.turns
        self.turns.delivered(sequence, self.keys[sequence], number, again=again)
        if not known and self.turns.arrived(sequence, sequence):
            self.begin(sequence)

    @precondition(lambda self: self.infos)
    @rule()
    def look(self) -> None:
        for sequence in self.turns.look(*self.infos.pop(0)):
            self.begin(sequence)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(sequence)
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

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """It failed, and is to be tried again here: its turn stays."""
        sequence = data.draw(st.sampled_from(sorted(self.working)))
        self.turns.rest(sequence, sequence)
        self.working.discard(sequence)
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
        sequence = data.draw(st.sampled_from(here))
        self.working.discard(sequence)
        self.resting.discard(sequence)
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
        self.working.clear()
        self.resting.clear()
        self.turns.doubt()

    # --- what must hold -------------------------------------------------------------------------

    def first(self, sequence: int) -> bool:
        """Whether all of the key before it are settled."""
        key = self.keys[sequence]
        return not any(
            self.keys[other] == key
            for other in (*self.unsettled, *range(self.next, sequence))
            if other < sequence
        )

    def begin(self, sequence: int) -> None:
        assert sequence not in self.working
        assert self.first(sequence), (sequence, self.unsettled)
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
            for sequence in sorted(self.working):
                self.working.discard(sequence)
                self.said.append(sequence)
            while self.said:
                self.hear()
            if not self.working and not self.said:
                self.answer()
                self.look()
                if turn % patience == patience - 1 and not self.turns.sure:
                    self.lose()  # it has waited for too long: another has settled what is here
        assert not self.unsettled
        assert self.next == len(self.keys) + 1
        assert len(self.turns) == 0


TestServer = Server.TestCase
TestServer.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
