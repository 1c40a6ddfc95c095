"""Any grouping of rows gives the table what single messages give it; a bad row costs no other."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import Row
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import DecodeError
from mqinfer.flow.job import Job
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    MODELS,
    MSG_ID,
    RUN,
    STAGE,
    TRACE,
    extend_ancestors,
    format_models,
    header_line,
    input_id,
    output_id,
    parse_ancestors,
    parse_models,
)
from mqinfer.ports import Origin
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.gather import Gatherer, Group
from mqinfer.rowpacks.layout import Lineages
from mqinfer.rowpacks.unpack import Pack, payload_of, raw_rows
from mqinfer.rowpacks.which import pack_subject, row_subject
from mqinfer.tables.block import build_block
from mqinfer.tables.origins import Batch
from mqinfer.tables.packsintotable import _add
from mqinfer.tables.tables import schema_of
from tests.support.flow import Delivered, FakeBroker

TIME = 1_780_000_000_000_000_000


class Reading(Row, table="reading", order_by="n"):
    n: int
    text: str
    value: float | None = None
    day: datetime.date = datetime.date(2026, 5, 1)
    many: tuple[int, ...] = ()


class Inner(Row, table="inner", wire="msgpack"):
    data: bytes
    of: dict[str, float]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.builds(
        Reading,
        WHOLE,
        TEXT,
        st.none() | st.floats(allow_nan=False),
        st.dates(datetime.date(1900, 1, 1), datetime.date(2299, 1, 1)),
        st.lists(WHOLE, max_size=3).map(tuple),
    ),
    st.builds(Inner, st.binary(max_size=20), st.dictionaries(TEXT, st.floats(), max_size=2)),
)
ID = st.text("abcdefxyz0123456789:-~%", min_size=1, max_size=40)
LINEAGE = st.tuples(
    ID,
    st.lists(ID, max_size=18).map(tuple),
    st.dictionaries(st.sampled_from(["leaf", "rust"]), st.sampled_from(["1", "2"])),
    st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)


def lines_of(lineage: Any) -> str:
    parent, ancestors, models, trace = lineage
    lines = header_line(ANCESTORS, " ".join(extend_ancestors(ancestors, parent)))
    if models:
        lines += header_line(MODELS, format_models(models))
    return lines + (header_line(TRACE, trace) if trace else "")


def packs_of(broker: FakeBroker, kind: Any) -> list[Any]:
    found = []
    for number, one in enumerate(broker.published, 1):
        delivery = Delivered(number, one.payload, one.headers, subject=one.subject, published=TIME)
        pack = Pack(kind, one.payload, one.headers.get(CONTENT_TYPE), Codec())
        job: Any = Job(delivery, 0.0, 0.0)  # type: ignore[arg-type]
        job.open("sink", None, None)
        job.message = pack
        found.append((pack, job))
    return found


def columns(block: Any) -> dict[str, Any]:
    """By identity: what a row's place in the stream makes of it is left out."""
    place = ("_sequence", "_published", "_version")
    names = [name for name in block.names if name not in place]
    data = {n: block.data[block.names.index(n)] for n in names}
    return {
        identity: repr([data[name][at] for name in names])
        for at, identity in enumerate(data["_id"])
    }


@given(st.lists(st.tuples(LINEAGE, st.lists(VALUES, max_size=6)), max_size=6))
def test_any_grouping_gives_the_table_what_single_messages_give(groups: Any) -> None:
    codec = Codec()
    for kind in (Reading, Inner):
        broker: Any = FakeBroker()
        heads: Any = {
            wire: header_line(CONTENT_TYPE, name) + header_line(STAGE, "s")
            for wire, name in CONTENT_TYPES.items()
        }
        gatherer = Gatherer(b"t.=pack.x", heads, broker)
        singles = []
        for number, (lineage, values) in enumerate(groups):
            made: dict[Any, Group] = {}
            for index, row in enumerate(values):
                if type(row) is not kind:
                    continue
                payload, wire = codec.write(row)
                identity = output_id(f"{number}:{lineage[0]}", "s", None, index)
                made.setdefault(wire, Group(lines_of(lineage))).add(identity, payload)
                ancestors = " ".join(extend_ancestors(lineage[1], lineage[0]))
                origin = Origin(
                    identity,
                    parse_ancestors(ancestors),
                    "s",
                    models=parse_models(format_models(lineage[2])),
                )
                singles.append((row, origin))
            for wire, group in made.items():
                gatherer._held.setdefault(wire, []).append(group)
                group.done = lambda *_: None
        gatherer.flush()
        batch = Batch()
        for _, job in packs_of(broker, kind):
            _add(job, batch)
        expected = columns(build_block(schema_of(kind), singles))
        assert columns(build_block(schema_of(kind), batch)) == expected


def a_pack(rows: list[bytes], content: str = "application/json") -> tuple[bytes, dict[str, str]]:
    ids = b"".join(bytes.fromhex(output_id("in:7", "s", None, at)) for at in range(len(rows)))
    headers = {ANCESTORS: ["in:1 in:7"], TRACE: ["00-x-y-01"], "Mq-Id": ["a stranger's"]}
    wire: Any = "json" if "json" in content else "msgpack"
    data = layout.write(Lineages(ids, [len(rows)], headers), rows, wire)
    return data, {CONTENT_TYPE: content, STAGE: "s", MSG_ID: "pack:x", RUN: "r1"}


def test_a_pack_is_decoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    data, headers = a_pack([b'{"n":%d,"text":"x"}' % n for n in range(1000)])
    calls = 0
    original = Codec.decoder

    def counted(self: Any, kind: Any, wire: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, kind, wire)

    monkeypatch.setattr(Codec, "decoder", counted)
    pack = Pack(Reading, data, headers[CONTENT_TYPE], Codec())
    assert [row.n for row in pack.rows if row] == list(range(1000))
    assert calls == 1


def test_a_row_that_cannot_be_read_is_a_message_of_its_own() -> None:
    rows = [b'{"n":1,"text":"a"}', b'{"n":"one","text":"b"}', b'{"n":3,"text":"c"}']
    data, headers = a_pack(rows)
    pack = Pack(Reading, data, headers[CONTENT_TYPE], Codec())
    assert [row and row.n for row in pack.rows] == [1, None, 3]
    assert list(pack.refused) == [1]
    assert "Expected `int`, got `str`" in str(pack.refused[1])
    delivery: Any = Delivered(9, data, headers, subject="t.run.r1.=pack.reading", stream="t")
    (single,) = pack.singles([1], delivery)
    assert (single.subject, single.data, single.sequence) == ("t.run.r1.reading", rows[1], 9)
    identity = output_id("in:7", "s", None, 1)
    assert single.headers == {
        ANCESTORS: "in:1 in:7",
        TRACE: "00-x-y-01",
        STAGE: "s",
        RUN: "r1",
        CONTENT_TYPE: "application/json",
        MSG_ID: identity,
    }
    assert input_id(single.headers, "t", 9) == identity
    assert raw_rows(data) == rows
    assert payload_of(data, identity) == rows[1]
    assert payload_of(data, "0" * 32) is None


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"", "are no array"),
        (b'[{"n":1,"text":"a"}', "are no array"),
        (b'{"n":1}', "are no array"),
        (b"[" * 100_000, "are no array"),
        (b'[{"n":1,"text":"a"}]', "says 2 rows, and has 1"),
        (b'[{"n":1,"text":"a"},{"n":1,"text":"a"},{"n":1,"text":"a"}]', "says 2 rows, and has 3"),
        (b'[{"n":1,"text":"a"},{"n":1,"text":"a"}] and more', "are no array"),
    ],
)
def test_rows_that_are_none_are_told(tail: bytes, reason: str) -> None:
    data, _ = a_pack([b"1", b"2"])
    data = data[: -len(b"[1,2]")] + tail
    with pytest.raises(DecodeError, match=reason):
        Pack(Reading, data, "application/json", Codec())


def test_an_unknown_format_is_told() -> None:
    data, _ = a_pack([b"1"])
    pack = Pack(Reading, data, "text/xml", Codec())
    assert "text/xml" in str(pack.refused[0])


@given(st.data())
def test_whatever_a_stranger_sends_is_rows_or_a_text(data: st.DataObject) -> None:
    rows = [b'{"n":%d,"text":"x"}' % n for n in range(4)]
    content = data.draw(st.sampled_from([*CONTENT_TYPES.values(), "text/plain", ""]))
    whole = bytearray(a_pack(rows, content or "application/json")[0])
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(places, max_size=5)):
        whole[at] = value
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    delivery: Any = Delivered(1, cut, {}, subject="t.=pack.reading")
    try:
        pack = Pack(Reading, cut, content or None, Codec())
    except DecodeError:
        return
    assert len(pack.ids) == len(pack.rows) == len(pack.ancestors()) == len(pack.models())
    assert len(pack.singles(pack.refused, delivery)) == len(pack.refused)


def test_a_nan_and_a_number_go_in_two_formats_and_come_back() -> None:
    codec = Codec()
    assert codec.write(Reading(1, "x", math.nan))[1] == "msgpack"
    assert codec.write(Reading(1, "x", 1.0))[1] == "json"


def test_subjects() -> None:
    from mqinfer import App

    app = App("plants")
    for run, single in ((None, "plants.reading"), ("r1", "plants.run.r1.reading")):
        subject = pack_subject(app, Reading, run)
        assert row_subject(subject) == single == app.subject(Reading, run)
    for other in ("plants.reading", "plants.word.=pack", "plants.word.a=pack.b", "=pack.x"):
        assert row_subject(other) is None
