"""Owner: the partitions that one worker owns of a stage: how it comes by them, and how it goes.

Each partition has a token, a message that is never acknowledged: whoever holds it owns the
partition. The claim is renewed while the server confirms it, given back at a stop, and goes to
another worker `ack_wait` after its owner fell silent. Only the owner pulls messages, and a new one
waits until whatever was out has come to it (`turns`).

A claim must not be used after its end. So a worker that has heard no confirmation for most of
`ack_wait` (it was stopped, or cut off) drops what it holds without a word: it cancels handlers,
and neither acknowledges nor gives back what is no longer its own. Two owners at once, after a
server that was killed forgot who had the token, wait for one another's messages and begin nothing;
whoever has waited for too long lets go.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from mqinfer.errors import MqinferError, PermissionDenied
from mqinfer.flow.claims import HOLD
from mqinfer.flow.ordered.ownedpull import OwnedPull
from mqinfer.flow.ordered.partition import Held, Partition, Token
from mqinfer.flow.ordered.places import SINGLE, WINDOW, Places
from mqinfer.flow.ordered.tokens import Tokens
from mqinfer.flow.ordered.windows import Windows

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker, Delivery, Pull
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

BEAT = 0.25  # seconds between looks whether this process stands still
LOOK = 1.0  # seconds between looks at what is owned, and at the share
SOON = 0.1  # the same while messages wait until they are known to be all
LATER = 0.5  # seconds after which a token may come again that is not wanted now
PATIENCE = 3.0  # times ack_wait, or up to twice that, before a doubtful partition is let go


class Owner:
    """The feed of a stage that owns partitions.

    Args:
        broker: the server.
        places: its consumers.
        limits: of the stage.
        clock: monotonic seconds.
    """

    def __init__(self, broker: Broker, places: Places, limits: Limits, clock: Callable[[], float]):
        self.broker = broker
        self.ack_wait = limits.ack_wait
        self.clock = clock
        self.partitions = [Partition(n, spec.name) for n, spec in enumerate(places.partitions)]
        self.owned: list[Partition] = []
        self._places = places
        self._limits = limits
        self._looked = float("-inf")
        self._tokens = Tokens(broker, places, self._expires)
        self._tasks: list[asyncio.Task[None]] = []
        self._woken = asyncio.Event()
        self._beats = (clock(), clock())
        # Two that wait for one another must not let go at once.
        self._patience = PATIENCE * limits.ack_wait * (1 + random.random())
        self._closing = self._denied = self._asking = False
        self._windows: Windows | None = None

    def windows(self, largest: int) -> Windows:
        """The account of what is here, for the size of the largest message."""
        partitions = len(self.partitions)
        self._windows = Windows(partitions, lambda: self.owned, self._limits, largest)
        return self._windows

    def begins(
        self,
        put: Callable[[Job], None],
        hand_back: Callable[[Sequence[Job]], Awaitable[None]],
    ) -> None:
        """Where messages go whose turn has come, and who hands back what waits."""
        self._put = put
        self._hand_back = hand_back

    # --- the feed -------------------------------------------------------------------------------

    async def pull(
        self,
        stream: str,
        consumer: str,
        *,
        on_message: Callable[[Delivery], None],
        on_released: Callable[[int, int], None],
        recreate: Callable[[], Awaitable[object]],
        expires: float | None = None,
    ) -> OwnedPull:
        """Begin to own partitions, and to pull from these; see `Broker.pull`."""
        del stream, consumer, expires  # the stage's name; its consumers are ours
        self._on_message, self._on_released, self._recreate = on_message, on_released, recreate
        await self._tokens.open(self._token, recreate)
        self._tasks = [
            asyncio.create_task(self._keep_beat(), name="beat"),
            asyncio.create_task(self._keep(), name="partitions"),
        ]
        return OwnedPull(lambda: self.owned, self._ask, lambda: self._closing, self._close_all)

    @property
    def _expires(self) -> float:
        """A request of a worker that stands still must have ended before its claim has."""
        return max(1.0, self.ack_wait / 2)

    async def _keep_beat(self) -> None:
        """Notice when this process stands still.

        What is read after that may have lain in the socket all the while: its claim counts from
        the last sign of life before, not from when it was read.
        """
        every = min(BEAT, self.ack_wait / 20)
        while True:
            self._beats = (self._beats[1], self.clock())
            await asyncio.sleep(every)

    def progress(self, delivery: Delivery, heard: Callable[[], None] | None = None) -> None:
        """Renew a message; alone, its claim counts from when it was asked for, once confirmed."""
        if not isinstance(delivery, Held) or not delivery.partition.turns.single:
            self.broker.progress(delivery, heard)
            return
        asked = self.clock()

        def renewed() -> None:
            delivery.renewed = max(delivery.renewed, asked)
            if heard is not None:
                heard()

        self.broker.progress(delivery, renewed)

    def asks(self) -> None:
        """Ask for messages, where a place became free: in this turn of the loop, for all of it."""
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._asks)

    def _asks(self) -> None:
        self._asking = False
        self._on_released(0, 0)

    def _ask(self) -> None:
        assert self._windows is not None
        for partition in self.owned:
            partition.ask(self._windows.quota)

    # --- tokens ---------------------------------------------------------------------------------

    def _token(self, delivery: Delivery) -> None:
        number = delivery.subject.rpartition(".")[2]
        at = int(number) if number.isdecimal() else len(self.partitions)
        if at >= len(self.partitions):
            self.broker.term(delivery, "no partition has this number")
            return
        partition = self.partitions[at]
        if self._closing or (partition.token is None and self._remains(partition)):
            self.broker.nak(delivery, 0 if self._closing else LATER)
            return
        if partition.token is not None:
            partition.token.delivery = delivery  # the server did not know that it was ours
            return
        partition.take(Token(delivery, self._beats[0]))
        self.owned.append(partition)
        self._woken.set()

    def _remains(self, partition: Partition) -> bool:
        """Whether something of an earlier claim is still here."""
        return partition.pull is not None or len(partition.turns) > 0

    def renew(self, now: float) -> None:
        """Renew what is owned; call it often. What was not confirmed for too long is lost."""
        for partition in tuple(self.owned):
            token = partition.token
            assert token is not None
            if not self._holds(token, now):
                log.warning("a partition is lost: its claim was not confirmed", at=repr(partition))
                self._lose(partition)
            elif (
                now - token.renewed >= self.ack_wait / 3 and now - token.asked >= self.ack_wait / 12
            ):
                self._renew(partition, token, now)

    def _holds(self, token: Token, now: float) -> bool:
        """Whether a claim counts still: others have not been given it."""
        return now - token.renewed <= HOLD * self.ack_wait

    def _renew(self, partition: Partition, token: Token, now: float) -> None:
        """Renew a token, and before it what it stands for: so the confirmation is for all."""
        if not partition.turns.single:
            for job in partition.turns.items():
                self.broker.progress(job.delivery)
                job.pulsed = now
        token.asked = now

        def confirmed() -> None:
            token.renewed = max(token.renewed, now)

        self.broker.progress(token.delivery, confirmed)

    def _lose(self, partition: Partition) -> None:
        partition.lose()
        self.owned.remove(partition)
        self._woken.set()

    # --- looks ----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Look at what is owned, and what may be, until the end."""
        while not self._closing:  # nats-py swallows a cancellation, now and then
            self._woken.clear()
            try:
                await self._round()
            except Exception:
                log.exception("the partitions cannot be looked at")
            waits = any(not one.turns.sure or one.giving for one in self.owned)
            timer = asyncio.get_running_loop().call_later(SOON if waits else LOOK, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()

    async def _round(self) -> None:
        now = self.clock()
        # None may outlive the round: the next one would do the same beside it.
        async with asyncio.TaskGroup() as group:
            for partition in self.partitions:
                if self._due(partition, now):
                    group.create_task(self._attend(partition), name=f"{partition.consumer} look")
            if now - self._looked >= LOOK:
                group.create_task(self._take_share(), name="share")

    def _due(self, partition: Partition, now: float) -> bool:
        if partition.token is None:
            return partition.pull is not None
        if partition.pull is None or partition.giving:
            return True
        return now - partition.looked >= (LOOK if partition.turns.sure else SOON / 2)

    async def _attend(self, partition: Partition) -> None:
        """Do what is to be done for one partition."""
        try:
            if partition.token is None:
                await self._close(partition)
            elif partition.giving:
                await self._give(partition)
            else:
                if partition.pull is None:
                    partition.pull = await self._open(partition)
                await self._look(partition)
        except MqinferError as error:
            log.debug("a partition cannot be looked at", at=repr(partition), reason=str(error))

    async def _open(self, partition: Partition) -> Pull:
        partition.asked = partition.asked_bytes = 0

        def arrived(delivery: Delivery) -> None:
            if partition.token is None:
                partition.withdrawn(1, delivery.size)
                self.broker.nak(delivery, 0)  # the owner is to have it
                return
            held = partition.arrived(delivery, self._beats[0])
            if held.sequence in partition.turns:
                self._on_message(held)
            else:
                self.broker.nak(delivery, 0)  # it was settled here
                self._on_released(1, 0)

        def released(messages: int, size: int) -> None:
            partition.withdrawn(messages, size)
            self._on_released(messages, 0)

        spec = self._places.partitions[partition.number]
        return await self.broker.pull(
            spec.stream,
            spec.name,
            on_message=arrived,
            on_released=released,
            recreate=self._recreate,
            expires=self._expires,
        )

    async def _close(self, partition: Partition) -> None:
        pull, partition.pull = partition.pull, None
        if pull is not None:
            await pull.close()
            self._on_released(partition.asked, 0)  # nobody answers these any more
            partition.asked = partition.asked_bytes = 0

    async def _look(self, partition: Partition) -> None:
        spec, token = self._places.partitions[partition.number], partition.token
        lost = partition.turns.lost
        state = await self.broker.consumer_state(spec.stream, spec.name)
        now = self.clock()
        if state is None or token is None or partition.token is not token or self._closing:
            return
        if partition.turns.lost != lost or not self._holds(token, now):
            return  # the answer may be of before, or this process stood still: another owns it
        if partition.turns.single and partition.turns.sure:
            if not partition.strangers(state):
                partition.doubted = now
            if partition.may_widen(state) and not self._denied:
                partition.widened(now)  # before the server gives out what follows one that failed
                await self._set_window(partition, WINDOW)
                return  # it is to be asked anew
        elif (
            not partition.turns.sure
            and state.max_ack_pending != SINGLE
            and partition.strangers(state)
        ):
            await self._set_window(partition, SINGLE)
            return
        found = partition.look(state, now)
        for job in found.ready:
            self._put(job)
        if found.stale:
            await self._hand_back(found.stale)
        # Whoever pulls as well may own it by a claim of before: then one of the two must end.
        single = partition.turns.single and not len(partition.turns)
        doubtful = single or not partition.turns.sure
        if doubtful and now - partition.doubted > self._patience:
            log.warning(
                "a partition is let go: others have messages of it, or ask",
                at=repr(partition),
            )
            self._lose(partition)
        self.asks()

    async def _set_window(self, partition: Partition, window: int) -> None:
        """Have the server give out as many messages at a time."""
        spec = self._places.partitions[partition.number]
        if self._denied:
            return
        try:
            await self.broker.ensure_consumer(
                replace(spec, max_ack_pending=window, window_kept=False)
            )
        except PermissionDenied as error:
            self._denied = True
            log.warning(
                "partitions are worked off one message at a time (see: mqinfer permissions)",
                consumer=spec.name,
                reason=str(error),
            )
            return
        log.info("messages of a partition at a time", consumer=spec.name, most=window)

    # --- sharing --------------------------------------------------------------------------------

    async def _take_share(self) -> None:
        """Own as many partitions as every other worker."""
        mine = [one for one in self.owned if not one.giving]
        try:
            less = await self._tokens.look(len(mine))
        except MqinferError as error:
            log.debug("the workers cannot be counted", reason=str(error))
            return
        self._looked = self.clock()
        for partition in sorted(mine, key=lambda one: len(one.turns))[:less]:
            partition.giving = True
            self._woken.set()

    async def _give(self, partition: Partition) -> None:
        """Give a partition to another worker, when nothing of it is left here."""
        await self._close(partition)
        await self._hand_back(partition.turns.waiting())
        token = partition.token
        if token is None or len(partition.turns):
            return  # handlers are at work; the next look sees to it
        self.broker.nak(token.delivery, 0)
        self._lose(partition)

    # --- the end --------------------------------------------------------------------------------

    async def _close_all(self) -> None:
        """Take no messages any more, and begin none; what is owned stays so until `end`."""
        self._closing = True
        for partition in self.partitions:
            partition.turns.doubt()  # what waits is about to be handed back
        await self._stop_looking()
        await self._tokens.close()
        pulls = [one.pull for one in self.partitions if one.pull is not None]
        await asyncio.gather(*(pull.close() for pull in pulls))

    async def _stop_looking(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def end(self) -> None:
        """Give up everything."""
        await self._stop_looking()
        now = self.clock()
        for partition in tuple(self.owned):
            token = partition.token
            if token is not None and self._holds(token, now):
                self.broker.nak(token.delivery, 0)
            self._lose(partition)

    def __repr__(self) -> str:
        return f"Owner({len(self.owned)} of {len(self.partitions)} partitions, {self._tokens!r})"
