"""Server: uvicorn on the caller's event loop, with patience for no one who never asks.

It is another server than that of a worker's health (`mqinfer.http`), which answers few, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD: Final = 15.0  # seconds in which the head of a request must come
_HEAD_BYTES: Final = 32 * 1024
_BACKLOG = 2048
_OTHERS = 200  # files of a process that are no connections of clients

# What is answered where nothing is that an application could answer, given the status and why: the
# type of the body, and the body.
Refusal = Callable[[int, str], tuple[str, bytes]]


def plain(_status: int, why: str) -> tuple[str, bytes]:
    """A refusal of plain text."""
    return "text/plain; charset=utf-8", f"{why}\n".encode()


class Listening(Protocol):
    """Where to listen, and how."""

    @property
    def host(self) -> str:
        """Address to listen on."""

    @property
    def port(self) -> int:
        """To listen on; 0 takes a free one."""

    @property
    def tls_cert(self) -> Path | None:
        """Certificate chain (PEM); None serves without TLS."""

    @property
    def tls_key(self) -> Path | None:
        """Its key (PEM)."""

    @property
    def max_connections(self) -> int:
        """That are open at a time."""

    @property
    def grace(self) -> float:
        """Seconds that requests under way get when the server stops."""


async def serve(
    application: ASGIApp,
    options: Listening,
    stop: asyncio.Event,
    started: Callable[[str], None],
    *,
    refusal: Refusal = plain,
    head: float = HEAD,
) -> None:
    """Serve until `stop` is set, and what is under way is answered.

    Args:
        application: that answers.
        options: where and how.
        stop: ends it in order.
        started: called with the address once requests are answered.
        refusal: of what is no request.
        head: seconds in which the head of a request must come.

    Raises:
        ConfigurationError: the address cannot be listened on, or the certificate cannot be used.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn without its signal handlers."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            host = f"[{options.host}]" if ":" in options.host else options.host
            started(f"{scheme}://{host}:{listener.getsockname()[1]}")

    _allow_files(options.max_connections)
    # What strangers send is no news, or they could fill a disk with it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    listener = _listen(options.host, options.port)
    scheme = "http" if options.tls_cert is None else "https"
    try:
        config = uvicorn.Config(
            application,
            http=_patient(head, refusal),
            lifespan="off",
            loop="none",
            ws="none",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, int(options.grace)),
            limit_concurrency=options.max_connections,
            backlog=_BACKLOG,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        try:
            config.load()
        except OSError as error:  # ssl's own are
            raise ConfigurationError(f"the certificate cannot be used: {error}") from None
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
        finally:
            stopped.cancel()
            if not serving.done():
                server.should_exit = server.force_exit = True
                await asyncio.wait({serving}, timeout=2.0)
                serving.cancel()
    finally:
        listener.close()


class _Together:
    """A transport that sends what is written in one turn of the loop in one piece.

    uvicorn writes head and body of an answer one by one: two calls of the system, and two packets
    that wake the client.
    """

    __slots__ = ("_parts", "_transport")

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send it at the end of the turn."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _patient(head: float, refusal: Refusal) -> type[asyncio.Protocol]:
    """The protocol of uvicorn, which closes a connection on which the head of no request comes.

    It is the one over httptools, which reads quickly, and lets in what it should not: heads without
    an end, and those that name two hosts.
    """
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    base: Any = HttpToolsProtocol

    class Patient(base):  # type: ignore[misc]
        """One connection."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(_Together(transport))
            self.parser: Any = httptools.HttpRequestParser(self)
            self._unread = 0  # bytes since the last that came to anything
            self._headed = False  # whether the head is read
            self._head: asyncio.TimerHandle | None = None
            self._watch()

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            self._unread += len(data)
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_wish() + data[upgrade.args[0] :]
                except httptools.HttpParserError:
                    self._refuse(400, "this is no request of HTTP/1.1 (RFC 9112)")
                    break
            if self._unread > _HEAD_BYTES and not self.transport.is_closing():
                # A head, the fields behind a body, or what stands beside the size of a chunk.
                self._refuse(431, f"what is no body is longer than {_HEAD_BYTES:,} bytes")
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._head is not None:
                self._head.cancel()
            super().connection_lost(exc)

        def _refuse(self, status: int, why: str) -> None:
            if self._idle or not self.cycle.response_started:  # or it would stand inside an answer
                kind, body = refusal(status, why)
                told = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
                told += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
                self.transport.write(told.encode() + body)
            self.transport.close()

        def _without_wish(self) -> bytes:
            """A head that wishes for another protocol, without that, to be read again.

            Java's client asks for HTTP/2 in this way, with each request, as curl may; and the
            parser takes what follows for that.
            """
            version = self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
            for name, value in self.headers:
                if name == b"connection":
                    lines += [b"connection: close"] if b"close" in value.lower() else []
                elif name != b"upgrade":
                    lines.append(b"%b: %b" % (name, value))
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*lines, b"", b""])

        def on_message_begin(self) -> None:
            self._headed = False
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._headed:  # else it stands behind a body, where nobody asks for it
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._unread, self._headed = 0, True
            hosts = sum(name == b"host" for name, _ in self.headers)
            if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
                raise ValueError("a request names one host (RFC 9112, 3.2)")
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            if not self.parser.should_upgrade():
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unread = 0
            if not self.parser.should_upgrade():
                super().on_message_complete()

        @property
        def _idle(self) -> bool:
            """Whether no request is under way; where something was read, it is a part of a head."""
            return self.cycle is None or self.cycle.response_complete

        def _watch(self) -> None:
            if not self._idle and self._head is not None:
                self._head.cancel()
                self._head = None
            elif self._idle and self._head is None:
                self._head = asyncio.get_running_loop().call_later(head, self._look)

        def _look(self) -> None:
            self._head = None
            if self._idle and not self.transport.is_closing():
                self.transport.close()

    return Patient


def _allow_files(connections: int) -> None:
    """Let this process open as many files as connections, where it may: each is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot serve HTTP on {host}:{port}: {reason}; choose another --http port"
        ) from None
    # What is accepted has it from here. asyncio sets it only for sockets that say TCP, which these
    # do not; and head and body, written one by one, would wait for each other: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
