"""Index: an inert declaration of what can be searched by nearness; see `mqinfer.search`.

Vectors are messages, a type for each model, and as a rule rows of a table. The newest message of a
key is its vector; one whose vector is empty takes the key out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from mqinfer.errors import NotConnected, WiringError
from mqinfer.message import Message
from mqinfer.opened import Opened

if TYPE_CHECKING:
    from mqinfer.hits import Hits

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
MAX_SHARDS: Final = 256
METRICS: Final = ("cosine", "ip", "l2")
DTYPES: Final = ("f32", "bf16", "f16", "i8")
Metric = Literal["cosine", "ip", "l2"]
Dtype = Literal["f32", "bf16", "f16", "i8"]


class Searches(Protocol):
    """What searches; `mqinfer.search.searching` does."""

    async def search(
        self,
        index: Index,
        vector: Any,
        k: int,
        *,
        where: Mapping[str, Any] | None,
        weights: Mapping[str, float] | None,
        generations: Mapping[str, int] | None,
        timeout: float,
    ) -> Hits:
        """The nearest keys; see `Client.search`."""


# Of the clients and workers that are open.
searching: Opened[Searches] = Opened()


@dataclass(frozen=True, slots=True)
class Parameters:
    """How the shards of a generation keep their vectors, and how they search them.

    Attributes:
        metric: what is near: "cosine", "ip" (inner product) or "l2" (Euclidean).
        dtype: of the vectors in a graph; those outside of one are f32.
        exact_below: vectors of a shard up to which there is no graph, and so no error.
        connectivity: edges of a node of the graph (HNSW's M).
        expansion_add: candidates that are looked at for each vector that is added to it.
        expansion_search: candidates that are looked at in a search.
    """

    metric: Metric = "cosine"
    dtype: Dtype = "bf16"
    exact_below: int = 20_000
    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 64


@dataclass(frozen=True, slots=True)
class Index:
    """What can be searched by nearness.

    Attributes:
        name: of the index.
        models: name of each model -> the type of its vectors.
        key: the field that says whose vector it is.
        vector: the field of the vector.
        filters: the fields that a search may filter by.
        shards: of a generation that is built from now on.
        parameters: of the same.
        app: that it belongs to.
    """

    name: str
    models: Mapping[str, type[Message]]
    key: str
    vector: str
    filters: tuple[str, ...]
    shards: int
    parameters: Parameters
    app: object = field(repr=False, compare=False, default=None)

    async def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        generations: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> Hits:
        """The nearest keys, by the client or worker that is open; see `Client.search`.

        Raises:
            NotConnected: none is, or several are.
        """
        found = searching.of(self.app)
        if len(found) != 1:
            raise NotConnected(
                f"index {self.name}: {len(found)} clients are open: search it inside a worker or "
                "inside `async with mqinfer.connect(app)`; `client.search(...)` says by which one"
            )
        return await found[0].run(
            lambda own: own.search(
                self,
                vector,
                k,
                where=where,
                weights=weights,
                generations=generations,
                timeout=timeout,
            )
        )


class Indexes:
    """The part of `App` that declares indexes.

    Attributes:
        indexes: by name.
    """

    indexes: dict[str, Index]

    def index(
        self,
        name: str,
        *,
        of: type[Message] | Mapping[str, type[Message]],
        key: str,
        vector: str = "vector",
        filters: Sequence[str] = (),
        shards: int = 1,
        metric: Metric = "cosine",
        dtype: Dtype = "bf16",
        exact_below: int = 20_000,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 64,
    ) -> Index:
        """Declare what can be searched by nearness; `mqinfer index APP serve` holds it in memory.

            pictures = app.index("pictures", of=PictureVector, key="picture_id", shards=2)

        Args:
            name: letters, digits, - and _.
            of: the type of the vectors, a `Row` as a rule (of another type only the stream and the
                snapshots keep them); or model -> type, where there are several.
            key: the field that says whose vector it is, text or a whole number.
            vector: the field of the vector, a list or an array of floats; an empty one takes the
                key out.
            filters: fields that a search may filter by.
            shards: parts of the keys, each held by a process of its own if there are as many. This
                and what follows is of generations that are built from now on.
            metric: "cosine", "ip" (inner product) or "l2" (Euclidean).
            dtype: of the vectors in a graph: "f32", "bf16", "f16" or "i8".
            exact_below: vectors of a shard up to which each search looks at all of them.
            connectivity: edges of a node of the graph.
            expansion_add: candidates for each vector that is added.
            expansion_search: candidates in a search: more find more, in more time.

        Raises:
            WiringError: one of these cannot be used.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise WiringError(
                f"index {name!r}: a name is letters, digits, - and _, at most 40 of them"
            )
        if name in self.indexes:
            raise WiringError(f"index {name}: declared twice; give one another name")
        models = _models(name, of)
        for kind in models.values():
            for one in (key, vector, *filters):
                if one not in kind.__struct_fields__:
                    raise WiringError(
                        f"index {name}: {kind.__name__} has no field {one!r}; it has "
                        f"{', '.join(kind.__struct_fields__)}"
                    )
        if type(shards) is not int or not 1 <= shards <= MAX_SHARDS:
            raise WiringError(f"index {name}: shards={shards!r} must be 1 to {MAX_SHARDS}")
        for what, given, known in (("metric", metric, METRICS), ("dtype", dtype, DTYPES)):
            if given not in known:
                raise WiringError(f"index {name}: {what}={given!r} must be {' or '.join(known)}")
        chosen = Parameters(
            metric, dtype, exact_below, connectivity, expansion_add, expansion_search
        )
        for what in ("exact_below", "connectivity", "expansion_add", "expansion_search"):
            if type(value := getattr(chosen, what)) is not int or value < 1:
                raise WiringError(f"index {name}: {what}={value!r} must be 1 at least")
        made = Index(name, models, key, vector, tuple(filters), shards, chosen, self)
        self.indexes[name] = made
        return made


def _models(name: str, of: object) -> dict[str, type[Message]]:
    given = dict(of) if isinstance(of, Mapping) else {"": of}
    if not given:
        raise WiringError(f"index {name}: of= names no type")
    found: dict[str, type[Message]] = {}
    for model, kind in given.items():
        info = getattr(kind, "__mqinfer__", None)
        if not (isinstance(kind, type) and issubclass(kind, Message)) or info is None:
            told = getattr(kind, "__name__", None) or repr(kind)
            raise WiringError(
                f"index {name}: of= is {told}, which is no message type: "
                'of=Vector, or of={"model": Vector, ...}'
            )
        own = model or info.subject.replace(".", "-")
        if not _NAME.fullmatch(own):
            raise WiringError(f"index {name}: a model's name is letters, digits, - and _: {own!r}")
        if kind in found.values():
            raise WiringError(f"index {name}: {kind.__name__} is of two models; one type each")
        found[own] = kind
    return found
