"""Asking: somebody who searches without a pause, and keeps account of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np

from examples.search.app import Found, pictures
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from examples.search.truth import Floats
    from mqinfer import Client

Versioned = Mapping[tuple[str, str], "Floats"]
"""Vectors of the same pictures, by model and version."""


@dataclass
class Account:
    """What came of searches.

    Attributes:
        seconds: of each that was answered.
        failed: why others were not.
        missing: how many lacked a shard.
        versions: of the models, by which the queries were embedded.
        elapsed: seconds in all.
    """

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: int = 0
    versions: dict[str, set[str]] = field(default_factory=dict)
    elapsed: float = 0.0

    def text(self) -> str:
        """As people read it."""
        if not self.seconds:
            return "no search was answered"
        p50, p99 = (1000 * float(np.quantile(self.seconds, part)) for part in (0.5, 0.99))
        rate = len(self.seconds) / max(self.elapsed, 1e-9)
        count = f"{len(self.seconds):,} searches, {rate:.0f} a second"
        return f"{count}: p50 {p50:.1f} ms, p99 {p99:.1f} ms"

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return {
            "searches": len(self.seconds),
            "a_second": len(self.seconds) / max(self.elapsed, 1e-9),
            "p50_ms": 1000 * float(np.quantile(self.seconds, 0.5)) if self.seconds else None,
            "p99_ms": 1000 * float(np.quantile(self.seconds, 0.99)) if self.seconds else None,
            "failed": self.failed[:5],
            "missing": self.missing,
        }


@asynccontextmanager
async def asking(
    client: Client, queries: Versioned, *, at_once: int = 1, pause: float = 0.0
) -> AsyncIterator[Account]:
    """Search by both models, again and again, while inside.

    Each query goes to the generations that are searched when it is embedded, and pins them: that is
    what lets a version be rolled out meanwhile.

    Args:
        client: of the app.
        queries: vectors, of all versions that may be searched.
        at_once: searches at a time.
        pause: seconds after each.
    """
    account, begun = Account(), time.monotonic()
    count = len(next(iter(queries.values())))
    turns = itertools.count()

    async def ask() -> None:
        while True:
            place = next(turns) % count
            began = time.monotonic()
            try:
                vectors, pinned = {}, {}
                for model in pictures.models:
                    one = await client.generation(pictures, model)
                    version = one.version or "1"
                    account.versions.setdefault(model, set()).add(version)
                    vectors[model], pinned[model] = queries[model, version][place], one.number
                hits = await client.search(pictures, vectors, 10, generations=pinned)
            except MqinferError as error:
                account.failed.append(str(error))
            else:
                account.seconds.append(time.monotonic() - began)
                account.missing += not hits.complete
            await asyncio.sleep(pause)

    tasks = [asyncio.create_task(ask()) for _ in range(at_once)]
    try:
        yield account
    finally:
        account.elapsed = time.monotonic() - begun
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Visitor:
    """Somebody who asks by HTTP, as the page does.

    Args:
        url: of the gateway.
    """

    def __init__(self, url: str):
        self._http = httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False)

    async def ask(
        self, endpoint: str, picture: bytes | None = None, **given: Any
    ) -> dict[str, Any]:
        """The answers, by type.

        Raises:
            AssertionError: there are none; with what was said.
        """
        where = f"/v1/endpoints/{endpoint}/requests"
        wait = {"prefer": "wait=30"}
        if picture is None:
            answer = await self._http.post(where, json={"input": given}, headers=wait)
        else:
            answer = await self._http.post(
                where,
                files={"picture": ("picture.png", picture, "image/png")},
                data={"input": json.dumps(given)},
                headers=wait,
            )
        told = answer.json()
        for _ in range(4):
            if answer.status_code != 202:
                break
            answer = await self._http.get(told["links"]["result"], headers=wait)
            told = answer.json()
        assert told.get("status") == "succeeded", f"{endpoint}: HTTP {answer.status_code}: {told}"
        return {one["type"]: one["data"] for one in told["answers"]}

    async def similar(self, picture: bytes, **given: Any) -> Found:
        """What is like a picture.

        Raises:
            AssertionError: nothing is said, or something is not shown.
        """
        told = (await self.ask("similar", picture, **given))["found"]
        found = msgspec.convert(told, Found, strict=False)
        every = [one for near in (found.merged, *found.by_model.values()) for one in near]
        assert all(found.thumbs.get(one.picture_id) for one in every), "a picture is not shown"
        return found

    async def close(self) -> None:
        """Let the connection go."""
        await self._http.aclose()


async def embedded(
    files: Sequence[bytes], versions: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Floats]:
    """What versions of models say of pictures, asked in this process, in which a client is open."""
    from examples.search.app import SIDE
    from mqinfer import Model
    from mqinfer.image import decode

    pixels = [decode(data, name="query", size=(SIDE, SIDE)) for data in files]
    found = {}
    for model, version in versions:
        called = Model(model, version=version)
        answers = await asyncio.gather(*(called(image=one) for one in pixels))
        found[model, version] = np.vstack([one["embedding"] for one in answers])
    return found
