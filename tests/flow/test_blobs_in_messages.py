# ruff: noqa: RUF012 - msgspec copies empty defaults
"""Blobs anywhere in a message: what is published leads to bytes, or carries them."""

import dataclasses
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypeAlias, TypedDict, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mqinfer import App, Blob, Message
from mqinfer.adapters.blobs import MemoryStore
from mqinfer.blobfields import can_hold_blobs
from mqinfer.codec import REFERENCE, Codec
from mqinfer.errors import BlobError
from mqinfer.flow.saveblobs import save_blobs, to_save
from mqinfer.identity import CONTENT_TYPE
from mqinfer.settings import Settings
from mqinfer.testing import Harness, nats_only

LIMIT = 65_536  # the inline limit of the settings
LARGE = LIMIT + 1

T = TypeVar("T")
Picture: TypeAlias = Blob
Scan = NewType("Scan", Blob)


class Crop(msgspec.Struct, frozen=True):
    image: Blob
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Frame:
    image: Blob


class Shot(TypedDict):
    image: Blob


class Pair(NamedTuple):
    name: str
    image: Blob


class Box(msgspec.Struct, Generic[T]):
    content: T


class Photo(msgspec.Struct, tag=True):
    image: Blob


class Drawing(msgspec.Struct, tag=True):
    strokes: int


class Tree(msgspec.Struct):
    image: Blob
    branches: list["Tree"] = []


# How one blob is put into a field of each kind.
SHAPES: dict[str, tuple[Any, Any]] = {
    "field": (Blob, lambda blob: blob),
    "optional": (Blob | None, lambda blob: blob),
    "list": (list[Blob], lambda blob: [blob]),
    "sequence": (Sequence[Blob], lambda blob: (blob,)),
    "set": (set[Blob], lambda blob: {blob}),
    "tuple": (tuple[str, Blob], lambda blob: ("a", blob)),
    "many": (tuple[Blob, ...], lambda blob: (blob,)),
    "dict": (dict[str, Blob], lambda blob: {"a": blob}),
    "mapping": (Mapping[str, list[Blob]], lambda blob: {"a": [], "b": [blob]}),
    "struct": (Crop, Crop),
    "structs": (list[Crop], lambda blob: [Crop(Blob.at("seen/before.png")), Crop(blob)]),
    "dataclass": (Frame, Frame),
    "typed_dict": (Shot, lambda blob: {"image": blob}),
    "named_tuple": (Pair, lambda blob: Pair("a", blob)),
    "union": (list[Photo | Drawing], lambda blob: [Drawing(3), Photo(blob)]),
    "alias": (Picture, lambda blob: blob),
    "text": ("list[Picture]", lambda blob: [blob]),
    "new_type": (Scan, Scan),
    "annotated": (Annotated[Blob, msgspec.Meta(description="a photo")], lambda blob: blob),
    "generic": (Box[Blob], Box),
    "generics": (Box[dict[str, Box[Scan]]], lambda blob: Box({"a": Box(blob)})),
    "recursive": (Tree, lambda blob: Tree(Blob(b"small"), [Tree(blob)])),
    "deep": (list[dict[str, tuple[Crop | None, ...]]], lambda blob: [{"a": (None, Crop(blob))}]),
    "any": (Any, lambda blob: {"deep": [blob]}),
    "bare_list": (list, lambda blob: [[blob]]),
}
if sys.version_info >= (3, 12):
    scope = {"Blob": Blob, "Crop": Crop}
    exec("type Modern = dict[str, Crop]", scope)
    SHAPES["modern"] = (scope["Modern"], lambda blob: {"a": Crop(blob)})


def declared(name: str, hint: Any, wire: str) -> type[Message]:
    space = {"__annotations__": {"value": hint}, "__module__": __name__}
    kind: type[Message] = type(Message)(f"{name}_{wire}", (Message,), space, wire=wire)
    return kind


WIRES = ("json", "msgpack")
KINDS = {
    f"{name}_{wire}": declared(name, hint, wire)
    for name, (hint, _) in SHAPES.items()
    for wire in WIRES
}


class Ask(Message):
    shape: str
    size: int
    path: str | None = None


def content(ask: Ask) -> bytes:
    return f"{ask.shape}{ask.size}{ask.path}".encode().ljust(ask.size, b".")


def answer(ask: Ask) -> Message:
    _, put = SHAPES[ask.shape.rpartition("_")[0]]
    message: Message = KINDS[ask.shape](put(Blob(content(ask), path=ask.path)))
    return message


def found(value: Any) -> Iterator[Blob]:
    """Every blob in a value; a text is the path of one, where the type says nothing."""
    if isinstance(value, Blob):
        yield value
    elif isinstance(value, str) and "/" in value:
        yield Blob.at(value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from found(item)
    elif isinstance(value, dict):
        yield from found(list(value.values()))
    elif isinstance(value, msgspec.Struct):
        yield from found([getattr(value, name) for name in value.__struct_fields__])
    elif dataclasses.is_dataclass(value):
        yield from found([getattr(value, one.name) for one in dataclasses.fields(value)])


async def all_arrived(harness: Harness) -> None:
    """Every blob that was asked for can be read from a message, and none rides that must not."""
    names = {harness.app.subject(kind): kind for kind in KINDS.values()}
    contents = set()
    for raw in await harness.stored():
        assert len(raw.data) < 1000
        kind = names.get(raw.subject)
        if kind is not None:
            wire = raw.headers[CONTENT_TYPE]
            message = Codec(harness.client.blobs).decode(kind, raw.data, wire)
            for blob in found(message.value):
                if blob.path != "seen/before.png":
                    contents.add(await blob.bind(harness.client.blobs).bytes())
    assert [ask for ask in ASKS if content(ask) not in contents] == []


ASKS = [
    Ask(shape, size, path)
    for shape in KINDS
    for size, path in ((LARGE, None), (9, f"named/{shape}.bin"))
]


async def test_a_stage_stores_what_it_writes_in_any_shape(nats: Settings) -> None:
    app = App("shapes")

    async def make(ask: Ask) -> Message:
        return answer(ask)

    writes: Any = None
    for kind in KINDS.values():
        writes = kind if writes is None else writes | kind
    make.__annotations__["return"] = writes
    app.stage(make, attempts=1)

    async with Harness(app, nats) as harness:
        await harness.publish(*ASKS)
        await harness.drain()
        assert await harness.dead() == []
        await all_arrived(harness)


async def test_a_client_stores_what_it_publishes_in_any_shape(nats: Settings) -> None:
    app = App("published")

    def look(message: Message) -> None: ...

    for kind in KINDS.values():
        look.__annotations__.update(message=kind, **{"return": None})
        app.stage(look, name=f"look_{kind.__name__}")
    async with Harness(app, nats) as harness:
        await harness.publish(*map(answer, ASKS))
        await all_arrived(harness)


async def test_small_blobs_ride_in_any_shape() -> None:
    for shape, kind in KINDS.items():
        message = answer(Ask(shape, 40))
        await save_blobs([message], None, inline_limit=LIMIT, max_payload=1 << 20)  # no store
        payload = Codec().encode(message)
        if shape.rpartition("_")[0] not in ("any", "bare_list"):  # whose blobs come back as data
            back = [blob.inline for blob in found(Codec().decode(kind, payload).value)]
            assert content(Ask(shape, 40)) in back


# --- which types can hold one ---------------------------------------------------------------------


class Color(Enum):
    RED = "red"


class Leaf(msgspec.Struct):
    at: datetime
    leaves: list["Leaf"] = []


PLAIN: dict[str, Any] = {
    "text": str,
    "numbers": list[float] | None,
    "struct": Leaf,
    "array": NDArray[np.float32],
    "arrays": dict[str, np.ndarray],
    "enumeration": tuple[Color, ...],
    "generic": Box[int],
    "blobby_words": "Leaf | None",
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_types_that_can_hold_a_blob(kind: type[Message]) -> None:
    assert can_hold_blobs(kind)


@pytest.mark.parametrize("hint", PLAIN.values(), ids=PLAIN)
def test_types_that_cannot(hint: Any) -> None:
    assert not can_hold_blobs(declared("plain", hint, "json"))


def test_a_field_of_a_base_type_and_an_annotation_that_cannot_be_read() -> None:
    class Base(Message):
        image: Box[Blob]

    class Derived(Base):
        name: str

    assert can_hold_blobs(Derived)
    assert can_hold_blobs(declared("unreadable", "Nowhere", "json"))
    assert can_hold_blobs(declared("unknown", object, "json"))


async def test_a_blob_where_the_type_has_none_is_refused_not_lost(nats: Settings) -> None:
    app = App("untrue")

    class Sample(msgspec.Struct):
        label: str

    class PictureSample(Sample):
        image: Blob

    class Samples(Message):
        samples: list[Sample]

    @app.stage(attempts=1)
    async def take(ask: Ask) -> AsyncIterator[Samples]:
        yield Samples([Sample("before")])
        yield Samples([PictureSample("a", Blob(b"png", path=ask.path))])

    async with Harness(app, nats) as harness:
        await harness.publish(Ask("x", 1, "a/b.png"))
        await harness.drain()
        (letter,) = await harness.dead()
        assert "blob 'a/b.png' is not stored" in letter.reason
        assert await harness.messages(Samples) == []


# --- what is stored, and how often ----------------------------------------------------------------


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    async def put(self, path: str, data: bytes) -> None:
        self.paths.append(path)
        await super().put(path, data)


class Album(Message):
    cover: Blob
    crops: list[Crop] = []
    named: dict[str, Blob] = {}


class PackedAlbum(Album, wire="msgpack"):
    pass


async def test_a_blob_that_stands_in_many_places_is_stored_once() -> None:
    store, photo = Counting(), Blob(b"p" * LARGE)
    named = Blob(b"n", path="n.png")
    albums = [Album(photo, [Crop(photo), Crop(named)], {"a": named}), PackedAlbum(photo)]
    await save_blobs(albums, store, inline_limit=LIMIT, max_payload=1 << 20)
    assert sorted(store.paths) == ["n.png", photo.path]
    assert all(b"sha256/" in Codec().encode(album) for album in albums)


async def test_a_blob_that_cannot_be_stored_stays_as_it_was() -> None:
    class Full(MemoryStore):
        async def put(self, path: str, data: bytes) -> None:
            raise BlobError("the disk is full")

    photo = Blob(b"p" * LARGE)
    for album in (Album(photo), Album(Blob.at("a.png"), [Crop(photo)])):
        with pytest.raises(BlobError, match="the disk is full"):
            await save_blobs([album], Full(), inline_limit=LIMIT, max_payload=1 << 20)
    assert photo.path is None


async def test_many_small_blobs_that_do_not_fit_together_move_to_the_store(
    tmp_path: Path,
) -> None:
    app = App("many")
    sizes = [1000 * number for number in range(1, 51)]  # 1.3 MB, each below the limit

    @app.stage(attempts=1)
    async def cut(ask: Ask) -> Album | PackedAlbum:
        kind = Album if ask.shape == "json" else PackedAlbum
        crops = [Crop(Blob(bytes([size // 1000]) * size)) for size in sizes]
        return kind(Blob(b"cover"), crops)

    async with (
        nats_only(tmp_path, nats_max_payload=512 * 1024) as settings,
        Harness(app, settings) as harness,
    ):
        await harness.publish(Ask("json", 0), Ask("msgpack", 0))
        await harness.publish(Album(Blob(b"own"), [Crop(Blob(b"x" * 60_000)) for _ in range(20)]))
        await harness.drain()
        assert await harness.dead() == []
        albums = [*await harness.messages(Album), *await harness.messages(PackedAlbum)]
        assert len(albums) == 3
        for album in albums:
            stored = [crop.image.path is not None for crop in album.crops]
            assert 0 < sum(stored) < len(stored)
            got = [await crop.image.bytes() for crop in album.crops]
            if len(got) == len(sizes):
                assert got == [bytes([size // 1000]) * size for size in sizes]
                assert stored == sorted(stored)  # the largest moved, the small ones ride


@example([0, 0, 0, 0, 0, 39, 400, 400, 400, 400, 400, 72], PackedAlbum, 2367)
@example([244, 245], Album, 509)
@given(
    st.lists(st.integers(0, 400), max_size=40),
    st.sampled_from([Album, PackedAlbum]),
    st.integers(0, 4000),
)
def test_what_moves_makes_the_message_fit(sizes: list[int], kind: Any, room: int) -> None:
    blobs = [Blob(bytes([number]) * size) for number, size in enumerate(sizes)]
    message = kind(Blob(b""), [Crop(blob) for blob in blobs])
    before = len(Codec().encode(message))
    chosen = to_save(message, 400, room)
    for blob in chosen:
        blob._path, blob._data = "x" * (REFERENCE - 6), None
    after = len(Codec().encode(message))
    assert len(chosen) == len(set(map(id, chosen)))
    if before + 16 <= room:
        assert not chosen
    if after > room:  # moving what is left would make it no smaller
        assert all(len(one.inline) <= REFERENCE for one in blobs if one.path is None)
    if chosen:  # the largest, as they are written: base64 has four letters for up to three bytes
        unit = 3 if kind is Album else 1
        least = min(-(-sizes[number] // unit) for number, one in enumerate(blobs) if one in chosen)
        assert all(-(-len(one.inline) // unit) <= least for one in blobs if one.path is None)
