"""Suspects: messages that may have killed their worker are found by halving, and counted.

When a process dies, everything it had in flight is delivered again: the message that killed it
and its innocent neighbours look the same to the server. So a message of which two deliveries ended
without a word (see `ledger`) goes through the `lane`, and is marked in the state bucket *before*
the handler runs: with the group it is at work in, and how wide that may be. When the handler ends
in any way the mark goes. A mark that is found again tells of a death, and how many were at work
then: the next time half as many may be, at last none beside it. Only a message that was alone in
the lane at `attempts` deaths is dead-lettered as `killed`.

What is no suspect goes on beside the lane. A message that kills as it comes for the first time may
so be the death of one that is alone; but twice at most, for then it is suspect itself, and so one
death more than that is asked for.

Records live under `<consumer>.suspect.<sequence>` (marks) and `group.<name>` (how many were at work
at once in one process), for as long as messages do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from mqinfer.backoff import Attempts, Backoff
from mqinfer.bucket import change
from mqinfer.errors import MqinferError
from mqinfer.flow.lane import WIDE, Lane, Room, Suspect

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.flow.job import Job
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

T = TypeVar("T")

# A single death is an everyday event (a deploy, an eviction); twice is a pattern.
PLAIN_ATTEMPTS = 2
FORGIVE = 5.0  # seconds that taking marks back may hold up a stop
WAIT = Backoff(initial=0.5, maximum=5.0)  # while the bucket cannot be read or written


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a suspect that began.

    Attributes:
        group: in which it is at work; empty when it has ended.
        width: the most that may be at work when it is.
        alone: deaths before this beginning at which it alone was at work.
    """

    group: str = ""
    width: int = WIDE
    alone: int = 0


CLEAR = Mark()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Mark).decode


class Suspects:
    """The suspects of one stage in one process.

    Args:
        consumer: whose messages they are.
        bucket: where marks are kept, shared by all workers.
        limits: attempts.
        lane: of all stages of the process.
        handlers: messages that the stage's handlers take at once.
    """

    def __init__(
        self, consumer: str, *, bucket: Bucket, limits: Limits, lane: Lane, handlers: int = 1
    ):
        self.lane = lane
        self._consumer = consumer
        self._bucket = bucket
        self._plain = min(PLAIN_ATTEMPTS, limits.attempts)
        self._enough = max(limits.attempts, self._plain + 1)
        self._room = Room(handlers)
        self._aside: dict[Job, Suspect] = {}
        self._turns: dict[Job, Suspect] = {}

    @property
    def aside(self) -> int:
        """Suspects that wait for their turn, and for no handler yet."""
        return len(self._aside)

    def suspects(self, job: Job) -> bool:
        """Whether the message must go through the lane."""
        return job.past.unexplained >= self._plain

    async def weigh(self, job: Job, let_in: Callable[[Job], None]) -> Suspect | None:
        """Find out how many may be at work beside a suspect.

        Args:
            job: the suspect.
            let_in: called when its turn has come.

        Returns:
            None if it was alone when its worker died, and that often enough.
        """
        mark = await self._read(self._key(job), _decode) or CLEAR
        width, alone = mark.width, mark.alone
        if mark.group:  # it began, and never ended
            most = await self._read(f"group.{mark.group}", int)
            together = min(width, WIDE if most is None else most)
            alone += together == 1
            width = max(1, together // 2)
        if min(alone, job.past.unexplained - self._plain) >= self._enough:
            return None

        def turn(suspect: Suspect) -> None:
            self._turns[job] = self._aside.pop(job)
            let_in(suspect.job)

        return Suspect(job, width, alone, self._room, turn)

    def wait(self, suspect: Suspect) -> None:
        """Put a suspect aside until its turn comes, which may be now."""
        self._aside[suspect.job] = suspect
        self.lane.enter(suspect)

    def turns(self, jobs: Sequence[Job]) -> list[Suspect]:
        """Those of `jobs` whose turn has come; whoever asks handles them."""
        return [suspect for job in jobs if (suspect := self._turns.pop(job, None))]

    def give_up(self) -> list[Job]:
        """Let go of all that have not begun, for a stop; gives those that were put aside."""
        aside = list(self._aside)
        for waiting in (self._aside, self._turns):
            while waiting:
                self.lane.leave(waiting.popitem()[1])
        return aside

    async def begin(self, suspects: Sequence[Suspect]) -> None:
        """Mark that their handler begins."""
        lane = self.lane
        async with lane.telling:
            if lane.told < lane.most:
                most = lane.most
                await self._change(f"group.{lane.group}", lambda _: b"%d" % most)
                lane.told = most
        await asyncio.gather(*(self._mark(one) for one in suspects))

    async def ended(self, suspects: Sequence[Suspect]) -> None:
        """Their handler ended in some way, a stop included: they are as good as new.

        Where another worker began with one meanwhile, its mark stays.
        """
        group = self.lane.group

        def cleared(value: bytes | None) -> bytes | None:
            mark = _decode(value) if value else CLEAR
            return None if mark.group in ("", group) else _encode(Mark(mark.group))

        try:
            async with asyncio.timeout(FORGIVE):
                keys = [self._key(one.job) for one in suspects]
                await asyncio.gather(*(self._change(key, cleared) for key in keys))
        except TimeoutError:
            pass  # no broker: the marks stay, and count as one death if the messages come back
        finally:
            for one in suspects:
                self.lane.leave(one)

    async def _mark(self, suspect: Suspect) -> None:
        mark = _encode(Mark(self.lane.group, suspect.width, suspect.alone))
        await self._change(self._key(suspect.job), lambda _: mark)

    def _key(self, job: Job) -> str:
        return f"{self._consumer}.suspect.{job.delivery.sequence}"

    async def _read(self, key: str, decode: Callable[[bytes], T]) -> T | None:
        found = await self._despite_outages(key, lambda: self._bucket.load(key))
        return decode(found[0]) if found and found[0] else None

    async def _change(self, key: str, function: Callable[[bytes | None], bytes | None]) -> None:
        what = f"the mark {key}"
        await self._despite_outages(key, lambda: change(self._bucket, key, function, what=what))

    async def _despite_outages(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """Trouble is waited out, for unmarked a suspect may not run."""
        attempts = Attempts(WAIT)
        while True:
            await asyncio.sleep(attempts.next())
            try:
                return await call()
            except MqinferError as error:
                log.warning("a suspect waits for its mark", key=key, reason=str(error))
