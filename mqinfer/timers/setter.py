"""Setter: the timers that the handlers of one stage ask for, set when their outputs are stored.

Their ids are those of outputs with numbers of their own, so a redelivery asks for the same timers,
and finds them: set, come, or replaced by what a later message asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from mqinfer.errors import Unavailable
from mqinfer.flow.job import TimedContext
from mqinfer.identity import IDENTITY, MSG_ID, header_block, header_line, output_id
from mqinfer.later import MAX_NAME
from mqinfer.timers import places
from mqinfer.timers.table import write

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.flow.emitter import Emitter
    from mqinfer.flow.job import Job
    from mqinfer.later import Later
    from mqinfer.message import Message
    from mqinfer.ports import PublishDone
    from mqinfer.timers.table import Table

log = structlog.get_logger("mqinfer.timers")

AGAIN = 0.5  # seconds until a server that did not answer is asked again


class Setter:
    """Sets timers of one stage; see `flow.policy.SetsTimers`.

    Args:
        app: whose.
        stage: its name.
        key: the field of its messages that is their key, or None.
        emitter: for the types that it may set timers of.
        table: of the app.
        created: when the stream that its messages are in was made.
    """

    def __init__(
        self,
        app: App,
        stage: str,
        key: str | None,
        emitter: Emitter,
        table: Table,
        created: Callable[[], str | None],
    ):
        self._app = app
        self._stage = stage
        self._key = key
        self._emitter = emitter
        self._table = table
        self._created = created
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, job: Job) -> Sequence[Later]:
        """What the handler of a message asked for, and forget it."""
        context = job.context
        if not isinstance(context, TimedContext):
            return ()
        wishes, context.timers, context.over = context.timers or (), None, True
        return wishes

    def set(self, job: Job, wishes: Sequence[Later], done: PublishDone) -> None:
        """Set them beside what goes on; `done` is called on the loop."""
        task = asyncio.create_task(self._set(job, wishes, done), name=f"timers of {self._stage}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let go of what is not set; its messages are delivered again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set(self, job: Job, wishes: Sequence[Later], done: PublishDone) -> None:
        try:
            order = (places.era_of(self._created()), job.delivery.sequence)
            # The last word on a name counts; the others keep their numbers all the same.
            chosen: dict[str, tuple[int, Later]] = {}
            for number, wish in enumerate(wishes, places.FIRST):
                chosen[self._slot(job, number, wish)] = (number, wish)
            for _, wish in chosen.values():
                if wish.message is not None:
                    self._check(wish.message)
            await asyncio.gather(
                *(
                    self._one(job, slot, number, wish, order)
                    for slot, (number, wish) in chosen.items()
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the message fails by it
            done(error, False)
        else:
            done(None, False)

    def _check(self, message: Message) -> None:
        """A timer of a type that the stage did not declare is one that nobody knows of."""
        kind = type(message)
        if not self._emitter.writes(kind):
            raise TypeError(
                f"stage {self._stage} sets a timer of {kind.__name__}, which it does not declare: "
                f"say so with @app.stage(later={kind.__name__})"
            )

    def _slot(self, job: Job, number: int, wish: Later) -> str:
        if wish.name is None:
            return self._identity(job, number)
        return places.slot_of(wish.name, self._key_of(job, wish))

    def _key_of(self, job: Job, wish: Later) -> str | None:
        if wish.key is not None or self._key is None:
            return wish.key
        return str(getattr(job.message, self._key))

    def _identity(self, job: Job, number: int) -> str:
        return output_id(job.id, self._stage, None, number)

    async def _one(
        self, job: Job, slot: str, number: int, wish: Later, order: places.Order
    ) -> None:
        """Set one; a server that is away is waited for, as for an output."""
        identity = self._identity(job, number)
        place = places.place(self._app.name, self._stage, slot)
        told = {places.OPERATION: identity, places.ORDER: places.format_order(order)}
        if wish.name is not None:
            told[places.NAME] = wish.name
        if (key := self._key_of(job, wish)) is not None:
            told[places.KEY] = key[:MAX_NAME]
        if wish.message is None:
            end, payload = "cancel", b""
            header = header_block({**told, "Nats-Rollup": "sub"})
        else:
            await self._emitter.prepare([wish.message])
            ((subject, block, payload),) = self._emitter.make(job, [wish.message], number)
            end = f"at.{identity}"
            header = schedule(block, place, self._app.name, subject, wish.due, told)
        while True:
            try:
                await write(
                    self._table,
                    place,
                    end,
                    header,
                    payload,
                    operation=identity,
                    order=order,
                    empty=wish.message is not None,
                )
            except Unavailable as error:
                log.info("a timer waits for NATS", stage=self._stage, reason=str(error))
                await asyncio.sleep(AGAIN)
            else:
                return


def schedule(
    block: bytes, place: str, app: str, subject: bytes, due: float, told: dict[str, str]
) -> bytes:
    """The header block of a message that is to come.

    Args:
        block: that it has as an output; the server leaves its `Nats-Msg-Id` out of what comes, so
            the identity is told as `Mq-Id`.
        place: where it waits.
        app: name of the app.
        subject: that it comes on.
        due: when, in seconds since the epoch.
        told: of the timer, for whoever looks at it.
    """
    at = places.moment(due)
    target = f"{place}.fired.{subject.decode().removeprefix(f'{app}.')}"
    lines = "".join(
        header_line(name, value)
        for name, value in {
            **told,
            places.DUE: at,
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": target,
            "Nats-TTL": "never",
        }.items()
    )
    named = block.replace(f"{MSG_ID}: ".encode(), f"{IDENTITY}: ".encode(), 1)
    return named[:-2] + lines.encode("utf-8", "replace") + b"\r\n"
