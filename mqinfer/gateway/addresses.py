"""Addresses: what may be connected to on a client's behalf; nothing inside of our own network is.

A name is resolved once, all of its addresses are looked at, and the connection goes to one of
those: a name that resolves to something else a moment later (DNS rebinding) leads nowhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

_TIMEOUT = 5.0
_PLAIN = re.compile(r"[!-\[\]-~]{1,2000}")  # visible, and no backslash
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
# What embeds an IPv4 address that a translator on the way would connect to: NAT64 (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # of carriers, and of some clouds' metadata


class NotPublic(OSError):
    """An address inside of our own network, or of no machine."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found in _NAT64_LOCAL or found.is_site_local:
            return False
    elif found in _SHARED:
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def resolver(*, private: bool) -> AbstractResolver:
    """What aiohttp resolves names with: an address that may not be connected to is refused.

    aiohttp connects to what this gives, and to nothing else. A host that is an address already is
    never given to it: `refusal` looks at those.

    Args:
        private: let addresses of private networks pass, too.
    """
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_TIMEOUT):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
            addresses = [(kind, str(place[0])) for kind, _, _, _, place in found]
            for _, address in addresses:
                if not private and not is_public(address):
                    raise NotPublic(f"{host} leads to {address}, which is not public")
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, address in addresses
            ]

        async def close(self) -> None:
            """Nothing is kept."""

    return Resolver()


def refusal(url: str, *, private: bool) -> str | None:
    """Why an address may not be connected to; None where it may be, as far as one sees.

    What its name leads to is looked at by `resolver`.

    Args:
        url: as a client gave it.
        private: whether it may lead into a private network, over http too.
    """
    from yarl import URL

    try:
        parts, read = urlsplit(url), URL(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "this is no address"
    schemes = ("https", "http") if private else ("https",)
    if parts.scheme not in schemes or not host or "@" in parts.netloc or port == 0:
        return f"an address begins with {' or '.join(f'{one}://' for one in schemes)} and a host"
    # Two readers of addresses may differ: what is checked here must be what aiohttp connects to.
    if not _PLAIN.fullmatch(url) or not _HOST.fullmatch(host) or read.host != host:
        return "an address has a plain host, and visible characters of ASCII alone"
    if not private and not _may_be_public(host):
        return f"{host} may not be connected to"
    return None


def _may_be_public(host: str) -> bool:
    """Whether a host is a public address, or a name, of which the resolver decides."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # aiohttp takes what is of digits for an address and asks no resolver, and the system then
        # reads 127.1 and 2130706433 as 127.0.0.1.
        return ":" not in host and not host.replace(".", "").isdigit()
    return is_public(host)
