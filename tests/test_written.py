"""What is written is what every reader gets, or is refused where it is written."""

import contextlib
import dataclasses
import datetime
import math
import uuid
from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mqinfer import App, Blob, Message, Row
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import DecodeError, EncodeError
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.names import named

codec = Codec()


class Color(Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: float
    y: float | None = None


class Far(Point):
    z: float = 0.0


@dataclasses.dataclass
class Data:
    x: float


def message(hint: Any, *, wire: str = "json", base: type = Message) -> Any:
    space = {"__annotations__": {"value": hint}, "__module__": __name__}
    return type(Message)("Sample", (base,), space, wire=wire)


def back(value: Any) -> Any:
    """What a reader gets."""
    data, wire = codec.write(value)
    found: Any = codec.decode(type(value), data, CONTENT_TYPES[wire])
    return found.value


TIME = datetime.time
BERLIN = datetime.time(12, tzinfo=ZoneInfo("Europe/Berlin"))  # == the time without a zone
MASKED = np.ma.array([1, 2], mask=[False, True])


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (int, "7", r"Sample.value is '7', which its readers would refuse: Expected `int`"),
        (int, np.float32(2.0), r"Sample.value is 2.0"),
        (int, None, r"Sample.value is None"),
        (int, True, r"Sample.value is True"),
        (bool, 1, r"Sample.value is 1"),
        (float, "1.0", r"Sample.value is '1.0'"),
        (float, 2**60 + 1, r"Sample.value is 1152921504606846977, a int"),
        (str, 7, r"Sample.value is 7"),
        (str, b"rust", r"Sample.value is b'rust'"),
        (str, uuid.UUID(int=1), r"Sample.value is UUID\(.*, a UUID, and its readers would get '0"),
        (str, datetime.date(2026, 5, 1), r"Sample.value is datetime.date"),
        (bytes, "abcd", r"Sample.value is 'abcd'"),
        (datetime.date, datetime.datetime(2026, 5, 1, 12), r"Sample.value is datetime.datetime"),
        (list[float], np.array([1.0]), r"Sample.value is array\(\[1.\]\)"),
        (list[int], [1, "2"], r"Sample.value is \[1, '2'\].* at `\$.value\[1\]`"),
        (dict[str, int], {"a": 1.5}, r"Sample.value is {'a': 1.5}"),
        (dict[str, str], {"a": b"x"}, r"Sample.value\['a'\] is b'x'"),
        (dict[str, Any], {"a": {1: 2}}, r"Sample.value\['a'\] is {1: 2}, a dict"),
        (dict[str, Any], {"a": Decimal("1.5")}, r"Sample.value\['a'\] is Decimal"),
        (Point, Point("1"), r"Expected `float \| null`|Expected `float`"),
        (Point, Far(1.0, 2.0, 3.0), r"Sample.value is Far\(.*, a Far, and .* Point\("),
        (list[Point], [Point(1.0), Far(1.0)], r"Sample.value\[1\] is Far"),
        (NDArray[np.float32], np.array([1.5]), "the array is float64, the field wants float32"),
        (NDArray[np.uint8], [300], "numbers that uint8 cannot"),
        (Blob, "a/b.png", "Sample.value is 'a/b.png', a str, and its readers would get a Blob"),
        (Blob | None, b"png", "Sample.value is b'png'"),
        (Decimal, 0.1, "Sample.value is 0.1, a float"),
        (list[str], ["a", object()], "Sample.value cannot be written: a message cannot carry a ob"),
        (str, "\ud800", "Sample.value cannot be written: .*surrogates"),
        (list[Any], [np.datetime64("2026-01-01")], "Sample.value"),
        (datetime.time, BERLIN, "Sample.value is datetime.time.*says no offset without a date"),
        (dict[str, list[datetime.time]], {"a": [BERLIN]}, r"Sample.value\['a'\]\[0\] is datetime"),
        (dict[datetime.time, int], {BERLIN: 1}, r"Sample.value\[datetime.time.* no offset"),
        (NDArray[np.int64], MASKED, "Sample.value cannot be written: a masked array"),
        (Any, [MASKED], "Sample.value cannot be written: a masked array"),
    ],
    ids=named,
)
@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_another_value_than_the_type_says_is_refused(
    hint: Any, value: Any, text: str, wire: str
) -> None:
    kind = message(hint, wire=wire)
    if wire == "msgpack":  # which has bytes and keys of its own: kept, or refused all the same
        with contextlib.suppress(EncodeError):
            assert back(kind(value)) == value
        return
    with pytest.raises(EncodeError, match=text):
        codec.write(kind(value))


@pytest.mark.parametrize(
    ("hint", "value", "want"),
    [
        (float, 2, 2.0),
        (float, np.float32(0.1), float(np.float32(0.1))),
        (int, np.int64(7), 7),
        (list[float], (1.0, 2.0), [1.0, 2.0]),
        (Sequence[Point], (Point(1.0),), [Point(1.0)]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], {"a", "b"}, {"a", "b"}),
        (set[str], ["a", "b"], {"a", "b"}),
        (list[int], frozenset([1, 2]), [1, 2]),
        (Color, "red", Color.RED),
        (list[Data], [Data(1)], [Data(1.0)]),
        (
            datetime.datetime,
            # the hour that comes twice: == says False to its own moment in another zone
            datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime.datetime(2026, 10, 25, 1, 30, tzinfo=datetime.UTC),
        ),
        (Any, {"a": [1, 2.5, None, "x", (True,)]}, {"a": [1, 2.5, None, "x", [True]]}),
        (list[Blob], [Blob(b"x")], [Blob(b"x")]),
        (set[Blob], {Blob(b"x"), Blob(b"y")}, {Blob(b"x"), Blob(b"y")}),
        (Any, [Blob.at("a/b.png")], ["a/b.png"]),
    ],
    ids=named,
)
@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_the_same_value_in_another_dress_is_kept(
    hint: Any, value: Any, want: Any, wire: str
) -> None:
    assert back(message(hint, wire=wire)(value)) == want


@pytest.mark.parametrize("hint", [datetime.time, list[datetime.time], dict[str, datetime.time]])
@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_no_zone_of_a_time_is_lost(hint: Any, wire: str) -> None:
    """Two times are equal for Python if one has no zone, and the other one that needs a date."""

    def put(time: datetime.time) -> Any:
        return {"a": time} if hint == dict[str, datetime.time] else time if hint is TIME else [time]

    for zone in (None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=-3))):
        found = back(message(hint, wire=wire)(put(BERLIN.replace(tzinfo=zone))))
        (time,) = found.values() if isinstance(found, dict) else [found] if hint is TIME else found
        assert time.tzinfo == zone
    with pytest.raises(EncodeError, match="no offset without a date"):
        codec.write(message(hint, wire=wire)(put(BERLIN)))


@pytest.mark.parametrize(
    "array",
    [[1.0, 2.0], np.array([math.nan, 1.0], np.float32), [], [0.1], [[0.1]], [[], []]],
    ids=named,
)
@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_arrays_are_kept(array: Any, wire: str) -> None:
    found = back(message(NDArray[np.float32], wire=wire)(array))
    assert np.array_equal(found, np.asarray(array, np.float32), equal_nan=True)


NUMBERS = [math.nan, math.inf, -math.inf]
NESTS: list[tuple[Any, Any, str]] = [
    (float, lambda x: x, ""),
    (float | None, lambda x: x, ""),
    (float, np.float32, ""),
    (list[float | None], lambda x: [1.0, x], "[1]"),
    (dict[str, tuple[float, ...]], lambda x: {"a": (x,)}, "['a'][0]"),
    (Point, lambda x: Point(1.0, x), ".y"),
    (list[Data], lambda x: [Data(x)], "[0].x"),
    (Any, lambda x: {"a": [x]}, "['a'][0]"),
]


@pytest.mark.parametrize(("hint", "put", "place"), NESTS, ids=named)
@pytest.mark.parametrize("number", NUMBERS)
def test_json_cannot_say_nan_and_never_says_null_instead(
    hint: Any, put: Any, place: str, number: float
) -> None:
    with pytest.raises(EncodeError) as refused:
        codec.write(message(hint)(put(number)))
    assert str(refused.value).startswith(f"Sample.value{place} is {number}, which JSON cannot say")
    assert "wire='msgpack'" in str(refused.value)
    for kind in (message(hint, wire="msgpack"), message(hint, base=Row)):  # kept
        data, wire = codec.write(kind(put(number)))
        assert wire == "msgpack"
        found: Any = codec.decode(kind, data, "application/msgpack")
        wanted = put(float(number))
        assert repr(found.value) == repr(float(wanted) if hint is float else wanted)
        assert codec.write(kind(put(1.0)))[1] == kind.__mqinfer__.wire


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_nan_in_json_of_others_is_told(literal: str) -> None:
    with pytest.raises(DecodeError, match="JSON has no NaN and no Infinity"):
        codec.decode(message(list[float]), f'{{"value": [1.0, {literal}]}}'.encode())
    with pytest.raises(DecodeError, match="malformed") as refused:
        codec.decode(message(str), b'{"value": NoNaN}')
    assert "Infinity" not in str(refused.value)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.times()
    | st.uuids()
    | st.decimals()
    | st.sampled_from(
        [Color.RED, Blob(b"x"), np.float32(0.1), np.int8(3), np.arange(3.0), Point(1)]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
HINTS: list[Any] = [
    bool, int, float, str, bytes, Decimal, uuid.UUID, Color, Point, Blob, NDArray[np.float64],
    datetime.date, datetime.datetime, datetime.timedelta, datetime.time, Any,
    float | None, int | str, list[float], dict[str, Any], tuple[int, str], set[int],
]  # fmt: skip
KINDS = [message(hint, wire=wire) for hint in HINTS for wire in ("json", "msgpack")]
KINDS += [message(hint, base=Row) for hint in HINTS]


def alike(found: Any, value: Any) -> bool:
    """An opinion of its own on whether two values are the same."""
    if isinstance(value, Blob):
        return isinstance(found, (Blob, dict, bytes))
    if isinstance(value, np.ndarray) or isinstance(found, np.ndarray):
        if isinstance(value, list) and isinstance(found, np.ndarray) and found.dtype.kind in "fc":
            value = np.asarray(value, found.dtype)  # numbers of a list are rounded to it
        return np.asarray(found).tolist() == np.asarray(value).tolist()
    if isinstance(value, (list, tuple)):
        if isinstance(found, set):
            return found == set(value)
        return len(found) == len(value) and all(map(alike, found, value))
    if isinstance(value, dict):
        return list(found) == list(value) and all(map(alike, found.values(), value.values()))
    if isinstance(found, Enum):
        return found is value or found.value == value
    if isinstance(value, (float, Decimal)) and value != value:
        return bool(found != found)
    if isinstance(value, datetime.datetime) and value.tzinfo and found.tzinfo:
        return found.astimezone(datetime.UTC) == value.astimezone(datetime.UTC)
    return bool(found == value) and isinstance(found, bool) == isinstance(value, bool)


@settings(max_examples=200)
@example(message(NDArray[np.float64]), [2**53 + 1])
@given(st.sampled_from(KINDS), anything)
def test_any_value_in_any_field_is_kept_or_refused(kind: Any, value: Any) -> None:
    one = kind(value)
    with contextlib.suppress(EncodeError):
        assert alike(back(one), value)


class Ask(Message):
    what: str


class Leaf(Message):
    what: str
    grade: Any = 0


class Graded(Message):
    what: str
    grade: int = 0


async def test_a_wrong_output_is_a_failure_of_the_stage_that_wrote_it(nats: Settings) -> None:
    app = App("wrongoutput")
    read: list[Graded] = []

    @app.stage(attempts=1)
    async def writer(ask: Ask) -> list[Graded]:
        return [Graded(ask.what, 1), Graded(ask.what, "7" if ask.what == "bad" else 2)]  # type: ignore[arg-type]

    @app.stage(attempts=1)
    async def in_batches(asks: list[Ask]) -> list[Leaf]:
        return [Leaf(ask.what, b"x" if ask.what == "bad" else 2) for ask in asks]

    @app.stage
    async def reader(graded: Graded) -> None:
        read.append(graded)

    async with Harness(app, nats) as harness:
        await harness.publish(Ask("good"), Ask("bad"))
        with pytest.raises(EncodeError, match=r"Ask.what is 7"):
            await harness.publish(Ask(7))  # type: ignore[arg-type]
        await harness.drain()
        letters = {letter.stage: letter for letter in await harness.dead()}
        assert set(letters) == {"writer", "in_batches"}
        assert letters["writer"].data == b'{"what":"bad"}'
        assert "Graded.grade is '7'" in letters["writer"].reason
        assert "Leaf.grade is b'x', a bytes" in letters["in_batches"].reason
        assert [one.what for one in read] == ["good", "good"]
