"""Turning away what web pages of other origins send to a server on this machine.

Every page that a browser shows may send requests to loopback, and with a name of its own that
resolves to 127.0.0.1 (DNS rebinding) it may read the answers, too. Browsers say in headers where a
request comes from, which pages cannot change; programs send no such headers and notice nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_Application = Callable[[Any, Any, Any], Awaitable[None]]


def reason(
    headers: Mapping[str, str], *, any_host: bool = False, navigation: bool = False
) -> str | None:
    """Why a request is turned away, or None.

    Args:
        headers: of the request, names in lower case.
        any_host: the server is for other machines, too, which may call it by any name.
        navigation: let a link of another page lead here; that page cannot read what is shown.
    """
    host = headers.get("host", "")
    if not any_host and not _is_ours(host):
        return f"the host {host!r} is not a name of this machine's: ask 127.0.0.1 or localhost"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return f"a page of another origin ({origin}) may not use this server"
    site = headers.get("sec-fetch-site", "none")
    leads_here = navigation and headers.get("sec-fetch-dest") == "document"
    if site not in ("none", "same-origin") and not leads_here:
        return "a page of another origin may not use this server"
    return None


def _is_ours(host: str) -> bool:
    """Whether no stranger can have the name; absent it is in HTTP/1.0, which no browser speaks."""
    name = host.rpartition("]")[0].removeprefix("[") or host.partition(":")[0].lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # Names without a dot are of this network; `.internal` is what containers call their host.
        return "." not in name or name.endswith((".localhost", ".internal"))
    return True


def own_pages_only(
    application: _Application, *, any_host: bool = False, navigation: bool = False
) -> _Application:
    """Put the rule before an ASGI application; see `reason`."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            pairs = scope["headers"]
            headers = {name.decode("latin1"): value.decode("latin1") for name, value in pairs}
            why = reason(headers, any_host=any_host, navigation=navigation)
            if why is not None:
                return await _turn_away(why, send)
        return await application(scope, receive, send)

    return guarded


async def _turn_away(why: str, send: Any) -> None:
    body = f"{why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the body of the request is not read
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
