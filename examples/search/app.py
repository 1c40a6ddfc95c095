"""Image search: every model says where a picture lies, and an index finds what is near.

    upload -> [take] ---+-> lite0_entry --> [embed_lite0] --+-> vector_lite0 --> index "pictures"
                        |                                   +-> fingerprint  --> near-duplicates
    removal -> [remove] +-> lite2_entry --> [embed_lite2] ----> vector_lite2 --> index "pictures"

    query  --> [find] --> found                                                    an answer

A picture's id is the SHA-256 of its file. Entries are ordered by it, and each model's stage
remembers what it has of a picture: so whatever is added, removed and embedded anew at once ends as
it was asked last. What runs says `deploy.toml`:

    mqinfer deploy apply examples.search.app:app examples/search/deploy.toml --target local
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from examples.search.desk import Desk, desk
from mqinfer import App, Blob, Column, Context, Message, Model, Reject, Row, State
from mqinfer.dedup.duplicates import Fingerprint, fingerprint, near_duplicates
from mqinfer.errors import SearchError
from mqinfer.image import check_image, decode, decode_off_loop, encode_jpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mqinfer.hits import Hit, Hits
    from mqinfer.model import Answer

SIDE = 160  # pixels of what the models look at, a square
_THUMB = 192  # pixels, at most, of what is shown of a picture
_MORE = 3  # times as many hits as are wanted: some are folded

_ENDING = re.compile(r"\.(png|jpe?g|webp|gif|bmp)$", re.IGNORECASE)

Text = Annotated[str, Meta(max_length=200)]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

app = App("album")
models = {name: app.model(name, alias="live") for name in ("lite0", "lite2")}
duplicates = near_duplicates(app, bits=8, cosine=0.05)


# --- what goes in -------------------------------------------------------------------------------


class Upload(Message):
    """A picture; its name may begin with that of a collection, `noto/smile.png`."""

    picture: Blob
    name: Text


class Removal(Message):
    """A picture is to be found no more."""

    picture_id: Id


class Added(Message):
    """A picture was taken, and is found as soon as the models have said where it lies."""

    picture_id: str
    name: str


class Removed(Message):
    """A picture is found no more, by any model."""

    picture_id: str


class Entry(Message, key="picture_id", ordered=True):
    """What a model's stage is told of a picture.

    Attributes:
        picture_id: SHA-256 of its file.
        what: it is added, removed, or embedded anew (which a removed one is not).
        name: of the picture, without that of its collection.
        collection: "" is none.
        version: of the model; "" is the live one.
        first: whether near-duplicates are to hear of it.
    """

    picture_id: str
    what: Literal["add", "remove", "again"]
    name: str = ""
    collection: str = ""
    version: str = ""
    first: bool = False


class Lite0Entry(Entry, key="picture_id", ordered=True):
    """For lite0."""


class Lite2Entry(Entry, key="picture_id", ordered=True):
    """For lite2."""


class Lite0Vector(Row, table="vector_lite0", order_by="picture_id", wire="msgpack"):
    """Where a picture lies, as lite0 says; an empty vector takes it out."""

    picture_id: str
    vector: Annotated[list[float], Column("Array(Float32)")]
    name: str
    collection: str


class Lite2Vector(Row, table="vector_lite2", order_by="picture_id", wire="msgpack"):
    """As lite2 says."""

    picture_id: str
    vector: Annotated[list[float], Column("Array(Float32)")]
    name: str
    collection: str


# Beyond 500 vectors a shard has a graph: early, so that the demo has some.
pictures = app.index(
    "pictures",
    of={"lite0": Lite0Vector, "lite2": Lite2Vector},
    key="picture_id",
    filters=["name", "collection"],
    shards=2,
    exact_below=500,
)
ENTRIES: dict[str, type[Entry]] = {"lite0": Lite0Entry, "lite2": Lite2Entry}


class Kept(State):
    """What a model's stage knows of a picture.

    Attributes:
        there: whether it is to be found.
        versions: of the model, by which it was embedded.
        name: as of `Entry`.
        collection: as of `Entry`.
    """

    there: bool = False
    versions: list[str] = []
    name: str = ""
    collection: str = ""


@app.stage(lifespan=lambda: desk(app, pictures))
async def take(upload: Upload, ctx: Context) -> list[Lite0Entry | Lite2Entry | Added]:
    """Keep a picture, and have it embedded by each version that is searched, or soon will be."""
    own: Desk = ctx.state
    data = await upload.picture.bytes()
    identity = hashlib.sha256(data).hexdigest()
    thumb = await asyncio.to_thread(_thumb, data, upload.name)
    assert ctx.blobs is not None
    await ctx.blobs.put(f"pictures/{identity}", data)
    await ctx.blobs.put(f"thumbs/{identity}.jpg", thumb)
    collection, _, name = _ENDING.sub("", upload.name).rpartition("/")
    out: list[Lite0Entry | Lite2Entry | Added] = [Added(identity, upload.name)]
    for version, first in await own.versions("lite0"):
        out.append(Lite0Entry(identity, "add", name, collection, version, first))
    for version, _ in await own.versions("lite2"):
        out.append(Lite2Entry(identity, "add", name, collection, version))
    return out


@app.stage
async def remove(removal: Removal) -> list[Lite0Entry | Lite2Entry | Removed]:
    """Let a picture be found no more; its file stays."""
    identity = removal.picture_id
    return [
        Lite0Entry(identity, "remove"), Lite2Entry(identity, "remove"), Removed(identity)
    ]  # fmt: skip


@app.stage(models=[models["lite0"]])
async def embed_lite0(
    entry: Lite0Entry, kept: Kept, ctx: Context
) -> list[Lite0Vector | Fingerprint]:
    """Say where a picture lies, and what it is known by."""
    data, vector = await _embedded("lite0", entry, kept, ctx)
    if vector is None:
        return []
    out: list[Lite0Vector | Fingerprint] = [
        Lite0Vector(entry.picture_id, vector, kept.name, kept.collection)
    ]
    if vector and entry.first:
        name = f"{kept.collection}/{kept.name}" if kept.collection else kept.name
        order = ctx.sequence
        out.append(
            await asyncio.to_thread(fingerprint, data, picture=name, order=order, vector=vector)
        )
    return out


@app.stage(models=[models["lite2"]])
async def embed_lite2(entry: Lite2Entry, kept: Kept, ctx: Context) -> Lite2Vector | None:
    """Say where a picture lies."""
    _, vector = await _embedded("lite2", entry, kept, ctx)
    if vector is None:
        return None
    return Lite2Vector(entry.picture_id, vector, kept.name, kept.collection)


async def _embedded(
    model: str, entry: Entry, kept: Kept, ctx: Context
) -> tuple[bytes, list[float] | None]:
    """A picture, and its vector: an empty one takes it out, None is nothing new."""
    if entry.what == "remove":
        kept.there, kept.versions = False, []
        return b"", []
    if entry.what == "add":
        if not kept.there:
            kept.there, kept.name, kept.collection = True, entry.name, entry.collection
    elif not kept.there:
        return b"", None
    if entry.version in kept.versions:
        return b"", None
    kept.versions = [*kept.versions, entry.version]
    assert ctx.blobs is not None
    data = await ctx.blobs.get(f"pictures/{entry.picture_id}")
    pixels = await decode_off_loop(data, name=kept.name, size=(SIDE, SIDE))
    return data, (await _ask(model, entry.version, pixels))["embedding"].tolist()


async def _ask(model: str, version: str, pixels: NDArray[np.uint8]) -> Answer:
    """What a version of a model says of a picture: `embedding`, `[1280]`; "" is the live one."""
    return await (Model(model, version=version) if version else models[model])(image=pixels)


def _thumb(data: bytes, name: str) -> bytes:
    height, width = check_image(data, name=name)
    share = min(1.0, _THUMB / max(height, width))
    size = max(1, round(share * height)), max(1, round(share * width))
    return encode_jpeg(decode(data, name=name, size=size), quality=85)


# --- what is asked ------------------------------------------------------------------------------


class Query(Message):
    """What is like this picture?

    Attributes:
        picture: that is held against those there are.
        k: how many are wanted.
        weights: of the models; None is those of the index, which change at run time.
        collection: to look in that one alone; "" is all.
    """

    picture: Blob
    k: Annotated[int, Meta(ge=1, le=24)] = 8
    weights: dict[str, float] | None = None
    collection: Text = ""


class Near(Struct):
    """A picture that was found.

    Attributes:
        picture_id: of it.
        name: and its collection's.
        collection: "" is none.
        score: the mean of what the models say, by their weights.
        scores: what each says: the cosine.
        folded: near-duplicates of it that were found as well, and are not shown.
    """

    picture_id: str
    name: str
    collection: str
    score: float
    scores: dict[str, float]
    folded: int


class Found(Message):
    """What is like a picture.

    Attributes:
        merged: by all models, and their weights.
        by_model: by each alone.
        weights: that counted.
        versions: of the models, which embedded the picture as they did those it is held against.
        shards: that answered, of how many.
        missing: those that did not: there may be nearer ones.
        thumbs: JPEG, Base64, by id.
    """

    merged: list[Near]
    by_model: dict[str, list[Near]]
    weights: dict[str, float]
    versions: dict[str, str]
    shards: str
    missing: list[str]
    thumbs: dict[str, bytes]


@app.stage(models=list(models.values()), lifespan=lambda: desk(app, pictures))
async def find(query: Query, ctx: Context) -> Found:
    """Embed a picture by the versions that are searched, and ask by each model and by all."""
    own: Desk = ctx.state
    pixels = await query.picture.pixels(size=(SIDE, SIDE))
    searched = {name: await own.generation(name) for name in models}
    answers = await asyncio.gather(
        *(_ask(name, version, pixels) for name, (_, version) in searched.items())
    )
    vectors = {one.model: one["embedding"] for one in answers}
    pinned = {name: number for name, (number, _) in searched.items()}
    weights = await own.weights() if query.weights is None else query.weights
    where = {"collection": query.collection} if query.collection else None
    wanted = _MORE * query.k

    async def asked(vectors: dict[str, NDArray[np.float32]], weights: dict[str, float]) -> Hits:
        return await own.client.search(
            pictures, vectors, wanted, where=where, weights=weights, generations=pinned
        )

    try:
        merged, *alone = await asyncio.gather(
            asked(vectors, weights),
            *(asked({name: one}, {name: 1.0}) for name, one in vectors.items()),
        )
    except SearchError as error:  # weights that are none
        raise Reject(str(error)) from None
    originals = await own.originals({str(hit.key) for hits in (merged, *alone) for hit in hits})
    shown = folded(merged, originals, query.k)
    by_model = {
        name: folded(hits, originals, query.k) for name, hits in zip(vectors, alone, strict=True)
    }
    ids = {one.picture_id for near in (shown, *by_model.values()) for one in near}
    return Found(
        shown,
        by_model,
        weights,
        {one.model: one.version for one in answers},
        merged.shards,
        list(merged.missing),
        dict(zip(ids, await asyncio.gather(*(_shown(one, ctx) for one in ids)), strict=True)),
    )


async def _shown(identity: str, ctx: Context) -> bytes:
    assert ctx.blobs is not None
    return await ctx.blobs.get(f"thumbs/{identity}.jpg")


def folded(hits: Hits | list[Hit], originals: dict[str, str], k: int) -> list[Near]:
    """Hits, of each group of near-duplicates the nearest alone.

    Args:
        hits: nearest first.
        originals: by id, whose duplicate each is; its own id where it is none.
        k: how many are wanted.
    """
    found: dict[str, Near] = {}
    for hit in hits:
        key, values = str(hit.key), hit.values
        group = originals.get(key, key)
        if group in found:
            found[group].folded += 1
        else:
            name, collection = str(values["name"]), str(values["collection"])
            found[group] = Near(key, name, collection, hit.score, dict(hit.scores), 0)
    return list(found.values())[:k]


app.endpoint("add", Upload, answers=Added, deadline="5m", keep="1h")
app.endpoint("remove", Removal, answers=Removed, deadline="1m", keep="1h")
app.endpoint("similar", Query, answers=Found, deadline="1m", keep="10m")
