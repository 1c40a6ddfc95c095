"""Addresses: the servers that URLs stand for; a name with several addresses is several servers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

# A resolver that hangs must not hold up calls for longer, in seconds.
_TIMEOUT = 5.0


class Addresses:
    """The servers that some URLs stand for, asked of DNS again at every look.

    Args:
        urls: host:port or scheme://host:port each.
    """

    def __init__(self, urls: Sequence[str]):
        self._urls = tuple(urls)
        # What each URL stood for when DNS last answered.
        self._known: dict[str, list[str]] = {}

    @property
    def fixed(self) -> bool:
        """Whether none of them is a name, so that one look is enough."""
        return all(_is_address(url) for url in self._urls)

    async def look(self) -> dict[str, str | None]:
        """The URL of each server, with the name that it was found under.

        The name is None for a URL that stands for one server, which stays as it was written. What
        DNS does not answer now stays as it was last known.
        """
        found: dict[str, str | None] = {}
        for url in self._urls:
            if not _is_address(url):
                # Whoever connects to a name that is not known is told why.
                with contextlib.suppress(OSError, TimeoutError):
                    self._known[url] = await _resolved(url)
            several = self._known.get(url, [])
            if len(several) > 1:
                found.update(dict.fromkeys(several, _split(url)[1]))
            else:
                found[url] = None
        return found


def is_host_and_port(address: str) -> bool:
    """Whether it can be an address; the port may be left out."""
    try:
        return bool(_split(address)[1])
    except ValueError:
        return False


async def _resolved(url: str) -> list[str]:
    """The same URL for each address of its host; of one family, since both lead to one server."""
    scheme, host, port = _split(url)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_TIMEOUT):
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family = {
        family: sorted({str(where[0]) for kind, *_, where in answers if kind == family})
        for family in (socket.AF_INET, socket.AF_INET6)
    }
    hosts = max(by_family.values(), key=len)
    return [f"{scheme}{f'[{one}]' if ':' in one else one}:{port}" for one in hosts]


def _is_address(url: str) -> bool:
    try:
        ipaddress.ip_address(_split(url)[1])
    except ValueError:
        return False
    return True


def _split(url: str) -> tuple[str, str, int | None]:
    """Scheme with its `://` (or nothing), host and port."""
    scheme, mark, _ = url.rpartition("://")
    parts = urlsplit(url if mark else f"//{url}")
    return f"{scheme}{mark}", parts.hostname or "", parts.port
