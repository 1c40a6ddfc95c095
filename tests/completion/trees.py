"""What may come of a root: trees of messages, and the records that stages would publish of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from mqinfer.completion.record import (
    First,
    Kind,
    Output,
    Payload,
    Record,
    cut,
    joined_id,
)
from mqinfer.completion.roots import root_of
from mqinfer.identity import output_id

ROOT = "the root"
ROOT_OF = root_of("photo", ROOT, None)
# Who reads what: `leaf` is a diamond, `inner` is the root of another join, `grade` is the end.
READERS = {"photo": ("cut", "look"), "leaf": ("grade", "shape"), "inner": ("grade",), "grade": ()}
JOINS = {"inner": ("each",)}
KINDS = ("leaf", "inner", "grade")
WANTED = frozenset({"grade"})


@dataclass
class Tree:
    """What came of one root, in the order of its causes.

    Attributes:
        records: of every message at every reader.
        grades: the payloads of the outputs asked for.
        died: stage and id of what died.
    """

    records: list[Record] = field(default_factory=list)
    grades: list[bytes] = field(default_factory=list)
    died: list[tuple[str, str]] = field(default_factory=list)


@st.composite
def trees(draw: st.DrawFn, largest: int = 25) -> Tree:
    tree = Tree()
    left = [draw(st.integers(0, largest))]

    def handle(identity: str, reader: str, depth: int, first: First | None) -> None:
        dies = draw(st.integers(0, 5)) == 0
        count = 0 if dies or depth > 4 else draw(st.integers(0, min(4, left[0])))
        left[0] -= count
        kinds = [draw(st.sampled_from(KINDS)) for _ in range(count)]
        places = list(dict.fromkeys(kinds))
        data = [] if first is None else [Payload(b"photo")]
        outputs, below = [], []
        for index, kind in enumerate(kinds):
            one = output_id(identity, reader, None, index)
            at = -1
            if kind in WANTED:
                at = len(data)
                data.append(Payload(one.encode() * draw(st.sampled_from((1, 1, 1, 5000)))))
            outputs.append(Output(one, places.index(kind), index, at))
            below.append((kind, one, at))
        error = ("failed", "it was bad") if dies else None
        if dies:
            tree.died.append((reader, identity))
        tree.records += cut(
            Record(
                id=identity,
                stage=reader,
                outcome="dead" if dies else "answered",
                kinds=tuple(Kind(kind, READERS[kind], JOINS.get(kind, ())) for kind in places),
                outputs=tuple(outputs),
                data=tuple(data),
                first=first,
                error=error,
            )
        )
        for kind, one, at in below:
            if at >= 0:
                tree.grades.append(data[at].data)
            nodes = [(one, name) for name in READERS[kind]]
            nodes += [(joined_id(one, name, ""), name) for name in JOINS.get(kind, ())]
            for node in sorted(nodes, key=lambda node: node[1]):
                handle(*node, depth + 1, None)

    first = First(READERS["photo"], 0, 0, {})
    for reader in sorted(READERS["photo"]):
        handle(ROOT, reader, 0, first)
    return tree
