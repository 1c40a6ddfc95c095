"""Connecting to NATS for the first time: to whichever server answers, or what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from mqinfer.adapters.natsclient import LeanClient, text_of
from mqinfer.adapters.natscredentials import credentials
from mqinfer.adapters.natspy import nats, websockets
from mqinfer.errors import ConfigurationError, MqinferError, PermissionDenied, Unavailable
from mqinfer.masking import mask_url

if TYPE_CHECKING:
    from mqinfer.settings import Settings

log = structlog.get_logger("mqinfer.nats")

CONNECT_TIMEOUT = 5.0
# A half-open connection is noticed after PING_INTERVAL * MAX_PINGS seconds.
PING_INTERVAL = 1
MAX_PINGS = 3
RECONNECT_WAIT = 0.25
# Seconds. A login that is refused is so at once; one that does not come is waited for, for two.
_AT_ONCE = 1.0


async def open_client(
    settings: Settings,
    *,
    name: str,
    on_disconnect: Callable[[], None],
    on_reconnect: Callable[[], None],
    on_closed: Callable[[], None],
    on_denied: Callable[[str], None],
) -> LeanClient:
    """Connect to one of the servers; afterwards the client reconnects by itself, for ever.

    Raises:
        Unavailable: nobody answers at any address.
        PermissionDenied: the credentials are refused.
        ConfigurationError: a credentials or TLS file cannot be used.
    """
    if any(server.startswith("ws") for server in settings.nats_servers):
        websockets()

    async def disconnected() -> None:
        on_disconnect()

    async def reconnected() -> None:
        on_reconnect()

    options: dict[str, Any] = {
        "name": name,
        "disconnected_cb": disconnected,
        "reconnected_cb": reconnected,
        "connect_timeout": CONNECT_TIMEOUT,
        "reconnect_time_wait": RECONNECT_WAIT,
        "ping_interval": PING_INTERVAL,
        "max_outstanding_pings": MAX_PINGS,
        # Our own limits bound what is in flight; nats-py's buffer limit would make it drop acks.
        "pending_size": 256 * 1024 * 1024,
        **credentials(settings),
    }
    # One after the other: nats-py goes on to the next where a connection is refused, but not where
    # one hangs, and a host that nothing comes from would take all the time there is.
    servers = random.sample(settings.nats_servers, len(settings.nats_servers))
    for server in servers[:-1]:
        with contextlib.suppress(Unavailable):
            return await _opened(settings, server, options, on_closed, on_denied)
    return await _opened(settings, servers[-1], options, on_closed, on_denied)


async def _opened(
    settings: Settings,
    server: str,
    options: dict[str, Any],
    on_closed: Callable[[], None],
    on_denied: Callable[[str], None],
) -> LeanClient:
    client = LeanClient(settings.nats_domain)
    client.must_encrypt = bool(settings.nats_tls_ca or settings.nats_tls_cert) or any(
        server.startswith(("tls://", "wss://")) for server in settings.nats_servers
    )
    causes: list[Exception] = []  # nats-py raises "no servers available" for each of them

    async def error(problem: Exception) -> None:
        text = text_of(problem)
        if "permissions violation" in text.lower():
            client.on_permission_denied(text)
            on_denied(text)
        if client.first_connected:  # before that the error is raised
            log.warning("nats", error=mask_url(text))
        else:
            causes.append(problem)

    async def closed() -> None:
        if client.first_connected:
            on_closed()

    own = {"servers": [server], "error_cb": error, "closed_cb": closed}
    where = mask_url(", ".join(settings.nats_servers))
    began = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT + 1):
            await _first_connect(client, {**options, **own})
        known = {found.netloc for found in client.servers}
        others = [one for one in settings.nats_servers if urlsplit(one).netloc not in known]
        client.add_servers(others)
    except TimeoutError:
        await client.close()
        raise Unavailable(f"NATS at {where} does not answer: is it running?") from None
    except (nats.errors.Error, OSError) as problem:
        await client.close()
        cause = causes[-1] if causes else problem
        raise _explained(cause, where, client, time.monotonic() - began) from None
    except asyncio.CancelledError:
        await client.close()
        raise
    return client


async def _first_connect(client: LeanClient, options: dict[str, Any]) -> None:
    # The first connection must fail fast; reconnection never gives up. nats-py has one setting
    # for both, so it is changed in between.
    await client.connect(**options, max_reconnect_attempts=1, allow_reconnect=False)
    client.options["max_reconnect_attempts"] = -1
    client.options["allow_reconnect"] = True
    if not client.is_connected:  # nats-py takes an end of the connection for a welcome
        raise nats.errors.Error("the server closed the connection before it said welcome")
    client.first_connected = True


def _explained(problem: Exception, where: str, client: LeanClient, seconds: float) -> MqinferError:
    """The error of a first connection that took so long, and what to do about it."""
    text = mask_url(text_of(problem))
    if isinstance(problem, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"NATS at {where}: its certificate is not trusted: {problem.verify_message}; "
            "MQINFER_NATS_TLS_CA names the certificates to trust"
        )
    if isinstance(problem, nats.errors.AuthorizationError) or "authorization viol" in text.lower():
        return PermissionDenied(
            f"NATS at {where} refuses these credentials: see MQINFER_NATS_CREDS, _USER, _TOKEN, "
            "_NKEY"
        )
    if client.wants_certificate and not isinstance(problem, TimeoutError):
        return ConfigurationError(
            f"NATS at {where} asks for a client certificate that it trusts: set "
            f"MQINFER_NATS_TLS_CERT and MQINFER_NATS_TLS_KEY ({text})"
        )
    if client.wants_login and isinstance(problem, ConnectionError):
        if seconds > _AT_ONCE:
            return Unavailable(
                f"NATS at {where} closed the connection while this process logged in, after "
                f"{seconds:.1f} s: is this machine too busy? (the server's authorization.timeout)"
            )
        # The server says why and closes at once; a reset can be quicker than what it said.
        return PermissionDenied(
            f"NATS at {where} closed the connection, as it does when it refuses these credentials: "
            "see MQINFER_NATS_CREDS, _USER, _TOKEN, _NKEY"
        )
    if isinstance(problem, ssl.SSLError) or "does not ask for TLS" in text:
        return ConfigurationError(f"NATS at {where}: no TLS with it: {text}")
    if isinstance(problem, ConnectionRefusedError):
        return Unavailable(
            f"NATS at {where}: nobody listens there: is it running (mqinfer up), and is "
            "MQINFER_NATS_URL its address?"
        )
    if isinstance(problem, socket.gaierror):
        return Unavailable(
            f"NATS at {where}: no such host is known ({problem.strerror}): see MQINFER_NATS_URL"
        )
    return Unavailable(f"NATS at {where}: {text}")
