"""People who ask by HTTP, as any program can: an id at once, then told what comes of it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE = 300.0  # seconds that somebody waits for an answer, at the very most


@dataclass(slots=True)
class Told:
    """What one of them was told; times in seconds from when they first asked.

    Attributes:
        codes: what HTTP answered to asking, each time.
        retry_after: seconds that they were told to wait, each time they had to.
        id: of the request.
        accepted: from the last time they asked to the id.
        first: to the first answer.
        end: to the end.
        status: at the end.
        progress: how many times they heard how far it is.
        answers: by their types.
        errors: at the end.
    """

    codes: list[int] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    id: str = ""
    accepted: float = 0.0
    first: float = 0.0
    end: float = 0.0
    status: str = ""
    progress: int = 0
    answers: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)


class Person:
    """Somebody with a connection of their own.

    Args:
        url: of the gateway.
    """

    def __init__(self, url: str):
        self._url = url

    async def look(self, picture: bytes, name: str, told: Told | None = None) -> Told:
        """Have a picture looked at, and stay until the end.

        Args:
            picture: JPEG or PNG.
            name: of the file.
            told: is filled as it goes on.
        """
        files = {"picture": (name, picture, "image/jpeg")}
        return await self._ask("look", told or Told(), files=files)

    async def factorial(self, n: int, told: Told | None = None) -> Told:
        """Have a factorial worked out, and stay until the end."""
        return await self._ask("factorial", told or Told(), json={"input": {"n": n}})

    async def _ask(self, endpoint: str, told: Told, **body: Any) -> Told:
        async with asyncio.timeout(PATIENCE), self._connected() as http:
            began = time.monotonic()
            while True:
                asked = time.monotonic()
                answer = await http.post(f"/v1/endpoints/{endpoint}/requests", **body)
                told.codes.append(answer.status_code)
                if answer.status_code != 429:
                    break
                told.retry_after.append(int(answer.headers["retry-after"]))
                await asyncio.sleep(told.retry_after[-1])
            told.accepted = time.monotonic() - asked
            if answer.status_code != 202:
                told.status = f"refused: {answer.json().get('detail', '')}"
                return told
            links = answer.json()["links"]
            told.id = answer.json()["id"]
            await self._follow(http, links["events"], told, began)
            return told

    async def _follow(self, http: httpx.AsyncClient, where: str, told: Told, began: float) -> None:
        """Hear all events; where the stream breaks, go on behind the last one."""
        last = ""
        while not told.status:
            headers = {"last-event-id": last} if last else {}
            try:
                async with http.stream("GET", where, headers=headers) as stream:
                    if stream.status_code == 404:
                        told.status = "forgotten"
                    stream.raise_for_status()
                    event = ""
                    async for line in stream.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last = value
                        elif name == "event":
                            event = value
                        elif name == "data":
                            _heard(told, event, json.loads(value), time.monotonic() - began)
            except httpx.HTTPError:
                await asyncio.sleep(0.5)

    async def status(self, identity: str) -> int:
        """What HTTP answers to who asks how a request stands."""
        async with self._connected() as http:
            return (await http.get(f"/v1/requests/{identity}")).status_code

    async def cancel(self, identity: str) -> int:
        """What HTTP answers to who cancels."""
        async with self._connected() as http:
            return (await http.post(f"/v1/requests/{identity}/cancel")).status_code

    def _connected(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=30.0, trust_env=False)


def _heard(told: Told, event: str, data: dict[str, Any], seconds: float) -> None:
    if event == "progress":
        told.progress += 1
    elif event == "answer":
        told.first = told.first or seconds
        told.answers[data["type"]] = data["data"]
    elif event == "end":
        told.end, told.status, told.errors = seconds, data["status"], data["errors"]
