"""What goes into which pack, and who hears of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer import App, Message, Row
from mqinfer.codec import Codec
from mqinfer.errors import PayloadTooLarge, PublishError, WiringError
from mqinfer.identity import MSG_ID, output_id
from mqinfer.rowpacks import gather
from mqinfer.rowpacks.gather import MAX_ROWS, Gatherer, Group
from mqinfer.rowpacks.unpack import Pack
from mqinfer.rowpacks.which import packed
from tests.support.flow import FakeBroker, Flow, Number, turns


class Told(Row, table="told"):
    value: int


class Alone(Row, table="alone", pack=False):
    value: int


class Keyed(Row, table="keyed", key="value"):
    value: int


class Long(Row, table="long"):
    text: str


class Both(Message, subject="both"):
    value: int


HEADS: Any = {"json": "Content-Type: application/json\r\nMq-Stage: s\r\n", "msgpack": ""}


def group(parent: str, count: int, *, size: int = 0) -> Group:
    found = Group(f"Mq-Ancestors: {parent}\r\n")
    for index in range(count):
        row = b'{"value":%d%b}' % (index, b" " * size)
        found.add(output_id(parent, "s", None, index), row)
    return found


def pack_of(published: Any) -> Pack:
    content = published.headers.get("Content-Type")
    return Pack(Told, published.payload, content, Codec())


class Heard(list[tuple[str, Exception | None, bool]]):
    """Who was told of what."""

    def of(self, name: str) -> Any:
        return lambda error, repeat: self.append((name, error, repeat))


async def test_what_is_handed_in_in_one_turn_is_one_message() -> None:
    broker: Any = FakeBroker()
    gatherer, heard = Gatherer(b"t.=pack.told", HEADS, broker), Heard()
    for number in range(40):
        gatherer.add("json", group(f"in:{number}", 2), heard.of(f"in:{number}"))
    assert not broker.published
    await turns(2)
    (one,) = broker.published
    assert one.subject == "t.=pack.told"
    pack = pack_of(one)
    assert pack.ids == [output_id(f"in:{n}", "s", None, i) for n in range(40) for i in range(2)]
    assert pack.ancestors() == [(f"in:{n}",) for n in range(40) for _ in range(2)]
    assert [row.value for row in pack.rows if row] == [0, 1] * 40
    assert not heard
    broker.answer()
    assert heard == [(f"in:{number}", None, False) for number in range(40)]


async def test_one_that_is_alone_leaves_in_its_turn() -> None:
    broker: Any = FakeBroker()
    gatherer, heard = Gatherer(b"t.=pack.told", HEADS, broker), Heard()
    gatherer.add("json", group("a", 1), heard.of("a"))
    await asyncio.sleep(0)
    assert len(broker.published) == 1
    gatherer.add("json", group("b", 1), heard.of("b"))
    await asyncio.sleep(0)
    assert len(broker.published) == 2
    broker.answer(1, repeat=True)
    broker.answer(0, PublishError("refused"))
    assert [(name, type(error), repeat) for name, error, repeat in heard] == [
        ("b", type(None), True),
        ("a", PublishError, False),
    ]


async def test_it_knows_how_many_rows_a_pack_has_of_late() -> None:
    gatherer = Gatherer(b"t.=pack.told", HEADS, FakeBroker())  # type: ignore[arg-type]
    assert gatherer.rows_a_pack == 1
    sizes = [100] * 10 + [1] * 500
    means = []
    for number, rows in enumerate(sizes):
        gatherer.add("json", group(f"in:{number}", rows), lambda *_: None)
        gatherer.flush()
        means.append(gatherer.rows_a_pack)
    assert means[:10] == [100] * 10
    assert round(means[19], 6) == 50.5  # of as few as these all count the same
    assert means[-1] < 1.1


async def test_the_same_pack_has_the_same_id_and_another_has_another() -> None:
    broker: Any = FakeBroker()
    for parents in (("a", "b"), ("a", "b"), ("a", "c")):
        gatherer = Gatherer(b"t.=pack.told", HEADS, broker)
        for parent in parents:
            gatherer.add("json", group(parent, 3), lambda *_: None)
        gatherer.flush()
    first, again, other = (one.headers[MSG_ID] for one in broker.published)
    assert first == again != other


async def test_many_rows_of_one_input_are_cut_and_heard_of_once() -> None:
    broker: Any = FakeBroker()
    gatherer, heard = Gatherer(b"t.=pack.told", HEADS, broker), Heard()
    gatherer.add("json", group("a", 2 * MAX_ROWS + 1), heard.of("a"))
    assert len(broker.published) == 3  # at once: it does not wait for the turn's end
    packs = [pack_of(one) for one in broker.published]
    assert [len(pack.ids) for pack in packs] == [MAX_ROWS, MAX_ROWS, 1]
    assert [row.value for pack in packs for row in pack.rows if row] == list(range(4_001))
    broker.answer(repeat=True)
    broker.answer(repeat=False)
    assert not heard
    broker.answer(repeat=True)
    assert heard == [("a", None, False)]


class Small(FakeBroker):
    """A stream that takes little, and says so."""

    def __init__(self, limit: int):
        super().__init__()
        self.limit = limit

    def publish(
        self, subject: Any, header: bytes, payload: bytes, done: Any, **options: Any
    ) -> None:
        if len(payload) > self.limit:
            done(PayloadTooLarge("message size exceeds maximum allowed"), False)
            return
        super().publish(subject, header, payload, done, **options)


async def test_a_pack_that_the_stream_finds_too_large_is_cut_not_refused() -> None:
    broker: Any = Small(300)
    gatherer, heard = Gatherer(b"t.=pack.told", HEADS, broker), Heard()
    for name in "abc":
        gatherer.add("json", group(name, 5), heard.of(name))
    gatherer.add("json", group("large", 1, size=400), heard.of("large"))
    gatherer.flush()
    assert [name for name, *_ in heard] == ["large"]  # alone it is refused, and nobody with it
    assert isinstance(heard[0][1], PayloadTooLarge)
    ids = [identity for one in broker.published for identity in pack_of(one).ids]
    assert ids == [output_id(name, "s", None, index) for name in "abc" for index in range(5)]
    broker.answer_all()
    assert [(name, error) for name, error, _ in heard[1:]] == [(name, None) for name in "abc"]


async def test_what_cannot_be_made_is_told_and_nobody_waits() -> None:
    broker: Any = FakeBroker()
    gatherer, heard = Gatherer(b"t.=pack.told", HEADS, broker), Heard()
    odd = Group("Mq-Models: a=\udc80\r\n")
    odd.add("no hexadecimal digits", b"{}")
    gatherer.add("json", odd, heard.of("odd"))
    gatherer.flush()
    assert [(name, type(error)) for name, error, _ in heard] == [("odd", ValueError)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 200), st.sampled_from(["json", "msgpack"])),
        max_size=12,
    ),
    st.integers(400, 4_000),
)
def test_any_groups_come_out_whole_in_packs_within_the_bounds(
    groups: list[tuple[int, int, Any]], limit: int
) -> None:
    """Every row once, in the order of its input; no pack too large; everybody hears once."""
    made = []
    for number, (count, size, wire) in enumerate(groups):
        one = group(f"in:{number}", count, size=size)
        one.done = lambda *_: None
        made.append((wire, one))
    for wire in ("json", "msgpack"):
        here = [one for one_wire, one in made if one_wire == wire]
        packs = list(gather._cut(here, limit))
        found = [
            (g.ids[at], g.rows[at]) for pack in packs for g, a, b in pack for at in range(a, b)
        ]
        assert found == [pair for g in here for pair in zip(g.ids, g.rows, strict=True)]
        for pack in packs:
            rows = sum(b - a for _, a, b in pack)
            size = sum(len(g.lines) + sum(len(r) + 18 for r in g.rows[a:b]) for g, a, b in pack)
            assert rows == 1 or (size <= limit and rows <= MAX_ROWS)
        for g in here:
            assert g.left == sum(g is one for pack in packs for one, _, _ in pack)


# --- of a stage ---------------------------------------------------------------------------------


async def test_handlers_that_end_in_one_turn_write_one_pack_and_their_messages_alone() -> None:
    go = asyncio.Event()

    async def tell(number: Number) -> list[Both | Told]:
        await go.wait()
        return [Both(number.value), Told(number.value), Told(-number.value)]

    flow = Flow(tell)
    async with flow.running():
        for sequence in range(1, 101):
            flow.deliver(sequence)
        await turns()
        go.set()
        await turns()
        subjects = flow.broker.subjects()
        assert subjects.count("t.both") == 100
        assert subjects.count("t.=pack.told") == 1
        assert len(subjects) == 101
        (pack,) = [pack_of(one) for one in flow.broker.published if "=pack" in one.subject]
        assert len(pack.ids) == 200
        expected = {output_id(f"t:{n}", "s", None, at) for n in range(1, 101) for at in (1, 2)}
        assert set(pack.ids) == expected
        assert flow.metrics.outputs_published == 300
        assert flow.broker.said == []  # not before all of it is stored
        flow.broker.answer_all()
        assert [what for what, _, _ in flow.broker.said] == ["ack"] * 100


async def tell(number: Number) -> list[Told | Alone | Keyed]:
    return [Told(1), Alone(2), Keyed(3)]


async def read(told: Told) -> None:
    """A stage that reads the rows, too."""


async def test_rows_go_alone_where_somebody_may_read_them() -> None:
    flow = Flow(tell)
    async with flow.running():
        flow.deliver(1)
        await turns()
        assert sorted(flow.broker.subjects()) == ["t.=pack.told", "t.alone", "t.keyed.3"]
        flow.broker.answer_all()
    app = App("t")
    app.stage(tell)
    app.stage(name="tells")(tell)
    assert [packed(app, kind) for kind in (Told, Alone, Keyed, Number)] == [True, *[False] * 3]
    app.stage(read)
    assert not packed(app, Told)


def test_only_rows_are_packed() -> None:
    with pytest.raises(WiringError, match="pack= belongs to a Row"):

        class Nothing(Message, pack=False):
            pass


async def write_long(number: Number) -> list[Long]:
    return [Long("short"), Long("x" * 300_000)]


async def test_a_row_that_is_too_large_for_a_pack_goes_alone() -> None:
    flow = Flow(write_long)
    async with flow.running():
        flow.deliver(1)
        await turns()
        assert sorted(flow.broker.subjects()) == ["t.=pack.long", "t.long"]
        flow.broker.answer_all()
        assert [what for what, _, _ in flow.broker.said] == ["ack"]


async def test_a_row_that_cannot_be_written_leaves_none_of_its_siblings() -> None:
    async def tell(number: Number) -> list[Told]:
        return [Told(1), Told("no number")]  # type: ignore[arg-type]

    flow = Flow(tell, attempts=1)
    async with flow.running():
        flow.deliver(1)
        await turns()
        assert flow.broker.subjects() == ["dead.t.s"]
        flow.broker.answer_all()
