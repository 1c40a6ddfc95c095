"""Assemble: the records of one root become what is told to those who wait for it. Pure.

The tree of messages is walked from the root: what no path from it leads to (a stranger's copy of a
header) is not part of it. Outputs stand in the order of their causes: that of the readers' names
and of the numbers of the outputs on their path, whatever the order in which records came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterable
from operator import itemgetter
from typing import Final

import msgspec

from mqinfer.completion.progress import CHANGED, COMPLETE, LIMIT, TOO_MANY, Decision, split
from mqinfer.completion.record import First, Output, Payload, Record, firsts, nodes_of, whole
from mqinfer.identity import MAX_LINKS, format_models, parse_models

STEPS = 128  # from one pause to the next
MAX_BYTES = 64 * 1024 * 1024  # of the payloads that one root's outputs may have together


class Incomplete(LookupError):
    """Records are missing."""


class Died(msgspec.Struct, array_like=True, frozen=True):
    """A message that came of the root and was dead-lettered.

    Attributes:
        stage: that gave up on it.
        id: of the message.
        kind: "decode", "rejected", "failed", "timeout" or "killed"; "canceled" or "expired": it
            was passed over, and no dead letter, since the request that it came of had ended.
        reason: its text.
    """

    stage: str
    id: str
    kind: str
    reason: str


class Found(msgspec.Struct, array_like=True, frozen=True):
    """One output.

    Attributes:
        id: its identity.
        subject: of its type.
        payload: its bytes.
    """

    id: str
    subject: str
    payload: Payload


class Tale(msgspec.Struct, frozen=True):
    """What came of one root.

    Attributes:
        id: identity of the root, "" where no stage has told of it yet.
        first: the root, or None.
        root: its bytes, or None where nobody wants them.
        outputs: of the types that were asked for, in the order of their causes.
        died: what was dead-lettered, in that order.
        how: COMPLETE, or why it is not.
        missing: by stage, how many messages it has not settled.
        models: `name=version` of those that answered.
        causes: of each of the outputs, the number of the root's output that it came of, or is.
        died_of: the same of what died.
        left: of which of the root's outputs something is missing.
        traces: of those that gave the outputs, if they were traced, each once.
    """

    id: str
    first: First | None
    root: Payload | None
    outputs: tuple[Found, ...]
    died: tuple[Died, ...]
    how: str
    missing: dict[str, int]
    models: str
    causes: tuple[int, ...] = ()
    died_of: tuple[int, ...] = ()
    left: frozenset[int] = frozenset()
    traces: tuple[str, ...] = ()


def tale(records: Iterable[Record], wanted: Collection[str], decision: Decision) -> Tale:
    """What is told.

    Args:
        records: of one root, all there are, in the order of their stream.
        wanted: subjects of the types asked for.
        decision: what belongs to it.

    Raises:
        Incomplete: it is decided that nothing is missing, and something is.
    """
    found = tale_by_steps(records, wanted, decision)
    while True:
        try:
            next(found)
        except StopIteration as end:
            told: Tale = end.value
            return told


def tale_by_steps(
    records: Iterable[Record], wanted: Collection[str], decision: Decision
) -> Generator[None, None, Tale]:
    """The same, with a pause now and then; arguments and errors as of `tale`."""
    walk = _Walk(records, wanted, decision)
    yield from walk.steps()
    if decision.how == COMPLETE and (walk.missing or not walk.id):
        raise Incomplete(f"no records of {dict(walk.missing) or 'the root'}")
    how = decision.how
    if walk.over:
        how = TOO_MANY
    elif walk.unasked and how == COMPLETE:
        how = CHANGED
    return Tale(
        id=walk.id,
        first=walk.first,
        root=walk.root,
        outputs=tuple(walk.outputs),
        died=tuple(walk.died),
        how=how,
        missing=dict(walk.missing),
        models=format_models(walk.models),
        causes=tuple(walk.causes),
        died_of=tuple(walk.died_of),
        left=frozenset(walk.left),
        traces=tuple(walk.traces),
    )


_Step = tuple[str, str, int] | tuple[Output, Record, tuple[Payload, ...] | None, int]
# Of what is before the root's outputs: a stage that reads it.
ROOT: Final = -1


class _Walk:
    """The way from a root through its records."""

    def __init__(self, records: Iterable[Record], wanted: Collection[str], decision: Decision):
        self._wanted = wanted
        self._records: dict[tuple[str, str], list[Record]] = {}
        self._roots: list[Record] = []
        self._visited: set[tuple[str, str]] = set()
        self._bytes = 0
        self.id = ""
        self.first: First | None = None
        self.root: Payload | None = None
        self.outputs: list[Found] = []
        self.died: list[Died] = []
        self.causes: list[int] = []
        self.died_of: list[int] = []
        self.left: set[int] = set()
        self.missing: Counter[str] = Counter()
        self.models: dict[str, str] = {}
        self.traces: dict[str, None] = {}
        self.over = False  # there are more outputs than are told
        self.unasked = False  # a record has left out some that are asked for now
        seen = None if decision.how == COMPLETE else split(decision.seen)
        for record in records:
            if seen is None or record.node in seen:
                self._records.setdefault((record.id, record.stage), []).append(record)
                if record.first is not None:
                    self._roots.append(record)

    def steps(self) -> Generator[None]:
        """Walk from the readers of the root, in the order of their names."""
        readers: dict[str, str] = {}
        for record in self._roots:
            assert record.first is not None
            data = self._data(record)
            if self.first is None and data is not None:
                self.id, self.first = record.id, record.first
                self.root = data[record.first.payload] if record.first.payload >= 0 else None
            readers |= {reader: identity for identity, reader in firsts(record)}
        # By a stack, not by calls: a chain may be as long as a root may have messages.
        todo: list[_Step] = [(readers[name], name, ROOT) for name in sorted(readers, reverse=True)]
        number = 0
        while todo:
            number += 1
            if not number % STEPS:
                yield
            step = todo.pop()
            if len(step) == 3:
                todo += reversed(self._visit(*step))
            else:
                self._take(*step)

    def _visit(self, identity: str, reader: str, cause: int) -> list[_Step]:
        """Take in what became of a message at a reader; what is next, in its order."""
        one = identity, reader
        if one in self._visited:
            return []
        self._visited.add(one)
        records = self._records.get(one)
        if records is None:
            self.missing[reader] += 1
            self.left.add(cause)
            return []
        found: dict[str, tuple[Output, Record, tuple[Payload, ...] | None]] = {}
        for record in records:  # of several attempts what the stream took first
            self.models |= parse_models(record.models)
            data = self._data(record)
            if data is None:
                self.missing[reader] += 1
                self.left.add(cause)
            for output in record.outputs:
                found.setdefault(output.id, (output, record, data))
        ends = [record for record in records if record.outcome != "failed"]
        if ends and all(record.error for record in ends):
            kind, reason = ends[0].error or ("", "")
            self.died.append(Died(reader, identity, kind, reason))
            self.died_of.append(cause)
        steps: list[_Step] = []
        for output, record, data in sorted(found.values(), key=lambda one: one[0].index):
            of = output.index if cause == ROOT else cause
            steps.append((output, record, data, of))
            nodes = nodes_of(output, record.kinds[output.kind], record.run)
            steps += [(*one, of) for one in sorted(nodes, key=itemgetter(1))]
        return steps

    def _take(
        self, output: Output, record: Record, data: tuple[Payload, ...] | None, cause: int
    ) -> None:
        subject = record.kinds[output.kind].subject
        if subject not in self._wanted or data is None:
            return
        if output.data < 0:
            if record.too_many:
                self.over = True
            else:
                self.unasked = True
            return
        payload = data[output.data]
        self._bytes += len(payload.data)
        if len(self.outputs) >= LIMIT or self._bytes > MAX_BYTES:
            self.over = True
            self.left.add(cause)
            return
        self.outputs.append(Found(output.id, subject, payload))
        self.causes.append(cause)
        if record.trace and len(self.traces) < MAX_LINKS:
            self.traces[record.trace] = None

    def _data(self, record: Record) -> tuple[Payload, ...] | None:
        """The payloads that a record holds, or its pieces; None where one of these is missing."""
        if not record.pieces:
            return record.data
        pieces = []
        for name in record.pieces:
            found = self._records.get((record.id, name))
            if found is None or found[0].piece is None:
                return None
            pieces.append(found[0].piece)
        return whole(pieces)
