# ruff: noqa: RUF012 - msgspec copies empty defaults
"""Round trips of everything that a message can carry, and bytes that nobody meant to send."""

import base64
import datetime
import json
import uuid
from decimal import Decimal
from enum import Enum, StrEnum

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray

from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.blob import Blob
from mqinfer.codec import Codec
from mqinfer.errors import DecodeError, EncodeError, NotConnected, Reject
from mqinfer.message import Message


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int


class Everything(Message):
    text: str = ""
    whole: int = 0
    real: float = 0.0
    yes: bool = False
    raw: bytes = b""
    day: datetime.date | None = None
    at: datetime.datetime | None = None
    id: uuid.UUID | None = None
    price: Decimal | None = None
    color: Color = Color.RED
    points: list[Point] = []
    names: dict[str, int] = {}
    blob: Blob | None = None
    blobs: list[Blob] = []
    pixels: np.ndarray | None = None
    floats: NDArray[np.float32] | None = None
    small: NDArray[np.uint8] | None = None


class Packed(Everything, wire="msgpack"):
    pass


KINDS = [Everything, Packed]
codec = Codec()


def same(one, other):
    """Whether two messages are equal, their arrays included."""
    for name in one.__struct_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.shape != right.shape:
                return False
            if left.tobytes() != right.tobytes():  # also for NaN
                return False
        elif left != right:
            return False
    return True


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
arrays = nps.arrays(
    dtype=nps.boolean_dtypes()
    | nps.integer_dtypes()
    | nps.unsigned_integer_dtypes()
    | nps.floating_dtypes(sizes=(16, 32, 64))
    | nps.complex_number_dtypes(sizes=(64, 128)),
    shape=nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
fields = {
    "text": text,
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(allow_nan=False, allow_infinity=False),
    "yes": st.booleans(),
    "raw": st.binary(max_size=50),
    "day": st.none() | st.dates(),
    "at": st.none() | st.datetimes(timezones=st.just(datetime.UTC)),
    "id": st.none() | st.uuids(),
    "price": st.none() | st.decimals(allow_nan=False, allow_infinity=False),
    "color": st.sampled_from(Color),
    "points": st.lists(st.builds(Point, st.integers(0, 9), st.integers(0, 9)), max_size=3),
    "names": st.dictionaries(text, st.integers(-9, 9), max_size=3),
    "blob": st.none() | st.binary(max_size=50).map(Blob) | st.just("a/b.png").map(Blob.at),
    "blobs": st.lists(st.binary(max_size=9).map(Blob), max_size=3),
    "pixels": st.none() | arrays,
}


@settings(max_examples=100)
@given(st.data(), st.sampled_from(KINDS))
def test_everything_comes_back(data, kind):
    message = kind(**{name: data.draw(values, name) for name, values in fields.items()})
    payload = codec.encode(message)
    found = codec.decode(kind, payload)
    assert type(found) is kind
    assert same(found, message)
    assert codec.encode(found) == payload


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::3],
        np.array(5.0),
        np.zeros((0, 3), np.float16),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array([np.nan, np.inf, -0.0]),
    ],
    ids=str,
)
def test_arrays_come_back_and_can_be_written(kind, array):
    found = codec.decode(kind, codec.encode(kind(pixels=array))).pixels
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    found[...] = 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_in_the_other_byte_order_fits_its_field(kind):
    message = kind(floats=np.array([1.5, 2.5], ">f4"))
    found = codec.decode(kind, codec.encode(message)).floats
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_message_can_carry_is_refused_when_it_is_written(kind):
    for wrong in (np.array(["a"]), np.array([None]), np.array(["2026-01-01"], "M8[D]")):
        with pytest.raises(TypeError, match="cannot travel: numbers only"):
            codec.encode(kind(pixels=wrong))
    with pytest.raises(TypeError, match="a message cannot carry a object"):
        codec.encode(kind(text=object()))


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_scalars_are_numbers(kind):
    message = kind(whole=np.int64(7), real=np.float32(0.5), yes=np.bool_(True))
    found = codec.decode(kind, codec.encode(message))
    assert (found.whole, found.real, found.yes) == (7, 0.5, True)


def test_what_other_clients_publish_is_read():
    found = codec.decode(
        Everything,
        b"""{
          "day": "2026-05-01", "blob": "p1/a.png", "blobs": [{"base64": "aGk="}],
          "floats": [1, 2.5], "pixels": [[1, 2], [3, 4]], "unknown": {"a": [1]}
        }""",
    )
    assert found.day == datetime.date(2026, 5, 1)
    assert found.blob.path == "p1/a.png"
    assert found.blobs[0].inline == b"hi"
    assert found.floats.dtype == np.float32
    assert found.floats.tolist() == [1.0, 2.5]
    assert found.pixels.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content_type", "payload"),
    [
        (None, b'{"whole":1}'),
        ("application/json", b'{"whole":1}'),
        ("Application/JSON; charset=utf-8", b'{"whole":1}'),
        ("application/vnd.x+json", b'{"whole":1}'),
        ("application/msgpack", msgspec.msgpack.encode({"whole": 1})),
        ("application/x-msgpack", msgspec.msgpack.encode({"whole": 1})),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_content_type_says_how_to_read(kind, content_type, payload):
    assert codec.decode(kind, payload, content_type).whole == 1


@pytest.mark.parametrize("space", [b"", b" ", b"\n", b"\r\n", b"\t"])
def test_without_a_content_type_what_looks_like_json_is_json(space):
    assert codec.decode(Packed, space + b'{"whole":1}').whole == 1
    assert codec.decode(Packed, msgspec.msgpack.encode({"whole": 1})).whole == 1


def array(**changes):
    value = {"dtype": "<f4", "shape": [2], "base64": base64.b64encode(bytes(8)).decode()}
    return {**value, **changes}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", r"the payload is no json: Input data was truncated \(0 bytes"),
        (b"hello", r"no json: .* it starts with b'hello'"),
        (b"\xff\xfe", "no json"),
        (b"[]", "the payload is no Everything: Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        ({"whole": "1"}, r"Expected `int`, got `str` - at `\$.whole`"),
        ({"day": "2026-13-01"}, r"\$.day"),
        ({"color": "green"}, r"\$.color"),
        ({"points": [{"x": 1}]}, r"missing required field `y` - at `\$.points\[0\]`"),
        ({"blob": "../etc"}, r"blob path '../etc' is not allowed.* at `\$.blob`"),
        ({"blob": ""}, "not allowed"),
        ({"blob": {"base64": "A"}}, "a blob's base64 is broken"),
        ({"blob": {"base64": "é"}}, r"\$.blob"),
        ({"blob": {"base64": "", "x": 1}}, "a blob is a path"),
        ({"blob": 1}, "a blob is a path .*, not int"),
        ({"pixels": 1}, 'an array is {"dtype", "shape"'),
        ({"pixels": array(shape=[3])}, "cannot reshape"),
        ({"pixels": array(shape=[-1])}, "shape is a list of sizes"),
        ({"pixels": array(shape=[True])}, "shape is a list of sizes"),
        ({"pixels": array(shape=[2**70])}, r"\$.pixels"),
        ({"pixels": array(shape=[2**62, 2**62])}, r"\$.pixels"),
        ({"pixels": array(shape=[1] * 100)}, r"\$.pixels"),
        ({"pixels": array(base64="A")}, r"\$.pixels"),
        ({"pixels": array(base64=None)}, "needs its bytes"),
        ({"pixels": array(base64="AAAA")}, "multiple of element size"),
        ({"pixels": array(dtype="O")}, "array dtype 'O' is not that of a number"),
        ({"pixels": array(dtype="<U4")}, "not that of a number"),
        ({"pixels": array(dtype="f4,f4")}, "not that of a number"),
        ({"pixels": array(dtype="f4, (")}, "not that of a number"),
        ({"pixels": array(dtype="(2,)f4")}, "not that of a number"),
        ({"pixels": array(dtype="<f3")}, "dtype '<f3' is unknown"),
        ({"pixels": array(dtype=5)}, "an array is"),
        ({"pixels": [[1, 2], [3]]}, r"\$.pixels"),
        ({"pixels": ["a"]}, "regular and hold numbers"),
        ({"pixels": [{}]}, "regular and hold numbers"),
        ({"pixels": [None]}, "regular and hold numbers"),
        (
            {"floats": array(dtype="<f8", shape=[1])},
            "the array is float64, the field wants float32",
        ),
        ({"floats": ["1.5"]}, "regular and hold numbers"),
        ({"floats": [1e300]}, "numbers that float32 cannot"),
        ({"small": [1.5]}, "numbers that uint8 cannot: it is float64"),
        ({"small": [300]}, "numbers that uint8 cannot"),
        ({"small": [-1]}, "numbers that uint8 cannot"),
    ],
)
def test_bad_payloads_say_what_is_wrong_and_where(payload, text):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(DecodeError, match=text) as refused:
        codec.decode(Everything, data)
    assert isinstance(refused.value, Reject)  # no attempt is spent on it
    assert len(str(refused.value)) < 400


def test_an_unknown_content_type_says_which_are_known():
    with pytest.raises(DecodeError, match="'text/csv' is unknown: publish JSON"):
        codec.decode(Everything, b"{}", "text/csv")


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (b"[" * 200_000, None),
        (b'{"a":' * 200_000, None),
        (b'{"pixels":' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b"\x91" * 200_000, "application/msgpack"),
        (b"\x81\xa1a" * 100_000, "application/msgpack"),
        (b"\xdf\xff\xff\xff\xff", "application/msgpack"),
        (b"\xc6\xff\xff\xff\xff", "application/msgpack"),
    ],
)
def test_bombs_are_decode_errors(payload, content_type):
    with pytest.raises(DecodeError):
        codec.decode(Everything, payload, content_type)


def valid_payloads():
    message = {
        "text": "é\n",
        "whole": 5,
        "day": datetime.date(2026, 5, 1),
        "blob": Blob(b"hi"),
        "pixels": np.arange(4.0).reshape(2, 2),
        "floats": np.ones(2, np.float32),
        "points": [Point(1, 2)],
    }
    return {kind: codec.encode(kind(**message)) for kind in KINDS}


VALID = valid_payloads()


@settings(max_examples=300)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), min_size=1, max_size=6),
    st.sampled_from([None, "application/json", "application/msgpack"]),
)
def test_mutated_payloads_are_messages_or_decode_errors(kind, edits, content_type):
    data = bytearray(VALID[kind])
    for place, piece in edits:
        place %= len(data) + 1
        data[place : place + max(1, len(piece))] = piece
    try:
        found = codec.decode(kind, bytes(data), content_type)
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert type(found) is kind


@settings(max_examples=300)
@given(
    st.binary(max_size=100),
    st.sampled_from(KINDS),
    st.none() | st.sampled_from(["application/json", "application/msgpack"]) | st.text(max_size=9),
)
def test_random_bytes_are_messages_or_decode_errors(data, kind, content_type):
    try:
        assert type(codec.decode(kind, data, content_type)) is kind
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(Everything.__struct_fields__)), json_values))
def test_any_json_in_any_field_is_a_message_or_a_decode_error(value):
    try:
        assert type(codec.decode(Everything, json.dumps(value).encode())) is Everything
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


array_like = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.text(max_size=8)
        | st.sampled_from(["<f4", "float32", "|u1", "?", "f4,f4", "<f16"]),
        "shape": st.lists(st.integers(), max_size=4) | json_values,
        "base64": st.binary(max_size=16).map(lambda raw: base64.b64encode(raw).decode()) | text,
        "data": text,
    },
)


@settings(max_examples=150)
@given(st.sampled_from(["pixels", "floats", "small"]), array_like)
def test_any_array_form_is_an_array_or_a_decode_error(field, value):
    try:
        found = codec.decode(Everything, json.dumps({field: value}).encode())
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert getattr(found, field).dtype.kind in "biufc"


async def test_decoded_references_read_from_the_store():
    store = MemoryStore()
    await store.put("p1/a.png", b"png")
    found = Codec(store).decode(Everything, b'{"blob": "p1/a.png", "blobs": ["p1/a.png"]}')
    assert await found.blob.bytes() == b"png"
    assert await found.blobs[0].bytes() == b"png"
    with pytest.raises(NotConnected, match=r"blob 'p1/a\.png' belongs to no store"):
        await codec.decode(Everything, b'{"blob": "p1/a.png"}').blob.bytes()


async def test_a_saved_blob_travels_as_its_path():
    store = MemoryStore()
    small, large, named = Blob(b"s"), Blob(b"l" * 100), Blob(b"n", path="p1/n.png")
    for blob in (small, large, named):
        await blob.save(store, inline_limit=10)
        await blob.save(store, inline_limit=10)  # a second time changes nothing
    for kind in KINDS:
        found = codec.decode(kind, codec.encode(kind(blobs=[small, large, named])))
        assert [blob.path for blob in found.blobs] == [None, large.path, "p1/n.png"]
        assert found.blobs[0].inline == b"s"
        assert found.blobs[1].inline is None


def test_decoders_are_made_once():
    own = Codec()
    assert own.decoder(Everything, "json") is own.decoder(Everything, "json")
    assert own.decoder(Everything, "json") is not own.decoder(Everything, "msgpack")


_TYPES = [
    None,
    "",
    "application/json",
    "application/msgpack",
    "application/x-msgpack",
    "Application/JSON; charset=utf-8",
    "text/csv",
]


@given(st.data(), st.sampled_from(KINDS), st.sampled_from(_TYPES))
def test_a_reader_of_one_type_reads_as_decode_does(data, kind, content_type):
    payload = data.draw(
        st.sampled_from(
            [
                b'{"whole":1,"pixels":{"dtype":"<i4","shape":[1],"base64":"AQAAAA=="}}',
                msgspec.msgpack.encode({"whole": 1, "blob": "p1/a.png"}),
                b'{"whole":"one"}',
                b'{"whole":',
                b"[" * 100_000,
                b"",
            ]
        )
        | st.binary(max_size=20)
    )

    def told(read):
        try:
            return read()
        except DecodeError as error:
            return str(error)

    found = told(lambda: codec.reader(kind)(payload, content_type))
    expected = told(lambda: codec.decode(kind, payload, content_type))
    assert found == expected if isinstance(expected, str) else same(found, expected)


class Two(Message):
    number: int
    text: str


class One(Message):
    text: str


class Nothing(Message):
    pass


class Lies(str):
    """A text that says to be of another class."""

    __slots__ = ()
    __class__ = property(lambda _: int)


class Claims:
    """What is no text, and says to be one."""

    __class__ = property(lambda _: str)


class Shade(StrEnum):
    DARK = "dark"


@pytest.mark.parametrize(
    "message",
    [Two(1, "a"), One("a"), One(Shade.DARK), Nothing()],
    ids=repr,
)
def test_what_is_written_is_what_is_read(message):
    kind = type(message)
    for _ in range(2):  # the first makes the encoder
        payload, wire = codec.write(message)
        assert wire == "json"
        assert codec.decode(kind, payload) == message


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (Two("1", "a"), "number"),
        (Two(1, 2), "text"),
        (One(1), "text"),
        (One(None), "text"),
        (Two(True, "a"), "number"),
        (One(Lies("a")), "Lies"),
        (One(Claims()), "Claims"),
        (One("\ud800"), "text"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_what_no_reader_would_get_is_not_written(message, place):
    for _ in range(2):
        with pytest.raises(EncodeError, match=place):
            codec.write(message)
