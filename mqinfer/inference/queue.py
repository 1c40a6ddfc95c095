"""Queue: the calls of one model, in the version that is followed, to the server and back.

Keeps promise 4 inside a request: every call gets its own result or its own error, a bad one never
fails its neighbours, a cancelled one never disturbs them; and promise 3: while the server or the
model is down, calls wait and are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from mqinfer.context import Context
from mqinfer.errors import BadTensor, ModelError, ModelUnavailable, MqinferError, Unavailable
from mqinfer.inference import tensors
from mqinfer.inference.batcher import Batcher, Entry
from mqinfer.inference.blame import Blame
from mqinfer.inference.bounds import Bounds
from mqinfer.inference.calls import (
    BLOCKED,
    OVER,
    QUEUED,
    SENT,
    Batch,
    Call,
    InferenceObserver,
    ModelDied,
    QueueStatistics,
    Request,
    ServerLost,
)
from mqinfer.inference.fitting import Fitting
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.inference.link import Link
from mqinfer.inference.room import Room
from mqinfer.inference.share import Share
from mqinfer.inference.streaming import StreamCall, UnderWay, take_stream
from mqinfer.inference.version import FollowedVersion
from mqinfer.model import Answer, Target
from mqinfer.ports import ModelInfo
from mqinfer.split import Split

if TYPE_CHECKING:
    from mqinfer.model import Array

log = structlog.get_logger("mqinfer.inference")

# Up to so many items a refused request is tried item by item instead of by halves.
_FEW = 4


class ModelQueue:
    """One model as it is used here: its latest version, a fixed one, or what an alias names.

    Args:
        link: the server.
        target: what its callers ask for.
        version: that is followed; None is the latest. That of an alias moves (`follow`).
        batcher: gathers the calls.
        limit: of request slots.
        refresh: seconds for which metadata is trusted when a call does not fit it.
        observer: is told of every request.
        share: of the slots that may be used.
    """

    def __init__(
        self,
        link: Link,
        target: Target,
        version: str | None,
        *,
        batcher: Batcher[Call],
        limit: AdaptiveLimit,
        refresh: float,
        observer: InferenceObserver | None,
        share: Share,
    ):
        self.model = model = target.name
        self._fitting = Fitting(target.together)
        self._link = link
        self._batcher = batcher
        self._limit = limit
        self._refresh = refresh
        self._observer = observer
        self._share = share
        self._rest: asyncio.TimerHandle | None = None
        self._calls: set[Call] = set()
        self._room = Room(batcher, self._fitting.signature, link.clock)
        self._pumping = False
        self._task_name = f"infer {model}"
        self._requests = self._items = self._refused = self._resent = 0
        self.followed = FollowedVersion(
            link, model, version, target.alias, changed=self._changed, learned=self._learned
        )
        self.bounds = Bounds(model, self._why_blocked, self._withdraw, self._calls)
        self._blame = Blame(model, self._signs_of_life, link.clock)
        self._streams = UnderWay(link.clock, self._pump)
        link.listeners.append(self._changed)

    # --- callers --------------------------------------------------------------------------------

    async def call(
        self,
        inputs: Mapping[str, Array],
        context: Context | None,
        bulk: bool,
        caller: Hashable,
        seconds: float | None = None,
    ) -> Answer:
        """Run one item, in so many seconds; see `mqinfer.inference.inference.Inference`."""
        info = self.followed.info or await self.followed.first_info(context)
        if info.decoupled:
            raise ModelError(take_stream(self.model))
        info, checked = await self._checked(info, inputs)
        call = Call(info, checked, context, bulk, caller)
        if self._link.tracing is not None:
            call.span = self._link.tracing.current()
        self._join(call)
        self.bounds.begin(call, seconds)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        finally:
            self.bounds.end(call)
            self._over(call)

    async def stream(
        self, inputs: Mapping[str, Array], context: Context | None, bulk: bool, caller: Hashable
    ) -> AsyncGenerator[Answer]:
        """The parts of one item's answer; one part for a model that is not decoupled."""
        info = self.followed.info or await self.followed.first_info(context)
        if not info.decoupled:
            yield await self.call(inputs, context, bulk, caller)
            return
        info, checked = await self._checked(info, inputs)
        call = StreamCall(info, checked, context, bulk, caller)
        self._blame.recall(call)
        self._join(call)
        try:
            async for part in call.parts():
                yield part
        finally:
            if call.leave():
                self._withdraw(call)
            self._over(call)

    def end(self) -> None:
        """Answer every caller that the link is closed."""
        self.followed.end()
        self.bounds.close()
        if self._rest is not None:
            self._rest.cancel()
        for call in self._calls:
            try:
                self._link.require_open()
            except MqinferError as error:
                call.fail(error)

    def statistics(self) -> QueueStatistics:
        """A look at it."""
        return QueueStatistics(
            model=self.model,
            version=self.followed.version,
            blocked=self._why_blocked(),
            calls=len(self._calls),
            waiting_for_room=len(self._room),
            requests=self._requests,
            items=self._items,
            refused=self._refused,
            resent=self._resent,
            batcher=self._batcher.statistics(self._link.clock()),
            limit=self._limit.statistics(),
        )

    def __repr__(self) -> str:
        return f"ModelQueue({self.followed.availability!r}, {self._batcher!r}, {self._limit!r})"

    # --- the model's state ----------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        link, model = self._link.availability, self.followed.availability
        return link.reason is not None or model.reason is not None

    def _why_blocked(self) -> str | None:
        return self._link.availability.blocked or self.followed.availability.blocked

    def _signs_of_life(self) -> object:
        return self._link.returns, self.followed.returns, self._requests

    def _learned(self, info: ModelInfo) -> None:
        self._batcher.max_batch = self._share.items(self._fitting.most(info))
        self._limit.instances = info.instances
        if info.decoupled:
            self._limit.streams()

    def _changed(self) -> None:
        """The server or the model went down or came back."""
        if self._link.crash is not None:
            self.end()
        now, waits = self._link.clock(), BLOCKED if self._blocked else QUEUED
        for call in self._calls:
            if call.request is None and not call.future.done():
                call.stands(waits, now)
        self._pump()

    # --- waiting --------------------------------------------------------------------------------

    async def _checked(
        self, info: ModelInfo, inputs: Mapping[str, Array]
    ) -> tuple[ModelInfo, dict[str, Array]]:
        """One item's inputs as they can be sent, and what they were checked against."""
        try:
            return info, self._fitting.check(info, inputs)
        except BadTensor:
            # A newer version may want other tensors: look again before refusing.
            fresh = self._link.clock() - self.followed.described < self._refresh
            if fresh or not await self.followed.describe() or self.followed.info is None:
                raise
        return self.followed.info, self._fitting.check(self.followed.info, inputs)

    def _join(self, call: Call) -> None:
        """A caller begins to wait."""
        self._link.require_open()
        self._calls.add(call)
        if call.context is not None:
            call.stands(BLOCKED if self._blocked else QUEUED, self._link.clock())
        if self._room.enter(call):
            self._pump()

    def _over(self, call: Call) -> None:
        """A caller waits no more."""
        self._calls.discard(call)
        if call.context is not None:
            call.stands(OVER, self._link.clock())
        # Breaks a cycle: the arrays are to be freed now, not when garbage is collected.
        call.entry = None

    def _withdraw(self, call: Call) -> None:
        """The caller was cancelled; its neighbours go on."""
        if call.request is not None:
            request, call.request = call.request, None
            request.alive -= 1
            if not request.alive and request.task is not None:
                if not (self._link.closed or call.given):
                    self._limit.given_up(self._link.clock() - request.began)
                request.task.cancel()
        elif self._room.leave(call) and self._room.admit():
            self._pump()

    def _pump(self) -> None:
        """Send what may be sent, in the next turn of the event loop.

        Not at once: when a request is answered its callers run one after the other, and what they
        ask next should go together.
        """
        if self._pumping or self._blocked or not len(self._batcher) or self._link.closed:
            return
        if self._batcher.busy < self._slots():
            self._pumping = True
            self._link.spawn(self._serve(), self._task_name)

    def _slots(self) -> int:
        """Requests that may be under way now."""
        return self._share.slots(self._limit.slots + self._streams.silent, self._link.clock())

    def _rest_on(self) -> None:
        """Look again when the rest is over, or pump if it is."""
        left = self._share.rest(self._link.clock())
        if not left:
            self._rest = None
            self._pump()
        elif not self._link.closed:
            # A loop may be a little early; a millisecond is the least that all of them wait for.
            self._rest = asyncio.get_running_loop().call_later(max(left, 0.001), self._rest_on)

    # --- requests -------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Use one slot, if there is anything to use it for."""
        self._pumping = False
        silent = self._streams.silent
        batch = [] if self._blocked else self._batcher.take(self._slots(), beside=silent)
        if not batch:
            return
        # What did not fit into this request may go in another.
        self._pump()
        began = self._link.clock()
        request = Request(batch, asyncio.current_task(), began)
        for entry in batch:
            entry.item.request = request
            entry.item.stands(SENT, began)
        try:
            await self._exchange(request, batch)
        finally:
            for entry in request.open:
                self._batcher.done(entry)
            self._batcher.finish()
            self._yield(began)
            self._room.admit()
            self._pump()

    def _yield(self, began: float) -> None:
        """A request has ended: where there is less than one slot, it rests."""
        now = self._link.clock()
        self._share.used(now - began, self._limit.capacity, now)
        if self._share.rest(now):
            if self._rest is not None:
                self._rest.cancel()
            self._rest_on()

    async def _exchange(self, request: Request, batch: Batch) -> None:
        """Ask the server until every entry has its answer or waits again."""
        full = self._batcher.busy >= self._slots()
        split = Split([batch], few=_FEW)
        while tried := split.take():
            batch = [entry for entry in tried if not entry.item.future.done()]
            if not batch:
                continue
            sent = self._link.clock()
            try:
                answers = await self._send(batch, full)
            except ModelError as error:
                await self._refuse(request, batch, split, error, sent)
            except Unavailable as error:
                self._lose(batch, error)
                self._put_back(request, request.open)
                return
            except Exception as error:
                # A fault of ours or of the adapter, most likely about one odd item: find it.
                log.exception("a model call failed inside mqinfer", model=self.model)
                fault = ModelError(f"model {self.model}: the call failed inside mqinfer: {error!r}")
                await self._refuse(request, batch, split, fault, sent)
            else:
                for entry, answer in zip(batch, answers, strict=True):
                    entry.item.succeed(answer)

    async def _send(self, batch: Batch, full: bool) -> list[Answer]:
        info, link = batch[0].item.info, self._link
        if isinstance(batch[0].item, StreamCall):
            return [await self._send_stream(entry.item, full) for entry in batch]
        items = [entry.item.inputs for entry in batch]
        filled = self._fitting.fill(items)
        arrays = tensors.assemble(info, filled)
        started = link.clock()
        try:
            with link.together(self.model, (entry.item.span for entry in batch)):
                reply = await link.watch.infer(self.model, self.followed.version, arrays)
            seconds = link.clock() - started
            outputs = self._fitting.outputs(info, reply, items, filled)
        except Exception:
            if self._observer is not None:
                self._observer.failed(self.model, self.followed.expected)
            raise
        self._limit.measured(seconds, len(batch), full=full)
        self._answered(reply.version, len(batch), seconds)
        return [Answer(row, model=self.model, version=reply.version) for row in outputs]

    async def _send_stream(self, call: Call, full: bool) -> Answer:
        """Give a caller the parts of its answer; returns after the last."""
        assert isinstance(call, StreamCall)
        link, version = self._link, self.followed.expected
        inputs = tensors.assemble(call.info, [call.inputs])
        started = link.clock()

        def begun() -> None:
            # Until here it waited for the model alone, from here on also for its caller.
            self._limit.measured(link.clock() - started, 1, full=full)
            self.followed.answered()

        self._streams.begin(call)
        try:
            replies = link.watch.stream(self.model, self.followed.version, inputs)
            version = await call.relay(replies, link.clock, begun) or version
        except Exception:
            if self._observer is not None:
                self._observer.failed(self.model, version)
            raise
        finally:
            self._streams.end(call)
        self._blame.answered(call)
        self._answered(version, 1, link.clock() - started)
        return Answer({}, model=self.model, version=version)

    def _answered(self, version: str, items: int, seconds: float) -> None:
        """A request was answered, to its end."""
        self._link.attempts.reset()
        self.followed.answered()
        self._requests += 1
        self._items += items
        if self._observer is not None:
            self._observer.request(self.model, version, items, seconds)

    async def _refuse(
        self,
        request: Request,
        batch: Batch,
        split: Split[Entry[Call]],
        error: ModelError,
        sent: float,
    ) -> None:
        """A request was refused: find the bad items."""
        # Perhaps a newer version took over, or the alias moved to one, that wants other tensors.
        stale = self.followed.moves and self.followed.described <= sent
        stale = stale and not any(entry.item.given for entry in batch)
        if stale and (not await self.followed.describe() or self._check_again(batch)):
            self._put_back(request, batch)
            return
        for entry in split.refused(batch):
            self._refused += 1
            entry.item.request = None
            entry.item.fail(error)

    def _check_again(self, batch: Batch) -> bool:
        """Whether calls were made for other metadata; those that fit what is wanted now go on."""
        refused = self._fitting.again(self.followed.info, batch)
        self._refused += refused or 0
        return refused is not None

    def _lose(self, batch: Batch, error: Unavailable) -> None:
        """A request ended without an answer: the server or the model is down."""
        if isinstance(error, ModelDied) or not isinstance(error, ModelUnavailable):
            self._refused += self._blame.lost(batch, error)
        for entry in batch:
            entry.item.broke_off(error)
        if isinstance(error, ServerLost):
            return
        if isinstance(error, ModelUnavailable):
            self.followed.down(str(error), died=isinstance(error, ModelDied))
        else:
            self._link.down(str(error))

    def _put_back(self, request: Request, entries: Iterable[Entry[Call]]) -> None:
        """Let those entries of a request wait again that somebody still waits for."""
        again = [entry for entry in entries if not entry.item.future.done()]
        for entry in again:
            del request.open[entry]
            request.alive -= 1
            entry.item.request = None
        self._resent += len(again)
        self._batcher.put_back(again)
        self._changed()
