"""Queue: the calls of one model, in the version that is followed, to the server and back.

Keeps promise 4 inside a request: every call gets its own result or its own error, a bad one never
fails its neighbours, a cancelled one never disturbs them; and promise 3: while the server or the
model is down, calls wait and are sent again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from mqinfer.context import Context
from mqinfer.errors import BadTensor, ModelError, ModelUnavailable, MqinferError, Unavailable
from mqinfer.inference import padding, tensors
from mqinfer.inference.batcher import Batcher, Entry
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
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.inference.link import Link
from mqinfer.inference.share import Share
from mqinfer.inference.version import FollowedVersion
from mqinfer.model import FREELY, Answer, Together
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
        model: its name.
        version: None follows the latest.
        alias: that names the version; `follow` then moves it to another.
        batcher: gathers the calls.
        limit: of request slots.
        refresh: seconds for which metadata is trusted when a call does not fit it.
        observer: is told of every request.
        share: of the slots that may be used.
        together: how calls may share a request.
    """

    def __init__(
        self,
        link: Link,
        model: str,
        version: str | None,
        *,
        alias: str | None = None,
        batcher: Batcher[Call],
        limit: AdaptiveLimit,
        refresh: float,
        observer: InferenceObserver | None,
        share: Share,
        together: Together = FREELY,
    ):
        self.model = model
        self._together = together
        self._link = link
        self._batcher = batcher
        self._limit = limit
        self._refresh = refresh
        self._observer = observer
        self._share = share
        self._rest: asyncio.TimerHandle | None = None
        self._calls: set[Call] = set()
        # Callers for whom there is no room in the batcher, in order: the live ones, the bulk ones.
        self._waiting: tuple[OrderedDict[Call, None], ...] = (OrderedDict(), OrderedDict())
        self._pumping = False
        self._task_name = f"infer {model}"
        self._requests = self._items = self._refused = self._resent = 0
        self.followed = FollowedVersion(
            link, model, version, alias, changed=self._changed, learned=self._learned
        )
        link.listeners.append(self._changed)

    # --- callers --------------------------------------------------------------------------------

    async def call(
        self, inputs: Mapping[str, Array], context: Context | None, *, bulk: bool = False
    ) -> Answer:
        """Run one item; see `mqinfer.inference.inference.Inference`."""
        info = self.followed.info or await self.followed.first_info(context)
        try:
            checked = self._fit(info, inputs)
        except BadTensor:
            # A newer version may want other tensors: look again before refusing.
            fresh = self._link.clock() - self.followed.described < self._refresh
            if fresh or not await self.followed.describe() or self.followed.info is None:
                raise
            info = self.followed.info
            checked = self._fit(info, inputs)
        self._link.require_open()
        call = Call(info, checked, context, bulk=bulk)
        self._calls.add(call)
        call.stands(BLOCKED if self._blocked else QUEUED, self._link.clock())
        live, bulks = self._waiting
        if live or (bulk and bulks) or not self._batcher.fits(call.size, bulk=bulk):
            self._waiting[bulk][call] = None
        else:
            self._enter(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        finally:
            self._calls.discard(call)
            call.stands(OVER, self._link.clock())
            # Breaks a cycle: the arrays are to be freed now, not when garbage is collected.
            call.entry = None

    def end(self) -> None:
        """Answer every caller that the link is closed."""
        self.followed.end()
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
            blocked=self._link.availability.blocked or self.followed.availability.blocked,
            calls=len(self._calls),
            waiting_for_room=sum(map(len, self._waiting)),
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
        return (
            self._link.availability.reason is not None
            or self.followed.availability.reason is not None
        )

    def _learned(self, info: ModelInfo) -> None:
        most = max(info.max_batch_size, 1)
        self._batcher.max_batch = self._share.items(min(most, self._together.max_batch or most))
        self._limit.instances = info.instances

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

    def _fit(self, info: ModelInfo, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One item's inputs as they can be sent."""
        if info.refusal is not None:
            raise ModelError(info.refusal)
        if self._together.pad:
            padding.require(info, self._together.pad)
        return tensors.check(info, inputs)

    def _signature(self, call: Call) -> Hashable:
        """What calls must share to be in one request."""
        if self._together.pad:
            return padding.signature(call.info, call.inputs, self._together.pad)
        return tensors.signature(call.inputs)

    def _enter(self, call: Call) -> None:
        signature = self._signature(call)
        call.entry = self._batcher.add(
            signature, call, call.size, self._link.clock(), bulk=call.bulk
        )
        self._pump()

    def _admit(self) -> None:
        """Let in callers that wait for room, in order, as far as there is some."""
        for waiting in self._waiting:
            while waiting:
                call = next(iter(waiting))
                if not self._batcher.fits(call.size, bulk=call.bulk):
                    return
                del waiting[call]
                self._enter(call)

    def _withdraw(self, call: Call) -> None:
        """The caller was cancelled; its neighbours go on."""
        if call.request is not None:
            request, call.request = call.request, None
            request.alive -= 1
            if not request.alive and request.task is not None:
                if not self._link.closed:
                    self._limit.given_up(self._link.clock() - request.began)
                request.task.cancel()
        elif call.entry is None:
            self._waiting[call.bulk].pop(call, None)
            self._admit()
        elif self._batcher.remove(call.entry):
            self._admit()

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
        return self._share.slots(self._limit.slots, self._link.clock())

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
        batch = [] if self._blocked else self._batcher.take(self._slots())
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
            self._admit()
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
                    call = entry.item
                    call.request = None
                    if not call.future.done():
                        call.future.set_result(answer)

    async def _send(self, batch: Batch, full: bool) -> list[Answer]:
        info, link = batch[0].item.info, self._link
        items = [entry.item.inputs for entry in batch]
        padded = padding.padded(items, self._together.pad) if self._together.pad else items
        arrays = tensors.assemble(info, padded)
        started = link.clock()
        try:
            reply = await link.watch.infer(self.model, self.followed.version, arrays)
            seconds = link.clock() - started
            outputs = tensors.split(info, reply, len(batch))
            if padded is not items:
                outputs = padding.cut(info, items, padded, outputs, self._together.pad)
        except Exception:
            if self._observer is not None:
                self._observer.failed(self.model, self.followed.expected)
            raise
        self._limit.measured(seconds, len(batch), full=full)
        link.attempts.reset()
        self.followed.answered()
        self._requests += 1
        self._items += len(batch)
        if self._observer is not None:
            self._observer.request(self.model, reply.version, len(batch), seconds)
        return [Answer(row, model=self.model, version=reply.version) for row in outputs]

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
        if stale and (not await self.followed.describe() or self._check_again(batch)):
            self._put_back(request, batch)
            return
        for entry in split.refused(batch):
            self._refused += 1
            entry.item.request = None
            entry.item.fail(error)

    def _check_again(self, batch: Batch) -> bool:
        """Whether calls were made for other metadata; those that fit what is wanted now go on."""
        info = self.followed.info
        if info is None or all(entry.item.info is info for entry in batch):
            return False
        for entry in batch:
            call = entry.item
            try:
                call.inputs = self._fit(info, call.inputs)
            except (BadTensor, ModelError) as error:
                self._refused += 1
                call.fail(error)
            else:
                call.info = info
                entry.signature = self._signature(call)
        return True

    def _lose(self, batch: Batch, error: Unavailable) -> None:
        """A request ended without an answer: the server or the model is down."""
        if isinstance(error, ModelDied) or not isinstance(error, ModelUnavailable):
            for entry in batch:
                entry.batch_limit = max(1, len(batch) // 2)
            if len(batch) == 1:
                self._suspect(batch[0].item, error)
        if isinstance(error, ServerLost):
            return
        if isinstance(error, ModelUnavailable):
            self.followed.down(str(error), died=isinstance(error, ModelDied))
        else:
            self._link.down(str(error))

    def _suspect(self, call: Call, error: Unavailable) -> None:
        """An item that was alone got no answer; when that goes on, the item is at fault."""
        others = error.signs_of_life if isinstance(error, ServerLost) else 0
        sign_of_life = (self._link.returns, self.followed.returns, self._requests, others)
        if call.lost_alone(sign_of_life, self._link.clock()):
            self._refused += 1
            call.fail(
                ModelError(
                    f"model {self.model}: {call.lost} times no answer came while this item was "
                    f"alone in its request, and the server was ready again; the last time: {error}"
                )
            )

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
