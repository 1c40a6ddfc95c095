"""Generations: what an index is made of, built beside what is searched, and flipped to.

A generation is written once and never changed; which one is searched is a value by itself, changed
by compare-and-set. So nobody undoes what another did, and a process of an earlier version passes
over fields that it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from mqinfer.blob import Dropping
from mqinfer.bucket import change
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.index import Dtype, Index, Metric, Parameters
from mqinfer.search import places

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.bucket import Bucket


log = structlog.get_logger("mqinfer.search")


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What the shards of a model are made of.

    Attributes:
        number: of the generation, from 1.
        shards: parts of the keys.
        metric: as of `mqinfer.index.Parameters`, and so are those up to `expansion_search`.
        model: whose version the vectors must be of, as rows name it in `_models`; "" is any.
        version: of that model.
        run: a replay run whose vectors belong to it as well.
        made: seconds since the epoch.
    """

    number: int
    shards: int
    metric: Metric = "cosine"
    dtype: Dtype = "bf16"
    exact_below: int = 20_000
    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 64
    model: str = ""
    version: str = ""
    run: str = ""
    made: float = 0.0

    @property
    def parameters(self) -> Parameters:
        """How shards keep and search their vectors."""
        return Parameters(
            self.metric,
            self.dtype,
            self.exact_below,
            self.connectivity,
            self.expansion_add,
            self.expansion_search,
        )

    def admits(self, models: Mapping[str, str], run: str) -> bool:
        """Whether a vector belongs to it.

        Args:
            models: name -> version of those that answered on the way to it.
            run: the replay run that it is of, or "".
        """
        if run and run != self.run:
            return False
        return not self.model or models.get(self.model) == self.version


class Saved(msgspec.Struct):
    """The newest snapshot of a shard.

    Attributes:
        path: in the blob store.
        sequence: of the stream, up to which all is in it.
        created: when that stream was made.
        count: vectors.
        before: the path of the one before, which somebody may be reading.
        time: seconds since the epoch.
    """

    path: str
    sequence: int
    created: str
    count: int
    before: str = ""
    time: float = 0.0


class _Current(msgspec.Struct):
    generation: int


@dataclass(frozen=True, slots=True)
class Held:
    """The generations of a model.

    Attributes:
        current: which one is searched; 0: there is none.
        all: by number.
    """

    current: int
    all: Mapping[int, Generation]


def _read(key: str, value: tuple[bytes, int] | None) -> Generation | None:
    """A generation; None: there is none, or none that this version knows how to hold."""
    if value is None or not value[0]:
        return None
    try:
        return msgspec.json.decode(value[0], type=Generation)
    except msgspec.ValidationError as error:
        log.warning("a generation of another version is passed over", key=key, reason=str(error))
        return None


def model_of(index: Index, model: str | None) -> str:
    """The model that is meant; None is the only one.

    Raises:
        ConfigurationError: there is none such, or there are several.
    """
    if model is None and len(index.models) == 1:
        return next(iter(index.models))
    if model is None or model not in index.models:
        known = ", ".join(index.models)
        what = "say of which model" if model is None else f"there is no model {model!r}"
        raise ConfigurationError(f"index {index.name}: {what}: it has {known}")
    return model


def declared(index: Index, number: int, **more: Any) -> Generation:
    """A generation as the app declares it; with other fields than those."""
    own = index.parameters
    fields: dict[str, Any] = {name: getattr(own, name) for name in own.__dataclass_fields__}
    return Generation(**{"number": number, "shards": index.shards, **fields, **more})


class Generations:
    """Those of an app's indexes.

    Args:
        app: whose.
        bucket: that keeps them.
    """

    def __init__(self, app: App, bucket: Bucket):
        self._app = app
        self._bucket = bucket

    async def ensure(self, first: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Make the bucket, and the first generation of each model where there is none yet.

        Args:
            first: fields of it that are not as the app declares them, by index.
        """
        await self._bucket.ensure()
        for index in self._app.indexes.values():
            for model in index.models:
                key = places.current(index.name, model)
                if await self._bucket.load(key) is None:
                    # Whoever is first; all others find it.
                    fields = (first or {}).get(index.name, {})
                    made = declared(index, 1, **{"made": time.time(), **fields})
                    await self._write(index.name, model, made)
                    await self._bucket.save(key, msgspec.json.encode(_Current(1)), 0)

    async def _write(self, index: str, model: str, made: Generation) -> bool:
        key = places.generation(index, model, made.number)
        return bool(await self._bucket.save(key, msgspec.json.encode(made), 0))

    async def names(self) -> list[str]:
        """Every key of the bucket, also of what was deleted."""
        return await self._bucket.names()

    async def held(self, index: Index, model: str, names: list[str] | None = None) -> Held:
        """The generations of a model; `names` spares asking for them."""
        begin = places.generations(index.name, model)
        found: dict[int, Generation] = {}
        for name in await self._bucket.names() if names is None else names:
            if name.startswith(begin):
                one = _read(name, await self._bucket.load(name))
                if one is not None:
                    found[one.number] = one
        return Held(await self.current(index, model), dict(sorted(found.items())))

    async def current(self, index: Index, model: str) -> int:
        """The number of the generation that is searched; 0: there is none yet."""
        value = await self._bucket.load(places.current(index.name, model))
        if value is None or not value[0]:
            return 0
        return msgspec.json.decode(value[0], type=_Current).generation

    async def generation(self, index: Index, model: str, number: int) -> Generation | None:
        """One of them; None: there is none of this number."""
        key = places.generation(index.name, model, number)
        return _read(key, await self._bucket.load(key))

    async def build(
        self, index: Index, of: str, changed: Mapping[str, Any] | None = None
    ) -> Generation:
        """Begin another generation beside those there are; those who hold shards build it.

        Args:
            index: of which.
            of: which model's vectors.
            changed: fields of `Generation` that are not as the app declares them.
        """
        await self.ensure()
        while True:
            begin = places.generations(index.name, of)
            taken = [int(n.removeprefix(begin)) for n in await self.names() if n.startswith(begin)]
            made = declared(index, max(taken, default=0) + 1, made=time.time(), **(changed or {}))
            if await self._write(index.name, of, made):  # else another took the number
                return made

    async def flip(self, index: Index, model: str, number: int) -> int:
        """Let another generation be searched from now on; the one that was.

        Whether it is ready says `Rolls.ready`, which whoever flips asks first.

        Raises:
            ConfigurationError: there is none of this number.
        """
        if await self.generation(index, model, number) is None:
            raise ConfigurationError(f"index {index.name}: {model} has no generation {number}")
        before, _ = await change(
            self._bucket,
            places.current(index.name, model),
            lambda _: msgspec.json.encode(_Current(number)),
            what=f"the generation of {model} that is searched",
        )
        return 0 if before is None else msgspec.json.decode(before, type=_Current).generation

    async def drop(self, index: Index, model: str, number: int, store: BlobStore | None) -> None:
        """Forget a generation, and its snapshots.

        Raises:
            ConfigurationError: there is none of this number.
            ConflictError: it is the one that is searched.
        """
        found = await self.generation(index, model, number)
        if found is None:
            raise ConfigurationError(f"index {index.name}: {model} has no generation {number}")
        if await self.current(index, model) == number:
            raise ConflictError(
                f"generation {number} of {model} is the one that is searched: flip to another first"
            )
        await self._delete(places.generation(index.name, model, number))
        for shard in range(found.shards):
            saved = await self.saved(index.name, model, number, shard)
            await self._delete(places.snapshot(index.name, model, number, shard))
            if saved is not None and isinstance(store, Dropping):
                for path in filter(None, (saved.path, saved.before)):
                    await store.drop(path)

    async def _delete(self, key: str) -> None:
        await change(self._bucket, key, lambda _: None, what=key)

    # --- snapshots ------------------------------------------------------------------------------

    async def saved(self, index: str, model: str, number: int, shard: int) -> Saved | None:
        """The newest snapshot of a shard; None: there is none."""
        value = await self._bucket.load(places.snapshot(index, model, number, shard))
        return msgspec.json.decode(value[0], type=Saved) if value and value[0] else None

    async def save(self, index: str, model: str, number: int, shard: int, new: Saved) -> Saved:
        """Let a snapshot be the newest, unless there is one that has more; the one that is not.

        Its blob may be dropped: that of the one before in what is returned, where `new` took its
        place, else `new` itself.
        """
        told: list[Saved] = []

        def later(before: bytes | None) -> bytes | None:
            told.clear()
            old = None if before is None else msgspec.json.decode(before, type=Saved)
            if old is not None and (old.created, old.sequence) == (new.created, new.sequence):
                told.append(new)
                return before
            if old is not None and old.created == new.created and old.sequence > new.sequence:
                told.append(new)
                return before
            told.append(Saved(old.before if old else "", 0, "", 0))
            new.before = old.path if old else ""
            return msgspec.json.encode(new)

        key = places.snapshot(index, model, number, shard)
        await change(self._bucket, key, later, what=f"the snapshot {key}")
        return told[0]

    # --- weights --------------------------------------------------------------------------------

    async def weights(self, index: Index) -> dict[str, float]:
        """Of each model of an index; 1 where nobody said."""
        value = await self._bucket.load(places.weights(index.name))
        known = msgspec.json.decode(value[0], type=dict[str, float]) if value and value[0] else {}
        return {model: known.get(model, 1.0) for model in index.models}

    async def weigh(self, index: Index, weights: Mapping[str, float]) -> None:
        """Set weights of models, from now on; those that are not named keep theirs.

        Raises:
            ConfigurationError: there is no such model, or a weight is less than 0.
        """
        for model, weight in weights.items():
            model_of(index, model)
            if not 0 <= weight < float("inf"):
                raise ConfigurationError(f"the weight of {model} is 0 or more, not {weight!r}")

        def changed(before: bytes | None) -> bytes:
            known = {} if before is None else msgspec.json.decode(before, type=dict[str, float])
            return msgspec.json.encode({**known, **weights})

        await self._bucket.ensure()
        await change(self._bucket, places.weights(index.name), changed, what="weights")
