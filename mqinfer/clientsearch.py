"""The indexes of an app as a client sees them: searched, and which generations there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mqinfer import wiring

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.hits import Hits
    from mqinfer.index import Index
    from mqinfer.search.generations import Generation
    from mqinfer.search.searching import Searching
    from mqinfer.worker.services import Services


class ClientSearch:
    """The part of `Client` that searches."""

    app: App
    _services: Services
    _searching: Searching | None = None

    async def search(
        self,
        index: Index | str,
        vector: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        generations: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> Hits:
        """The nearest keys of an index.

            hits = await client.search("pictures", vector, 10, where={"station": "north"})

        Args:
            index: or its name.
            vector: numbers, as many as the vectors of the index have; of an index of several
                models `{model: vector}`, of one of them or more.
            k: the most hits; fewer where there are fewer.
            where: conditions that all hits fulfil: field -> its value, a list of which it has one,
                or `{"ge": ..., "lt": ...}` (eq, ne, in, gt, ge, lt, le).
            weights: of the models; None is those of the index (`mqinfer index APP weights`), 1 each
                unless they were set.
            generations: model -> the generation that is searched; None is the one that the index
                was flipped to last. What embeds the query pins it, so that a flip in between does
                no harm: see `generation`.
            timeout: seconds for all shards to answer; those that do not are named in the answer.

        Returns:
            The hits, nearest first; equal ones by their keys. `hits.missing` names shards that did
            not answer.

        Raises:
            SearchError: the vector, a condition or a weight is wrong.
            ConfigurationError: there is no such index.
            Unavailable: no shard answers, or NATS does not.
        """
        from mqinfer.search.searching import index_of

        return await self._searches().search(
            index_of(self.app, index),
            vector,
            k,
            where=where,
            weights=weights,
            generations=generations,
            timeout=timeout,
        )

    async def generation(self, index: Index | str, model: str | None = None) -> Generation:
        """The generation that is searched now: its number, and the version of its vectors.

        Args:
            index: or its name.
            model: whose; None is the only one.

        Raises:
            ConfigurationError: there is no such index or model.
            Unavailable: there is none yet, or NATS does not answer.
        """
        from mqinfer.search.generations import model_of
        from mqinfer.search.searching import index_of

        found = index_of(self.app, index)
        return await self._searches().current(found, model_of(found, model))

    async def generations(
        self, index: Index | str, model: str | None = None
    ) -> Mapping[int, Generation]:
        """All generations there are, by number: also those that are built beside, and old ones.

        Whoever embeds pictures by the version of each lets none lack what comes meanwhile.

        Args:
            index: or its name.
            model: whose; None is the only one.

        Raises:
            ConfigurationError: there is no such index or model.
            Unavailable: NATS does not answer.
        """
        from mqinfer.search.generations import model_of
        from mqinfer.search.searching import index_of

        found = index_of(self.app, index)
        return await self._searches().generations(found, model_of(found, model))

    async def weights(self, index: Index | str) -> dict[str, float]:
        """The weights of an index's models, as they were 2 s ago at most.

        Raises:
            ConfigurationError: there is no such index.
            Unavailable: NATS does not answer.
        """
        from mqinfer.search.searching import index_of

        return dict(await self._searches().weights(index_of(self.app, index)))

    async def model_of(self, index: Index | str, identity: str) -> str:
        """The one model that something is searched by, where each is to have its share.

        Args:
            index: of several models, whose weights are their shares; or its name.
            identity: of what is asked: asked again under the same id, it goes the same way, until
                weights change.

        Raises:
            ConfigurationError: there is no such index.
            SearchError: all weights are 0.
            Unavailable: NATS does not answer.
        """
        from mqinfer.search.searching import chosen, index_of

        return chosen(await self._searches().weights(index_of(self.app, index)), identity)

    def _searches(self) -> Searching:
        if self._searching is None:
            self._searching = wiring.searching(self.app, self._services)
        return self._searching
