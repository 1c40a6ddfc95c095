"""Inference: the model calls of all handlers of a process, gathered and sent to one server.

Each model and version has a `queue` of its own, so that a model that is down stops only itself;
what goes out together and when is decided by `batcher` and `limits`; the `link` watches over the
server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from mqinfer.completion import roots
from mqinfer.context import current
from mqinfer.inference.aliases import FollowedAliases
from mqinfer.inference.batcher import MIB, Batcher
from mqinfer.inference.calls import InferenceObserver, QueueStatistics
from mqinfer.inference.canaried import CANARY, Canaried
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.inference.link import Link
from mqinfer.inference.queue import ModelQueue
from mqinfer.inference.share import Share
from mqinfer.model import FREELY, Model, Target, Together
from mqinfer.ports import InferenceServer

if TYPE_CHECKING:
    from mqinfer.model import Answer, Array
    from mqinfer.tracing.spans import Tracing

__all__ = ["Inference", "InferenceObserver", "InferenceStatistics", "QueueStatistics"]

T = TypeVar("T")

# Seconds for a call outside of a handler: long enough for the slowest model behind others.
CALL_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class InferenceStatistics:
    """A look at all model calls of a process.

    Attributes:
        blocked: why the server cannot be used now, or None.
        tasks: that are owned now: requests under way, probes, the looks at versions.
        queues: the models in use.
    """

    blocked: str | None
    tasks: int
    queues: tuple[QueueStatistics, ...]

    @property
    def lanes(self) -> tuple[QueueStatistics, ...]:
        """The name that `queues` had; stays for a release."""
        return self.queues


class Inference:
    """Runs model calls on one server; what `mqinfer.model.Inference` asks for.

    In a worker `run` is a task beside the stages, cancelled after the last handler; elsewhere use
    `async with Inference(server)`. Both own every task that calls start, and end them. The server
    is not closed: whoever made it closes it.

    Args:
        server: where the models are.
        timeout: seconds a call may take outside of a handler, where its handle does not say; in a
            handler the timeout of its stage bounds it.
        clock: monotonic seconds, the same clock that stages are timed by.
        refresh: seconds between two looks at the metadata of the models in use.
        request_bytes: the most bytes of items in one request.
        max_calls: the most calls of one model, gathered or sent; further callers wait for room.
        max_bytes: the most bytes of those calls.
        aliases: what the aliases of models stand for; None where none is followed.
        limit: makes the limit of request slots of a model.
        observer: is told of every request.
        tracing: makes spans of requests; `traced.TracedInference` makes those of calls.

    Attributes:
        canaried: chooses between an alias's version and its canary, and counts what comes of it.
    """

    def __init__(
        self,
        server: InferenceServer,
        *,
        timeout: float = CALL_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        refresh: float = 2.0,
        request_bytes: int = 16 * MIB,
        max_calls: int = 4096,
        max_bytes: int = 256 * MIB,
        aliases: FollowedAliases | None = None,
        limit: Callable[[], AdaptiveLimit] = AdaptiveLimit,
        observer: InferenceObserver | None = None,
        tracing: Tracing | None = None,
    ):
        self._link = Link(server, clock=clock, tracing=tracing)
        self.tracing = tracing
        self._timeout = timeout
        self._queues: dict[Target, ModelQueue] = {}
        # By what calls say, which a pin may overrule; once it is known what their alias names.
        self._ready: dict[Target, ModelQueue] = {}
        self._aliases = aliases
        self.canaried = Canaried({} if aliases is None else aliases.canaries)
        self._canaries = self.canaried.canaries
        self._refresh = refresh
        self._bounds = (request_bytes, max_calls, max_bytes)
        self._make_limit = limit
        self._clock = clock
        self._observer = observer
        self._pins: dict[str, str] = {}
        self._share = 1.0

    def pin(self, versions: Mapping[str, str]) -> None:
        """Answer with these versions, whatever a call asks for: a replay through a new model.

        Args:
            versions: `name -> version`; models that are not named answer as ever.
        """
        self._pins = dict(versions)

    def share(self, part: float) -> None:
        """Use only this part of each model's slots, for work that is to yield to others.

        Args:
            part: more than 0, at most 1; for models that are not in use yet.
        """
        self._share = part

    def beside(self) -> Inference:
        """Another one on the same server, with queues, pins and a share of its own."""
        request_bytes, max_calls, max_bytes = self._bounds
        return type(self)(
            self._link.server,
            timeout=self._timeout,
            clock=self._clock,
            refresh=self._refresh,
            request_bytes=request_bytes,
            max_calls=max_calls,
            max_bytes=max_bytes,
            aliases=self._aliases,
            limit=self._make_limit,
            tracing=self.tracing,
        )

    async def __call__(
        self,
        model: str,
        version: str | None,
        inputs: Mapping[str, Array],
        alias: str | None = None,
        *,
        timeout: float | None = None,
        bulk: bool = False,
        together: Together = FREELY,
    ) -> Answer:
        """Run one item of a model by name, where there is no handle; see `ask` and `Model`."""
        handle = Model(
            model,
            version=version,
            alias=alias,
            timeout=timeout,
            priority="bulk" if bulk else "live",
            max_batch=together.max_batch,
            pad=dict(together.pad),
        )
        handle.caller = None
        return await self.ask(handle, inputs)

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """Run one item, in a request with others; waits while the model is unavailable.

        In a handler its stage takes turns with other stages, and bounds the time; elsewhere the
        handle does. Live calls go before those of a bulk handle, of a replay, and of jobs.

        Args:
            model: a handle.
            inputs: arrays without batch dimension, by the model's input names.

        Raises:
            BadTensor: a name, dtype or shape does not fit the model.
            ModelError: the server refused this item.
            ModelTimeout: it took too long, outside of a handler.
            NotConnected: this object was closed.
        """
        target = self._chosen(model.target) if self._canaries else model.target
        queue = self._ready.get(target) or await self._followed(target)
        bulk = model.priority == "bulk"
        context = current.get()
        if context is not None:
            bulk = bulk or context.run is not None or roots.bulk(context.headers)
            return await queue.call(inputs, context, bulk, context.stage)
        seconds = self._seconds(model)
        if queue.followed.info is not None:
            return await queue.call(inputs, None, bulk, model.caller, seconds)
        return await self._within(seconds, queue, queue.call(inputs, None, bulk, model.caller))

    async def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncGenerator[Answer]:
        """Run one item of a model that answers it in parts; gives them as they come.

        Outside of a handler the handle's timeout bounds each part.

        Args:
            model: as for a call.
            inputs: likewise.

        Raises:
            BadTensor: as for a call; so for the others.
            ModelError: the server refused this item, or its answer ended in an error.
            ModelTimeout: a part took too long, outside of a handler.
            NotConnected: this object was closed.
            Unavailable: the answer broke off after its first part: ask again, from the beginning.
        """
        target = self._chosen(model.target) if self._canaries else model.target
        queue = self._ready.get(target) or await self._followed(target)
        bulk, caller = model.priority == "bulk", model.caller
        context = current.get()
        if context is not None:
            bulk = bulk or context.run is not None or roots.bulk(context.headers)
            caller = context.stage
        async with aclosing(queue.stream(inputs, context, bulk, caller)) as parts:
            while True:
                following = anext(parts, None)
                if context is None:
                    part = await self._within(self._seconds(model), queue, following)
                else:
                    part = await following
                if part is None:
                    return
                yield part

    def canary_away(self, model: str, alias: str, seconds: float) -> str | None:
        """Why a canary has not answered for so long, while its server does; None where it has."""
        if self._link.availability.reason is not None:
            return None
        for target, queue in self._queues.items():
            if (target.name, target.alias) == (model, f"{alias}{CANARY}"):
                found = queue.followed.availability
                if found.reason is not None and self._clock() - found.since >= seconds:
                    return found.reason
        return None

    def blocked(self, models: Iterable[Model]) -> str | None:
        """Why a stage that uses these models should not pull now, or None.

        A model that is asked for here is looked up on the server, so that a stage knows before its
        first message that its model is not there.

        Args:
            models: as they were declared.
        """
        for model in models:
            if self._link.availability.reason is not None:
                return self._link.availability.blocked
            if not self._link.closed:
                queue = self._queue(model.target)
                if queue.followed.availability.reason is not None:
                    return queue.followed.availability.blocked
                if queue.followed.info is not None and queue.followed.info.refusal is not None:
                    return queue.followed.info.refusal
        return None

    async def refusal(self, models: Iterable[Model]) -> str | None:
        """Why one of these models can never be called; None if all can. Waits until it is known.

        Args:
            models: as they were declared.
        """
        for model in models:
            queue = await self._followed(model.target)
            info = queue.followed.info or await queue.followed.first_info(None)
            if info.refusal is not None:
                return info.refusal
        return None

    async def run(self) -> None:
        """Keep aliases and the metadata of the models in use fresh, until cancelled; then close.

        New versions are noticed within `refresh` seconds, and so are an alias that was set and a
        model that is gone.
        """
        try:
            self._link.spawn(self._keep_fresh(), "model versions")
            await self._link.crashed.wait()
            assert self._link.crash is not None
            raise self._link.crash
        finally:
            await self.close()

    @property
    def closed(self) -> bool:
        """Whether it answers no more."""
        return self._link.closed

    async def close(self) -> None:
        """End every task; callers that still wait get `NotConnected`."""
        self._link.closed = True
        for queue in self._queues.values():
            queue.end()
        await self._link.close()

    async def __aenter__(self) -> Self:
        if self._aliases is not None:
            self._link.spawn(self._keep_fresh(), "model versions")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def statistics(self) -> InferenceStatistics:
        """Counters since the start, and the state now."""
        queues = tuple(queue.statistics() for queue in self._queues.values())
        return InferenceStatistics(self._link.availability.blocked, len(self._link.tasks), queues)

    def __repr__(self) -> str:
        queues = ", ".join(map(repr, self._queues.values())) or "no models yet"
        return f"Inference({self._link!r}, {queues})"

    async def _followed(self, target: Target) -> ModelQueue:
        """The queue for a call, made when first asked for."""
        self._link.require_open()
        if target.alias is not None and self._aliases is not None and not self._aliases.known:
            await self._aliases.load()
        queue = self._ready[target] = self._queue(target)
        return queue

    def _seconds(self, model: Model) -> float:
        """How long a caller outside of a handler may wait."""
        return self._timeout if model.timeout is None else model.timeout

    async def _within(self, seconds: float, queue: ModelQueue, answer: Awaitable[T]) -> T:
        """Wait so long for what a caller outside of a handler asked for.

        Raises:
            ModelTimeout: it took longer.
        """
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                return await answer
        except TimeoutError:
            if not bound.expired():
                raise
            raise queue.bounds.overdue(seconds) from None

    def _queue(self, target: Target) -> ModelQueue:
        if self._pins and (pin := self._pins.get(target.name)) is not None:
            target = target._replace(version=pin, alias=None)
        queue = self._queues.get(target)
        if queue is None:
            request_bytes, max_calls, max_bytes = self._bounds
            queue = self._queues[target] = ModelQueue(
                self._link,
                target,
                self._resolved(target),
                batcher=Batcher(
                    request_bytes=request_bytes, max_calls=max_calls, max_bytes=max_bytes
                ),
                limit=self._make_limit(),
                refresh=self._refresh,
                observer=self._observer,
                share=Share(self._share),
            )
        return queue

    def _resolved(self, target: Target) -> str | None:
        if target.alias is None or self._aliases is None:
            return target.version
        alias, of_canary, _ = target.alias.partition(CANARY)
        # Calls that wait for a canary that is none any more go on with what the alias names.
        canary = self._canaries.get((target.name, alias)) if of_canary else None
        if canary is not None:
            return canary.version
        return self._aliases.version(target.name, alias) or target.version

    def _chosen(self, target: Target) -> Target:
        """The target of a call while there are canaries.

        A canary that is known to be down takes nothing: what it would have had does not wait.
        """
        context = current.get()
        of_share = None if self._pins else self.canaried.of_share(target, context)
        if of_share is None or context is None:
            return target
        other = target._replace(alias=f"{target.alias}{CANARY}") if of_share else target
        queue = self._ready.get(other) if of_share else None
        if queue is not None and queue.followed.availability.reason:
            return target
        self.canaried.asked(target, context, of_share=of_share)
        return other

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh)
            await self._look_again()

    async def _look_again(self) -> None:
        if self._aliases is not None:
            await self._aliases.refresh()
            for target, queue in self._queues.items():
                queue.followed.follow(self._resolved(target))
        for queue in tuple(self._queues.values()):
            # What is down is being asked already.
            down = self._link.availability.reason or queue.followed.availability.reason
            if down is None and queue.followed.info:
                await queue.followed.describe()
