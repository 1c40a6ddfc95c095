"""Numbers of variable length: there and back, and cut off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import varint


@given(st.integers(0, 1 << 70), st.binary(max_size=3), st.binary(max_size=3))
def test_what_is_written_is_read(number: int, before: bytes, after: bytes) -> None:
    data = before + varint.write(number) + after
    assert varint.read(data, len(before)) == (number, len(data) - len(after))


def test_as_the_protocols_have_it() -> None:
    assert [varint.write(number) for number in (0, 127, 300)] == [b"\x00", b"\x7f", b"\xac\x02"]


def test_one_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(IndexError):
        varint.read(b"\xac", 0)
