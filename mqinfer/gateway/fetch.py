"""Fetch: a file from an address that a client names, where the operator allows its host.

Hosts are on a list; each name is resolved once; no redirect is followed; addresses inside of our
own network are refused; and what comes is bounded in bytes and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mqinfer.errors import MqinferError
from mqinfer.gateway.addresses import refusal, resolver

if TYPE_CHECKING:
    from aiohttp import ClientSession

TIMEOUT = 20.0  # seconds for all of it


class NotFetched(MqinferError):
    """An address that may not be fetched from, or does not give its file."""


class Fetch:
    """Fetches files; an async context manager makes it.

    Args:
        session: whose resolver refuses addresses that are not public.
        hosts: that may be fetched from; `*.example.org` are all below example.org.
        limit: bytes of one file.
        private: whether private addresses may be fetched from.
    """

    def __init__(
        self, session: ClientSession, hosts: Collection[str], limit: int, *, private: bool
    ):
        self._session = session
        self._hosts = [host.lower() for host in hosts]
        self._limit = limit
        self._private = private

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, hosts: Collection[str], limit: int, *, private: bool = False
    ) -> AsyncIterator[Fetch]:
        """Open connections; see the class."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=5.0)
        connector = aiohttp.TCPConnector(
            resolver=resolver(private=private), limit=32, use_dns_cache=False
        )
        # No environment: a proxy would resolve the name itself, and to whatever it likes.
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            yield cls(session, hosts, limit, private=private)

    async def get(self, url: str) -> bytes:
        """The file at an address.

        Raises:
            NotFetched: and why not.
        """
        import aiohttp

        host = self._allowed(url)
        try:
            async with self._session.get(
                url, allow_redirects=False, headers={"accept-encoding": "identity"}
            ) as answer:
                if answer.status != 200:
                    raise NotFetched(f"{host} answers {answer.status}, and not with a file")
                if (answer.content_length or 0) > self._limit:
                    raise NotFetched(self._too_large(host))
                found = bytearray()
                async for chunk in answer.content.iter_any():
                    found += chunk
                    if len(found) > self._limit:
                        raise NotFetched(self._too_large(host))
                return bytes(found)
        except TimeoutError:
            raise NotFetched(f"{host} does not give the file within {TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError):
            # Of an address inside the text would say what our network looks like.
            raise NotFetched(f"{host} does not give the file") from None

    def _too_large(self, host: str) -> str:
        return f"the file at {host} is larger than the {self._limit:,} bytes that are taken here"

    def _allowed(self, url: str) -> str:
        """The host of an address that may be fetched from.

        Raises:
            NotFetched: it may not.
        """
        if (why := refusal(url, private=self._private)) is not None:
            raise NotFetched(why)
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.port not in (None, 443) and not self._private:
            raise NotFetched("an address has no port of its own")
        if not any(
            host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in self._hosts
        ):
            raise NotFetched(f"{host} is not among the hosts that this server fetches from")
        return host
