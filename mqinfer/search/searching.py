"""Searching: one replica of each shard is asked, and what they find is merged.

All shards of a model are asked about one generation, whose number stands in the question's subject:
so no answer mixes two. A generation that is gone is noticed by nobody being there, and the search
begins anew with the one that took its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mqinfer.errors import ConfigurationError, PayloadTooLarge, SearchError, Unavailable
from mqinfer.hits import Hit, Hits
from mqinfer.search import columns, places, protocol, vectors
from mqinfer.search.generations import Generation, Generations
from mqinfer.search.protocol import Answered, Asked

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.hits import Key, Plain
    from mqinfer.index import Index
    from mqinfer.ports import Core
    from mqinfer.search.columns import Where

MAX_K: Final = 1000
_FRESH = 2.0  # seconds for which it is believed which generation is searched
_FIRST = 0.5  # seconds until another replica is asked: the one that was may have died
_KEYS = 1000  # that are asked for in one message
_MORE = 4  # times k candidates of each of several models


@dataclass(slots=True)
class _Of:
    """What one model found."""

    generation: Generation
    query: vectors.Floats
    scores: dict[Key, float] = field(default_factory=dict)
    values: dict[Key, Sequence[Plain]] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)


class Searching:
    """Searches the indexes of an app.

    Args:
        app: whose.
        core: NATS without a stream.
        generations: of its indexes.
    """

    def __init__(self, app: App, core: Core, generations: Generations):
        self._app = app
        self._core = core
        self._generations = generations
        self._known: dict[tuple[str, str], tuple[float, Generation]] = {}
        self._weights: dict[str, tuple[float, dict[str, float]]] = {}

    async def current(self, index: Index, model: str, *, anew: bool = False) -> Generation:
        """The generation of a model that is searched now; what is known of it is 2 s old at most.

        Raises:
            Unavailable: there is none yet, or NATS does not answer.
        """
        now, key = time.monotonic(), (index.name, model)
        known = self._known.get(key)
        if known is not None and not anew and now - known[0] < _FRESH:
            return known[1]
        number = await self._generations.current(index, model)
        found = await self._generations.generation(index, model, number) if number else None
        if found is None:
            raise Unavailable(
                f"index {index.name} has no generation of {model} yet: mqinfer index APP serve"
            )
        self._known[key] = now, found
        return found

    async def generations(self, index: Index, model: str) -> Mapping[int, Generation]:
        """All that there are of a model, as of now."""
        return (await self._generations.held(index, model)).all

    async def weights(self, index: Index) -> dict[str, float]:
        """Of the models of an index, as they were 2 s ago at most."""
        now, known = time.monotonic(), self._weights.get(index.name)
        if known is None or now - known[0] >= _FRESH:
            known = self._weights[index.name] = now, await self._generations.weights(index)
        return known[1]

    async def search(
        self,
        index: Index,
        vector: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        generations: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> Hits:
        """The nearest keys; see `Client.search`."""
        if type(k) is not int or not 1 <= k <= MAX_K:
            raise SearchError(f"k={k!r} must be 1 to {MAX_K}")
        given = _by_model(index, vector)
        conditions = columns.read(where, index)
        own = await self._weighed(index, given, weights)
        end = time.monotonic() + timeout
        wanted = k if len(given) == 1 else min(MAX_K, _MORE * k)
        found = dict(
            zip(
                given,
                await asyncio.gather(
                    *(
                        self._of_model(
                            index, model, one, wanted, conditions, generations or {}, end
                        )
                        for model, one in given.items()
                    )
                ),
                strict=True,
            )
        )
        asked = sum(one.generation.shards for one in found.values())
        if sum(len(one.missing) for one in found.values()) == asked:
            raise Unavailable(
                f"no process holds shards of index {index.name}: mqinfer index APP serve"
            )
        if len(found) > 1:
            await self._complete(index, found, end)
        missing = [f"{m}/{shard}" for m, one in found.items() for shard in sorted(one.missing)]
        return Hits(
            merged(index, {m: (one.scores, one.values) for m, one in found.items()}, own, k),
            asked,
            missing,
            {model: one.generation.number for model, one in found.items()},
        )

    async def _weighed(
        self, index: Index, given: Mapping[str, Any], weights: Mapping[str, float] | None
    ) -> dict[str, float]:
        if len(given) == 1 and weights is None:
            return dict.fromkeys(given, 1.0)
        known = await self.weights(index) if weights is None else weights
        if unknown := sorted(set(known) - set(index.models)):
            raise SearchError(f"index {index.name} has no model {', '.join(unknown)}")
        own = {model: float(known.get(model, 0.0)) for model in given}
        if any(not 0 <= one < math.inf for one in own.values()) or not any(own.values()):
            raise SearchError(f"weights are 0 or more, and not all 0: {dict(known)}")
        return own

    # --- one model ------------------------------------------------------------------------------

    async def _of_model(
        self,
        index: Index,
        model: str,
        vector: Any,
        k: int,
        where: Where,
        generations: Mapping[str, int],
        end: float,
    ) -> _Of:
        pinned = generations.get(model)
        if pinned is not None:
            generation = await self._generations.generation(index, model, pinned)
            if generation is None:
                raise SearchError(f"index {index.name}: {model} has no generation {pinned}")
            return await self._asked(index, model, generation, vector, k, where, end)
        generation = await self.current(index, model)
        found = await self._asked(index, model, generation, vector, k, where, end)
        if found.missing:
            newer = await self.current(index, model, anew=True)
            if newer.number != generation.number:  # it was flipped, and the old one dropped
                return await self._asked(index, model, newer, vector, k, where, end)
        return found

    async def _asked(
        self,
        index: Index,
        model: str,
        generation: Generation,
        vector: Any,
        k: int,
        where: Where,
        end: float,
    ) -> _Of:
        query = vectors.read(vector, generation.metric, None)
        payload = protocol.encode(Asked(query.astype("<f4").tobytes(), k, where))
        found = _Of(generation, query)
        subjects = [
            places.asked(self._app, index.name, model, generation.number, shard)
            for shard in range(generation.shards)
        ]
        answers = await asyncio.gather(*(self._ask(one, payload, end) for one in subjects))
        for shard, answer in enumerate(answers):
            if answer is None:
                found.missing.add(shard)
                continue
            found.scores.update(zip(answer.keys, answer.scores, strict=True))
            found.values.update(zip(answer.keys, answer.values, strict=True))
        return found

    async def _ask(self, subject: str, payload: bytes, end: float) -> Answered | None:
        """What one of a shard's replicas answers; None: none does.

        Raises:
            SearchError: the question is at fault.
        """
        pause = _FIRST
        while (left := end - time.monotonic()) > 0:
            try:
                data = await self._core.ask(subject, payload, min(pause, left))
            except PayloadTooLarge as error:
                raise SearchError(str(error)) from None
            except Unavailable:
                pause *= 2
                continue
            if data is None:
                return None
            answer = protocol.read_answered(data)
            if answer.error:
                raise SearchError(answer.error)
            return answer
        return None

    async def _complete(self, index: Index, found: Mapping[str, _Of], end: float) -> None:
        """Let each model say how near the keys are that others found."""
        every = set().union(*(one.scores for one in found.values()))
        await asyncio.gather(
            *(
                self._scores(index, model, one, sorted(every - set(one.scores), key=str), end)
                for model, one in found.items()
            )
        )

    async def _scores(
        self, index: Index, model: str, found: _Of, keys: Sequence[Key], end: float
    ) -> None:
        by_shard: dict[int, list[Key]] = {}
        for key in keys:
            by_shard.setdefault(places.shard_of(key, found.generation.shards), []).append(key)
        vector = found.query.astype("<f4").tobytes()

        async def ask(shard: int, own: list[Key]) -> None:
            where = places.asked(self._app, index.name, model, found.generation.number, shard)
            answer = await self._ask(where, protocol.encode(Asked(vector, keys=own)), end)
            if answer is None:
                found.missing.add(shard)
            else:
                found.scores.update(zip(answer.keys, answer.scores, strict=True))

        await asyncio.gather(*(ask(shard, own) for shard, own in by_shard.items()))

    async def lacking(
        self, index: Index, model: str, generation: Generation, keys: Sequence[Key], timeout: float
    ) -> tuple[list[Key], set[int]]:
        """Those of the keys that a generation has no vector of, and the shards that are silent."""
        by_shard: dict[int, list[Key]] = {}
        for key in keys:
            by_shard.setdefault(places.shard_of(key, generation.shards), []).append(key)
        lacking: list[Key] = []
        missing: set[int] = set()
        for shard, own in by_shard.items():
            where = places.asked(self._app, index.name, model, generation.number, shard)
            for at in range(0, len(own), _KEYS):
                payload = protocol.encode(Asked(keys=own[at : at + _KEYS]))
                answer = await self._ask(where, payload, time.monotonic() + timeout)
                if answer is None:
                    missing.add(shard)
                    break
                lacking += answer.keys
        return lacking, missing


def merged(
    index: Index,
    found: Mapping[str, tuple[Mapping[Key, float], Mapping[Key, Sequence[Plain]]]],
    weights: Mapping[str, float],
    k: int,
) -> list[Hit]:
    """The best of what models found, by the mean of the scores; equal ones by their keys."""
    whole = sum(weights.values())
    values: dict[Key, Sequence[Plain]] = {}
    for _, own in found.values():
        values |= own
    hits = []
    for key, told in values.items():
        scores = {model: known[key] for model, (known, _) in found.items() if key in known}
        mean = sum(weights[model] * score for model, score in scores.items()) / whole
        hits.append(Hit(key, mean, scores, dict(zip(index.filters, told, strict=True))))
    return sorted(hits, key=lambda hit: (-hit.score, str(hit.key)))[:k]


def chosen(weights: Mapping[str, float], identity: str) -> str:
    """The model that an id falls to: each has its share of all ids, and an id always the same one.

    Args:
        weights: of the models.
        identity: of what is asked.

    Raises:
        SearchError: all weights are 0.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    at = int.from_bytes(digest[:8], "big") / 2**64 * sum(weights.values())
    for model, weight in sorted(weights.items()):
        if at < weight:
            return model
        at -= weight
    raise SearchError(f"weights are not all 0: {dict(weights)}")


def _by_model(index: Index, vector: Any) -> dict[str, Any]:
    """The vector of each model that is searched.

    Raises:
        SearchError: of a model that there is not, or of which one is not said.
    """
    if isinstance(vector, Mapping):
        if not vector or (unknown := sorted(set(vector) - set(index.models))):
            named = ", ".join(map(str, unknown)) if vector else "none"
            raise SearchError(
                f"index {index.name} has models {', '.join(index.models)}, not {named}"
            )
        return dict(vector)
    if len(index.models) > 1:
        known = ", ".join(index.models)
        raise SearchError(f"index {index.name} has several models: give {{model: vector}}: {known}")
    return {next(iter(index.models)): vector}


def index_of(app: App, name: str | Index) -> Index:
    """The index that is meant.

    Raises:
        ConfigurationError: the app declares none such.
    """
    found = app.indexes.get(name if isinstance(name, str) else name.name)
    if found is None:
        raise ConfigurationError(
            f"app {app.name} has no index {name!r}; it has {', '.join(app.indexes) or 'none'}"
        )
    return found
