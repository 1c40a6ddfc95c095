"""One client: it asks a gateway, and is told the end, whatever becomes of its connections.

It does what anybody's client does: after an error of the connection, or a 503, it comes again, to
whichever gateway, under its key if it has one. All that it was told is kept, to be compared.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .tenants import key_of, other_than, tenant_of
from .wishes import OPEN, Wish

WAIT = 8  # seconds of a long poll
_TIMEOUT = aiohttp.ClientTimeout(total=WAIT + 12, sock_connect=3)
# Of a stream, which says something every 15 seconds.
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=20)
AWAY = frozenset({408, 429, 499, 502, 503, 504})


class Odd(Exception):
    """A gateway said what it must not say."""


@dataclass
class Told:
    """What one client was told.

    Attributes:
        wish: what it asked.
        ids: of requests that it was given; the first is the one that it follows.
        unsure: how often it asked without a key, and does not know whether that was accepted.
        status: the end; "" while it waits.
        answers: of the end.
        errors: of the end.
        heard: ids of the answers that its stream of events told, in their order.
        canceled: what its cancel was told: whether it was canceled; None of no cancel.
        deleted: whether its request was deleted.
        anew: whether it asked for something else under its key then, which it follows since.
        odd: what was as it must not be.
        began: when, in seconds since the epoch.
        ended: when it knew the end.
        lost: connections that were lost, and gateways that were away.
        history: seconds since it began, and what happened.
    """

    wish: Wish
    ids: list[str] = field(default_factory=list)
    unsure: int = 0
    status: str = ""
    answers: Sequence[Mapping[str, Any]] = ()
    errors: Sequence[Mapping[str, str]] = ()
    heard: list[str] = field(default_factory=list)
    canceled: bool | None = None
    deleted: bool = False
    anew: bool = False
    odd: list[str] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    lost: int = 0
    history: list[tuple[float, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something happened."""
        self.history.append((round(time.time() - self.began, 2), text))


class Client:
    """One client.

    Args:
        told: is filled in; holds what is wished.
        http: to speak by.
        gateways: their addresses.
        rng: draws gateways and pauses.
        hook: the address that is told the end, where it wishes that.
    """

    def __init__(
        self,
        told: Told,
        http: aiohttp.ClientSession,
        gateways: Sequence[str],
        rng: random.Random,
        hook: str,
    ):
        self._told = told
        self._wish = told.wish
        self._http = http
        self._gateways = gateways
        self._rng = rng
        self._tenant = tenant_of(told.wish.number)
        self._webhook = {"webhook": {"url": hook}} if told.wish.hook else {}
        self._result: tuple[str, Any] | None = None  # the end as it was told, to be told again

    async def run(self) -> None:
        """Ask, and wait for the end; what is as it must not be is noted."""
        told = self._told
        told.began = time.time()
        try:
            await self._all()
        except Odd as error:
            told.odd.append(str(error))
        told.ended = told.ended or time.time()

    async def _all(self) -> None:
        wish = self._wish
        asked = await self._asked()
        if wish.malformed or wish.way == "leave":
            return
        if wish.delete is not None:
            await asyncio.sleep(wish.delete)
            await self._delete()
            if not (wish.key and not self._told.lost):
                # A call of its own that was lost may be heard yet: it leaves the key alone.
                self._told.status = "deleted"
                return
            asked = await self._ask_anew()
        if wish.cancel is not None:
            await asyncio.sleep(wish.cancel)
            await self._cancel()
        if wish.way == "events":
            await self._follow()
        elif wish.way == "poll":
            await self._poll()
        if not self._end(asked):
            await self._fetch()
        if wish.again:
            first = self._result
            await asyncio.sleep(self._rng.uniform(0.5, 5.0))
            await self._fetch()
            if self._result != first:
                raise Odd(f"its end has changed from {first} to {self._result}")
            who = key_of(other_than(self._tenant))
            status, found, _ = await self._patiently("GET", f"{self._path}/result", who)
            if status != 404:
                raise Odd(f"another tenant asked for it, and was told {status} {found}")

    # --- asking ---------------------------------------------------------------------------------

    async def _asked(self) -> Mapping[str, Any]:
        """Ask, once or twice; what was told of the request."""
        one, *others = await asyncio.gather(*(self._ask() for _ in range(1 + self._wish.twice)))
        for other in others:
            if other.get("id") != one.get("id"):
                raise Odd(f"two requests under one key: {one.get('id')} and {other.get('id')}")
        if self._wish.twice:
            fields = {**self._wish.fields, "n": self._wish.number + 1}
            status, found = await self._post(fields)
            if status != 422:
                raise Odd(f"another request under its key: {status} {found}")
        return one

    async def _ask(self) -> Mapping[str, Any]:
        status, found = await self._post(self._wish.fields)
        if self._wish.malformed:
            pointers = [one.get("pointer") for one in found.get("errors", ())]
            if status != 422 or pointers != ["/input/fan"]:
                raise Odd(f"what is malformed was answered by {status} {found}")
            self._told.status = "malformed"
            return found
        if status not in (200, 202):
            raise Odd(f"asked, and was told {status} {found}")
        if found["id"] not in self._told.ids:
            self._told.ids.append(found["id"])
        return found

    async def _post(self, fields: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        wish = self._wish
        headers = {"idempotency-key": f"client-{wish.number}"} if wish.key else {}
        if wish.way == "sync":
            headers["prefer"] = f"wait={WAIT}"
        path = f"/v1/endpoints/{wish.endpoint}/requests"
        body = {"input": fields, **self._webhook}
        status, found, _ = await self._patiently("POST", path, headers, body)
        return status, found

    async def _ask_anew(self) -> Mapping[str, Any]:
        """Ask for something else under the key of a request that was deleted."""
        status, found = await self._post(self._wish.anew)
        if status not in (200, 202) or found["id"] != self._told.ids[0]:
            raise Odd(f"asked anew under its key, and was told {status} {found}")
        self._told.anew = True
        return found

    # --- waiting --------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return f"/v1/requests/{self._told.ids[0]}"

    async def _cancel(self) -> None:
        status, found, _ = await self._patiently("POST", f"{self._path}/cancel", {})
        if status not in (200, 409):
            raise Odd(f"canceled, and was told {status} {found}")
        self._told.canceled = status == 200

    async def _delete(self) -> None:
        status, found, _ = await self._patiently("DELETE", self._path, {})
        if status != 204 and not (status == 404 and self._told.lost):
            raise Odd(f"deleted, and was told {status} {found}")
        self._told.deleted = True
        if not self._told.lost or not self._wish.key:
            for path in (self._path, f"{self._path}/result", f"{self._path}/events"):
                status, found, _ = await self._patiently("GET", path, {})
                if status != 404:
                    raise Odd(f"deleted, and is still there: {status} {found}")

    async def _poll(self) -> None:
        """Wait for the end by long polls of how it stands."""
        headers = {"prefer": f"wait={WAIT}"}
        while True:
            status, found, etag = await self._patiently("GET", self._path, headers)
            if status == 304:
                continue
            if status != 200:
                raise Odd(f"asked how it stands, and was told {status} {found}")
            if found["status"] not in OPEN:
                return
            headers["if-none-match"] = etag

    async def _fetch(self) -> None:
        """Wait for the result."""
        while True:
            headers = {"prefer": f"wait={WAIT}"}
            status, found, _ = await self._patiently("GET", f"{self._path}/result", headers)
            if status not in (200, 202):
                raise Odd(f"asked for the result, and was told {status} {found}")
            if self._end(found):
                return

    def _end(self, found: Mapping[str, Any]) -> bool:
        """Keep the end, if this says one."""
        if found["status"] in OPEN or "answers" not in found:
            return False
        told = self._told
        told.ended = told.ended or time.time()
        told.status, told.errors = found["status"], found["errors"]
        told.answers = [one["data"] for one in found["answers"]]
        self._result = told.status, (found["answers"], found["errors"])
        ids = [one["id"] for one in found["answers"]]
        settled = told.status in ("succeeded", "partial", "failed")
        if self._wish.way == "events" and settled and sorted(ids) != sorted(told.heard):
            raise Odd(f"its stream told {told.heard}, and its end {ids}")
        return True

    # --- a stream of events ---------------------------------------------------------------------

    async def _follow(self) -> None:
        """Hear events to the end, going on elsewhere behind the last one."""
        last, heard_end = "", False
        while not heard_end:
            gateway = self._gateway()
            headers = {**key_of(self._tenant), **({"last-event-id": last} if last else {})}
            # Some turn away in the middle, and come again.
            leaves = self._rng.randint(1, 6) if self._rng.random() < 0.3 else 0
            try:
                async with aclosing(self._events(gateway, headers)) as events:
                    async for kind, identity, data in events:
                        last = identity or last
                        if kind == "answer":
                            self._hear(data["id"])
                        heard_end = kind == "end"
                        leaves -= 1
                        if heard_end or not leaves:
                            break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await self._pause(gateway, f"stream: {error!r}")
            self._told.note(f"{gateway} stream, to {last or 'nothing'}")
            if not heard_end:
                await asyncio.sleep(self._rng.uniform(0.0, 0.2))
        self._told.ended = time.time()
        status, found, _ = await self._patiently(
            "GET", f"{self._path}/events", {"last-event-id": last}
        )
        if status != 204:
            raise Odd(f"came again after the end, and was told {status} {found}")

    def _hear(self, identity: str) -> None:
        if identity in self._told.heard:
            raise Odd(f"its stream told the answer {identity} twice")
        self._told.heard.append(identity)

    async def _events(
        self, gateway: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[tuple[str, str, Any]]:
        """Kind, id and data of the events of one connection (WHATWG HTML, 9.2.6)."""
        url = f"{gateway}{self._path}/events"
        async with self._http.get(url, headers=headers, timeout=_STREAM) as answer:
            if answer.status in AWAY:
                await self._pause(gateway, f"stream: {answer.status}")
                return
            if answer.status != 200:
                raise Odd(f"asked for events, and was told {answer.status} {await answer.text()}")
            event: dict[str, str] = {}
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(":")
                if name:
                    event[name] = value.removeprefix(" ")
                elif line == b"\n":
                    if "data" in event:
                        data = json.loads(event["data"])
                        yield event.get("event", "message"), event.get("id", ""), data
                    event = {}

    # --- one call -------------------------------------------------------------------------------

    def _gateway(self) -> str:
        return self._rng.choice(self._gateways)

    async def _pause(self, gateway: str, why: str, seconds: float = 0.0) -> None:
        self._told.lost += 1
        self._told.note(f"{gateway} {why}")
        await asyncio.sleep(min(seconds, 3.0) + self._rng.uniform(0.05, 0.6))

    async def _patiently(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> tuple[int, Any, str]:
        """Status, body and tag of an answer, asked for until there is one."""
        asks = body is not None and not self._wish.key
        headers = {**key_of(self._tenant), **headers}
        while True:
            gateway = self._gateway()
            try:
                async with self._http.request(
                    method, gateway + path, headers=headers, json=body, timeout=_TIMEOUT
                ) as answer:
                    text = await answer.text()
                    status, etag = answer.status, answer.headers.get("etag", "")
                    later = answer.headers.get("retry-after", "0")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                refused = isinstance(error, aiohttp.ClientConnectorError)
                self._told.unsure += asks and not refused
                await self._pause(gateway, f"{method} {path[-40:]}: {error!r}")
                continue
            if status in AWAY:
                # A 503 may come after the request was kept, and a 429 comes before.
                self._told.unsure += asks and status != 429
                why = f"{method} {path[-40:]}: {status} {text[:200]}"
                await self._pause(gateway, why, float(later))
                continue
            found: Any = {}
            with suppress(ValueError):
                found = json.loads(text)
            told = found.get("status", found.get("detail", ""))
            self._told.note(f"{gateway} {method} {path[-40:]}: {status} {told}")
            return status, found, etag
