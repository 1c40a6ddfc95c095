"""The bytes of a pack: what is written is what is read, and what is none is told in words."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import DecodeError
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.layout import Lineages

IDS = bytes(range(48))
LINEAGES = Lineages(IDS, [2, 1], {"Mq-Ancestors": ["a", "b c"]})
ROWS = [b'{"n":1}', b'{"n":2}', b'{"n":3}']


def test_what_is_written_is_read() -> None:
    data = layout.write(LINEAGES, ROWS, "json")
    assert layout.count(data) == 3
    lineages, rows = layout.read(data)
    assert lineages == LINEAGES
    assert bytes(rows) == b"[" + b",".join(ROWS) + b"]"


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_an_array_in_msgpack_is_of_any_length(count: int) -> None:
    lineages = Lineages(bytes(16 * count), [count], {})
    _, rows = layout.read(layout.write(lineages, [b"\xc0"] * count, "msgpack"))
    assert msgspec.msgpack.decode(rows) == [None] * count


def test_identities_may_be_any_texts() -> None:
    lineages = Lineages(["a", "0198f3c2-0000-7000-8000-000000000000", "b c"], [3], {})
    found, _ = layout.read(layout.write(lineages, ROWS, "json"))
    assert found.identities()[:2] == lineages.ids[:2]
    assert " " not in found.identities()[2]


def broken(**changes: Any) -> bytes:
    fields = {"ids": IDS, "counts": [2, 1], "headers": {"Mq-Ancestors": ["a", "b"]}, **changes}
    head = msgspec.msgpack.encode(list(fields.values()))
    return struct.pack("<BII", 1, 3, len(head)) + head + b"[{},{},{}]"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"\x01\x00", "has 2 bytes"),
        (b'{"n": 1, "text": "a row by itself"}', "has layout 123"),
        (b"\x02" + layout.write(LINEAGES, ROWS, "json")[1:], "has layout 2, and this version"),
        (struct.pack("<BII", 1, 3, 1 << 31) + b"x", "was cut off"),
        (struct.pack("<BII", 1, 1 << 31, 1) + b"\x90[]", "does not say whose"),
        (struct.pack("<BII", 1, 3, 4) + b"\xdd\xff\xff\xff[]", "does not say whose"),
        (struct.pack("<BII", 1, 3, 30_000) + b"\x91" * 30_000, "does not say whose"),
        (broken(ids=IDS[1:]), "contradicts itself"),
        (broken(ids=["a", "b"]), "contradicts itself"),
        (broken(ids="text"), "does not say whose"),
        (broken(counts=[3]), "contradicts itself"),
        (broken(counts=[2, 1, 1]), "contradicts itself"),
        (broken(counts=[4, -1]), "does not say whose"),
        (broken(counts=[2**62, 2**62]), "contradicts itself"),
        (broken(headers={"Mq-Ancestors": ["a"]}), "contradicts itself"),
        (broken(headers={"Mq-Ancestors": "ab"}), "does not say whose"),
    ],
)
def test_what_is_no_pack_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        layout.read(data)


@given(st.data())
def test_whatever_the_bytes_are_it_is_a_pack_or_an_error_of_ours(data: st.DataObject) -> None:
    whole = bytearray(layout.write(LINEAGES, ROWS, "json"))
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)
    ):
        whole[at] = value
    cut = data.draw(st.integers(0, len(whole)))
    try:
        lineages, _ = layout.read(bytes(whole[:cut]))
    except DecodeError:
        return
    assert sum(lineages.counts) == len(lineages.identities())
