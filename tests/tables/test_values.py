"""Any value of any column type comes back as it was, or its row is refused."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import ipaddress
import itertools
import math
import struct
import types
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.column import Column
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink

UTC = datetime.UTC
D = decimal.Decimal
_numbers = itertools.count()


def same(value: Any) -> Any:
    return value


@dataclasses.dataclass(frozen=True)
class Case:
    """A column: what it is, values that it must keep, any values, and how they are read back."""

    hint: Any
    type: str
    good: st.SearchStrategy[Any]
    any: st.SearchStrategy[Any]
    shown: Callable[[Any], Any] = same


def integer(bits: int, signed: bool) -> Case:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    edges = st.sampled_from([least, most, least - 1, most + 1, 0, 1])
    name = f"{'' if signed else 'U'}Int{bits}"
    return Case(int, name, st.integers(least, most), edges | st.integers())


def number(digits: int, scale: int) -> Case:
    most = 10**digits - 1
    good = st.integers(-most, most).map(lambda n: D(n).scaleb(-scale, decimal.Context(prec=80)))
    wild = st.decimals(allow_nan=True, allow_infinity=True)
    edges = st.sampled_from([D(10) ** (digits - scale), D("1e30"), D("1.999"), D("0.1"), D("-0")])
    return Case(D, f"Decimal({digits}, {scale})", good, good | wild | edges)


def moment(type_: str, scale: int, first: int, last: int) -> Case:
    """Points in time between two years."""
    step = 10 ** max(6 - scale, 0)

    def shown(value: datetime.datetime) -> datetime.datetime:
        value = value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
        return value.replace(microsecond=value.microsecond // step * step)

    zones = st.sampled_from([None, UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))])
    good = st.datetimes(
        datetime.datetime(first, 1, 2), datetime.datetime(last, 12, 30), timezones=zones
    )
    return Case(datetime.datetime, type_, good, st.datetimes(timezones=zones), shown)


def text_of_bytes(value: bytes) -> str:
    """As the client shows bytes: as text if they are, else in hexadecimal."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


WORDS = st.sampled_from(["rust", "mil dew", "it's", "\\", "a=1", "(ü)", "", "`", "x,y"])
ENUM = r"Enum8('rust' = 1, 'mil dew' = -2, 'it\'s' = 0, '\\' = 4, 'a=1', '(ü)', '' = 7, '`', 'x,y')"
IPS = st.ip_addresses(v=4).map(str)
IP6S = st.ip_addresses(v=6).map(str)
UUIDS = st.uuids()
WILD = st.text() | st.sampled_from(
    ["10.1", "1.2.3.4.5", "", "0x7f.0.0.1", "fe80::1%eth0", "01.2.3.4"]
)
WILD_FLOATS = st.floats() | st.sampled_from([1.75, 1e60, 255.0, 256.0, -1.0, math.nan])

SCALARS = [
    *(integer(bits, signed) for bits in (8, 16, 32, 64, 128, 256) for signed in (True, False)),
    *(number(*of) for of in ((9, 0), (10, 2), (18, 18), (38, 18), (38, 0), (76, 38), (76, 76))),
    moment("DateTime64(6, 'UTC')", 6, 1900, 2299),
    moment("DateTime64(3)", 3, 1900, 2299),
    moment("DateTime64(0, 'Asia/Tokyo')", 0, 1900, 2299),
    moment("DateTime64(9, 'UTC')", 9, 1900, 2261),
    moment("DateTime('UTC')", 0, 1970, 2105),
    Case(datetime.date, "Date32",
         st.dates(datetime.date(1900, 1, 1), datetime.date(2299, 12, 31)), st.dates()),
    Case(datetime.date, "Date",
         st.dates(datetime.date(1970, 1, 1), datetime.date(2149, 6, 6)), st.dates()),
    Case(str, "String", st.text(), st.text()),
    Case(bytes, "String", st.binary(), st.binary(), text_of_bytes),
    Case(str, "LowCardinality(String)", st.text(), st.text()),
    Case(bytes, "FixedString(3)", st.binary(min_size=3, max_size=3), st.binary(max_size=5)),
    Case(str, "FixedString(3)", st.sampled_from(["abc", "aü"]), st.text(max_size=4), str.encode),
    Case(bool, "Bool", st.booleans(), st.booleans()),
    Case(bool, "UInt8", st.booleans(), st.booleans(), int),
    Case(int, "Bool", st.integers(0, 1), st.integers(), bool),
    Case(str, "Bool", st.nothing(), st.sampled_from(["false", "true", "", "0"])),
    Case(float, "Float64", st.floats(), WILD_FLOATS),
    Case(float, "Float32", st.floats(width=32), WILD_FLOATS, single),
    Case(int, "Float64", st.integers(-(2**53), 2**53), st.integers(), float),
    Case(int, "Float32", st.integers(-(2**24), 2**24), st.integers(), float),
    Case(float, "UInt8", st.integers(0, 255).map(float), WILD_FLOATS, int),
    Case(float, "Decimal(10, 2)", st.integers(-999, 999).map(lambda n: n / 100), WILD_FLOATS,
         lambda value: D(repr(value))),
    Case(str, ENUM, WORDS, WORDS | st.text()),
    Case(str, "Enum16('rust' = 1000, 'mildew' = -1000)",
         st.sampled_from(["rust", "mildew"]), st.text()),
    Case(int, "Enum8('rust' = 1, 'mildew' = 2)", st.sampled_from([1, 2]), st.integers(),
         lambda code: {1: "rust", 2: "mildew"}[code]),
    Case(uuid.UUID, "UUID", UUIDS, UUIDS),
    Case(str, "UUID", UUIDS.map(str), UUIDS.map(str) | UUIDS.map(lambda u: u.hex) | WILD,
         uuid.UUID),
    Case(str, "IPv4", IPS, IPS | IP6S | WILD, ipaddress.IPv4Address),
    Case(str, "IPv6", IP6S, IPS | IP6S | WILD, ipaddress.IPv6Address),
]  # fmt: skip


def lists(of: Case) -> Case:
    return Case(
        list[of.hint],  # type: ignore[name-defined]
        f"Array({of.type})",
        st.lists(of.good, max_size=3),
        st.lists(of.any, max_size=3),
        lambda value: [of.shown(part) for part in value],
    )


def maps(of: Case) -> Case:
    return Case(
        dict[str, of.hint],  # type: ignore[name-defined]
        f"Map(String, {of.type})",
        st.dictionaries(st.text(max_size=3), of.good, max_size=3),
        st.dictionaries(st.text(max_size=3), of.any, max_size=3),
        lambda value: {k: of.shown(v) for k, v in value.items()},
    )


def pairs(parts: tuple[Case, Case]) -> Case:
    a, b = parts
    return Case(
        tuple[a.hint, b.hint],  # type: ignore[name-defined]
        f"Tuple({a.type}, {b.type})",
        st.tuples(a.good, b.good),
        st.tuples(a.any, b.any),
        lambda value: (a.shown(value[0]), b.shown(value[1])),
    )


def maybe(of: Case) -> Case:
    """A missing value; the column becomes Nullable by itself, or is said to be."""
    plain = of.type if of.type.startswith("Low") else f"Nullable({of.type})"
    return Case(
        of.hint | None,
        plain,
        st.none() | of.good,
        st.none() | of.any,
        lambda value: None if value is None else of.shown(value),
    )


LEAVES = st.sampled_from([case for case in SCALARS if not case.good.is_empty])
NESTED = st.recursive(
    LEAVES | LEAVES.map(maybe),
    lambda inner: inner.map(lists) | inner.map(maps) | st.tuples(inner, inner).map(pairs),
    max_leaves=4,
)


def samples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Values of a strategy; drawn beforehand, so that one insert holds them all."""
    found: list[Any] = []

    @settings(
        max_examples=count, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    if not strategy.is_empty:
        draw()
    return found


def equal(got: Any, want: Any) -> bool:
    if isinstance(want, float):
        # repr tells -0.0 from 0.0, and takes one NaN for another.
        return isinstance(got, float) and repr(got) == repr(want)
    if isinstance(want, datetime.datetime):
        return bool(got.replace(tzinfo=got.tzinfo or UTC) == want)
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(map(equal, got, want))
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(equal(got[k], want[k]) for k in want)
    return isinstance(got, bool) == isinstance(want, bool) and bool(got == want)


async def refused_of(db: ClickHouse, case: Case, values: list[Any]) -> dict[int, str]:
    """What is refused of `values`; all the others are found in the table just as they were."""
    if not values:
        return {}
    name = f"values_{next(_numbers)}"
    hint = Annotated[case.hint, Column(case.type)]
    body = {"__annotations__": {"value": hint}, "__module__": __name__}
    kind: Any = types.new_class(name, (Row,), {"table": name}, lambda ns: ns.update(body))
    refused = await Sink(db, kind).write(
        [(kind(value), Origin(id=str(i))) for i, value in enumerate(values)]
    )
    rows = await db.query(f"SELECT _id, value FROM {name}")
    found = {int(row["_id"]): row["value"] for row in rows}
    assert found.keys() | refused.keys() == set(range(len(values)))
    assert not found.keys() & refused.keys()
    for i, got in found.items():
        assert equal(got, case.shown(values[i])), (case.type, values[i], got)
    for reason in refused.values():
        assert reason.startswith("column 'value' (")
        assert "\n" not in reason
    return refused


@pytest.mark.parametrize("case", SCALARS, ids=lambda c: f"{c.hint.__name__}-{c.type[:24]}")
async def test_any_value_is_kept_as_it_was_or_refused(db: ClickHouse, case: Case) -> None:
    assert await refused_of(db, case, samples(case.good, 40)) == {}
    await refused_of(db, case, samples(case.any, 20))


async def test_so_it_is_in_lists_maps_and_tuples_at_any_depth(db: ClickHouse) -> None:
    for case in samples(NESTED, 12):
        assert await refused_of(db, case, samples(case.good, 5)) == {}, case.type
        await refused_of(db, case, samples(case.any, 5))
