"""Spread: several inference servers used as one; each request goes to the one with the least to do.

Keeps promise 3 where a model has several servers: one that dies is left out, what it had goes to
the others, and it is taken back when it answers. All of them count as down only when each is. A
model that only some of them have is asked for there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from mqinfer.backoff import Attempts, Backoff
from mqinfer.errors import (
    ConfigurationError,
    ModelError,
    ModelUnavailable,
    MqinferError,
    Unavailable,
)
from mqinfer.inference.calls import ModelDied, ServerLost
from mqinfer.ports import InferenceServer, ModelInfo, ModelReply, ModelVersion

if TYPE_CHECKING:
    from mqinfer.model import Array

log = structlog.get_logger("mqinfer.inference")

# Looks for a server that does not answer.
_PROBES = Backoff(initial=0.1, maximum=1.0)
# A probe that hangs is no answer; an adapter's own timeouts are shorter.
_PROBE_SECONDS = 10.0
# Rests of a server for a model whose process died there, which the server may not notice.
_RESTS = Backoff(initial=1.0, maximum=60.0)
# Seconds between two looks at what names stand for.
_LOOK_AGAIN = 30.0

Wanted = tuple[str, str | None]  # a model and its version; None is the latest


class OneServer(InferenceServer, Protocol):
    """What is asked of each server."""

    async def versions(self) -> list[ModelVersion]:
        """What is in its model repository."""


class Spread:
    """Several inference servers as one.

    The latest version of a model is the latest that any of them serves: those that have it answer,
    and the others follow when they have it, too.

    Args:
        look: gives the address of each server, and the name it was found under or None.
        connect: makes the client of one server from those.
        fixed: whether one look is enough.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Mapping[str, str | None]]],
        connect: Callable[[str, str | None], OneServer],
        *,
        fixed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._look = look
        self._connect = connect
        self._fixed = fixed
        self._clock = clock
        self._members: dict[str, _Member] = {}
        self._looked: float | None = None
        self._looking = asyncio.Lock()
        self._wanted: set[Wanted] = set()
        # Answers and returns of servers.
        self._signs = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def servers(self) -> dict[str, OneServer]:
        """The client of each server by its address."""
        await self._find()
        return {address: member.server for address, member in self._members.items()}

    async def ready(self) -> None:
        """Return once one of them is ready.

        Raises:
            Unavailable: none is; the text says why of each.
        """
        await self._find()
        asked = [asyncio.ensure_future(self._probe(one)) for one in self._members.values()]
        try:
            for answer in asyncio.as_completed(asked):
                if await answer:
                    return
        finally:
            for task in asked:
                task.cancel()
        raise self._all_down()

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        """The model's metadata, of a server with the latest version.

        Raises:
            ModelUnavailable: no server that answers has it.
            Unavailable: none answers.
            MqinferError: what one of them says of it cannot be used, and no other has it.
        """
        await self._find()
        wanted = (model, version)
        self._wanted.add(wanted)
        found = await asyncio.gather(*(self._learn(one, wanted) for one in self._up()))
        able = self._able(wanted)
        if able:
            return able[0].infos[wanted]
        for error in found:
            if error is not None and not _is_outage(error):
                raise error
        raise self._all_down()

    async def versions(self) -> list[ModelVersion]:
        """What is in the repositories of those that answer; ready is what is ready on one of them.

        Raises:
            Unavailable: none answers.
        """
        await self._find()
        found: dict[tuple[str, str], ModelVersion] = {}
        answers = await asyncio.gather(*(self._versions(one) for one in self._up()))
        if all(answer is None for answer in answers):
            raise self._all_down()
        for one in (version for answer in answers for version in answer or ()):
            if one.ready or (one.model, one.version) not in found:
                found[one.model, one.version] = one
        return list(found.values())

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Array], *, timeout: float | None
    ) -> ModelReply:
        """Run one request on the server with the fewest under way.

        Raises:
            ModelError: the server refused this request for what is in it.
            ServerLost: no answer came, and others can answer.
            ModelUnavailable: the model is not ready anywhere.
            Unavailable: no server answers.
        """
        wanted = (model, version)
        asked_again = False
        while True:
            member = await self._choose(wanted)
            try:
                with self._work(member):
                    reply = await member.server.infer(model, version, inputs, timeout=timeout)
            except Unavailable as error:
                asked_again = await self._missed(member, wanted, error, asked_again)
            else:
                self._answered(member, wanted)
                return reply

    async def stream(
        self, model: str, version: str | None, inputs: Mapping[str, Array]
    ) -> AsyncGenerator[ModelReply]:
        """Run one request with any number of replies on the server with the fewest under way.

        Raises:
            ModelError: as `infer`; so for the others.
            ServerLost: no answer came, or no more, and others can answer.
            ModelUnavailable: the model is not ready anywhere.
            Unavailable: no server answers.
        """
        wanted = (model, version)
        asked_again = begun = False
        while True:
            member = await self._choose(wanted)
            try:
                with self._work(member):
                    async with aclosing(member.server.stream(model, version, inputs)) as replies:
                        async for reply in replies:
                            begun = True
                            yield reply
            except Unavailable as error:
                asked_again = await self._missed(member, wanted, error, asked_again)
                if begun:
                    raise
            else:
                self._answered(member, wanted)
                return

    async def reload(self, model: str) -> None:
        """Load a model anew on each server where its process died.

        Raises:
            ConfigurationError: none of them allows it.
            ModelError: it loads on none.
            Unavailable: none answers.
        """
        await self._find()
        died = [one for one in self._up() if any(name == model for name, _ in one.rests)]
        errors: list[MqinferError] = []
        members = died or self._up()
        for member in members:
            try:
                await member.server.reload(model)
            except (ConfigurationError, ModelError, Unavailable) as error:
                errors.append(error)
            else:
                member.rests = {key: rest for key, rest in member.rests.items() if key[0] != model}
        if len(errors) == len(members):
            raise errors[0] if errors else self._all_down()

    async def close(self) -> None:
        """End every task and release the connections."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(member.server.close() for member in self._members.values()))

    def __repr__(self) -> str:
        return f"Spread({', '.join(map(repr, self._members.values())) or 'not looked yet'})"

    # --- which there are ------------------------------------------------------------------------

    async def _find(self) -> None:
        """Know the servers; names are looked up again now and then, behind the calls."""
        if self._looked is None:
            async with self._looking:
                if self._looked is None:
                    await self._take()
        elif not self._fixed and self._clock() - self._looked > _LOOK_AGAIN:
            self._looked = self._clock()
            self._spawn(self._take())

    async def _take(self) -> None:
        found = await self._look()
        self._looked = self._clock()
        for address, name in found.items():
            if address not in self._members:
                member = self._members[address] = _Member(address, self._connect(address, name))
                # Those that are there already have been described: this one is to catch up.
                for wanted in self._wanted:
                    self._spawn(self._learn_new(member, wanted))
        for address in self._members.keys() - found.keys():
            log.info("triton server is gone from its name", address=address)
            member = self._members.pop(address)
            member.gone = True
            self._close_if_idle(member)

    async def _learn_new(self, member: _Member, wanted: Wanted) -> None:
        await self._learn(member, wanted)

    def _close_if_idle(self, member: _Member) -> None:
        if member.gone and not member.under_way:
            self._spawn(member.server.close())

    # --- which can answer -----------------------------------------------------------------------

    def _up(self) -> list[_Member]:
        return [member for member in self._members.values() if member.reason is None]

    def _able(self, wanted: Wanted) -> list[_Member]:
        """Those that can answer now, all in the same way: with the latest version of any."""
        now = self._clock()
        able = [one for one in self._up() if wanted in one.infos]
        # Where the model died on each of them, whoever is asked first may have it again.
        able = [one for one in able if one.rested(wanted, now)] or able
        if len(able) < 2:
            return able
        newest = _face(max((one.infos[wanted] for one in able), key=_age), wanted)
        return [one for one in able if _face(one.infos[wanted], wanted) == newest]

    async def _choose(self, wanted: Wanted) -> _Member:
        if wanted not in self._wanted or not self._able(wanted):
            await self.describe(*wanted)
        else:
            await self._find()
        able = self._able(wanted)
        if not able:
            raise self._all_down()
        least = min(member.under_way for member in able)
        return random.choice([one for one in able if one.under_way == least])

    @contextmanager
    def _work(self, member: _Member) -> Iterator[None]:
        member.under_way += 1
        try:
            yield
        finally:
            member.under_way -= 1
            self._close_if_idle(member)

    async def _learn(self, member: _Member, wanted: Wanted) -> MqinferError | None:
        """Ask one of them for a model's metadata."""
        try:
            member.infos[wanted] = await member.server.describe(*wanted)
        except MqinferError as error:
            member.infos.pop(wanted, None)
            if _is_outage(error):
                self._down(member, str(error))
            return error
        return None

    async def _versions(self, member: _Member) -> list[ModelVersion] | None:
        try:
            return await member.server.versions()
        except Unavailable as error:
            self._down(member, str(error))
            return None

    def _answered(self, member: _Member, wanted: Wanted) -> None:
        member.rests.pop(wanted, None)
        member.attempts.reset()
        self._signs += 1

    # --- one that does not answer ---------------------------------------------------------------

    async def _missed(
        self, member: _Member, wanted: Wanted, error: Unavailable, asked_again: bool
    ) -> bool:
        """A request had no answer: raises what that means, or returns when it may go elsewhere."""
        if isinstance(error, ModelDied):
            self._rest(member, wanted)
            raise self._lost(wanted, error) from None
        if not isinstance(error, ModelUnavailable):
            self._down(member, str(error))
            raise self._lost(wanted, error) from None
        # It was not run: it may go elsewhere as it is.
        member.infos.pop(wanted, None)
        if self._able(wanted):
            return asked_again
        if asked_again:
            raise error
        await self.describe(*wanted)
        return True

    def _lost(self, wanted: Wanted, error: Unavailable) -> Unavailable:
        """What a request without an answer ends in: the others, if there are, answer it."""
        if self._able(wanted):
            return ServerLost(str(error), self._signs)
        return error if self._up() else self._all_down()

    def _all_down(self) -> Unavailable:
        reasons = [one.reason for one in self._members.values() if one.reason is not None]
        return Unavailable("; ".join(reasons) or "no triton server answers")

    def _rest(self, member: _Member, wanted: Wanted) -> None:
        """Leave a server out for a model that died there; it may call the model ready meanwhile."""
        attempts, _ = member.rests.get(wanted) or (Attempts(_RESTS), 0.0)
        attempts.count += 1
        member.rests[wanted] = (attempts, self._clock() + _RESTS.delay(attempts.count))

    def _down(self, member: _Member, reason: str) -> None:
        if member.reason is None:
            log.warning("triton server is left out", address=member.address, reason=reason)
            self._spawn(self._take_back(member))
        member.reason = reason

    async def _take_back(self, member: _Member) -> None:
        while member.reason is not None and not member.gone:
            await asyncio.sleep(member.attempts.next())
            await self._probe(member)

    async def _probe(self, member: _Member) -> bool:
        """Ask one of them whether it is ready; takes it back if it is."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await member.server.ready()
                if member.reason is None:
                    return True
                # It may serve others than before.
                for error in [await self._learn(member, one) for one in tuple(self._wanted)]:
                    if error is not None and _is_outage(error):
                        return False
        except MqinferError as error:
            self._down(member, str(error))
            return False
        except TimeoutError:
            self._down(member, f"it does not say whether it is ready in {_PROBE_SECONDS:g} s")
            return False
        if member.reason is not None:
            member.reason = None
            member.rests.clear()
            self._signs += 1
            log.info("triton server is back", address=member.address)
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="triton servers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Member:
    """One server as it is now."""

    __slots__ = ("address", "attempts", "gone", "infos", "reason", "rests", "server", "under_way")

    def __init__(self, address: str, server: OneServer):
        self.address = address
        self.server = server
        self.under_way = 0
        # Why it does not answer; None while it does.
        self.reason: str | None = None
        self.gone = False
        # To reach it since it last answered a request: one that is ready and answers none is tried
        # less and less often.
        self.attempts = Attempts(_PROBES)
        self.infos: dict[Wanted, ModelInfo] = {}
        # Models that died here: until when it is left out for each.
        self.rests: dict[Wanted, tuple[Attempts, float]] = {}

    def rested(self, wanted: Wanted, now: float) -> bool:
        rest = self.rests.get(wanted)
        return rest is None or now >= rest[1]

    def __repr__(self) -> str:
        return f"{self.address}: {self.reason or f'{self.under_way} under way'}"


def _is_outage(error: MqinferError) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, ModelUnavailable)


def _age(info: ModelInfo) -> tuple[int, str]:
    latest = info.versions[-1] if info.versions else ""
    return (int(latest) if latest.isdigit() else -1, latest)


def _face(info: ModelInfo, wanted: Wanted) -> object:
    """What servers must have in common for calls to go to either: a call is checked only once."""
    latest = info.versions[-1:] if wanted[1] is None else ()
    return replace(info, versions=latest, instances=0)
