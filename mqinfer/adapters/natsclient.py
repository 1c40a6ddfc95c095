r"""The NATS connection: nats-py with a leaner way in and out. The only file that uses nats.

nats-py parses headers, makes a `Msg` and crosses an `asyncio.Queue` for every message before user
code sees it, and awaits twice to publish one. `LeanClient` keeps its connection handling (TLS,
authentication, reconnection, ping) and adds two things for the hot path, measured at about twice
the rate of the public API:

* `subscribe_direct`: a plain callback on the read loop, given the raw bytes (see `parser`), of
  which as many are read at a time as there are;
* `write`: protocol bytes appended to the output buffer, which leaves in one piece, once a loop
  iteration.

Both rest on internals of nats-py. Nobody but this file touches them, its minor version is pinned,
and `tests/adapters/test_natsclient.py` fails when they change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.adapters.natspy import (
    AWAITING_CONTROL_LINE,
    DEFAULT_BUFFER_SIZE,
    Client,
    Srv,
    TcpTransport,
    nats,
    unsub_cmd,
)
from mqinfer.adapters.natspy import Subscription as Subscription
from mqinfer.adapters.parser import LeanParser, RawHandler
from mqinfer.domain import in_domain
from mqinfer.errors import (
    ConnectionClosed,
    PermissionDenied,
    Unavailable,
)

if TYPE_CHECKING:
    pass

log = structlog.get_logger("mqinfer.nats")

CLOSE_TIMEOUT, ABANDON_TIMEOUT = 5.0, 0.5
_READ = 256 * 1024  # bytes at a time
_UNHURRIED = 0.05  # seconds
_QUOTED = re.compile(r'"([^"]+)"')


class Lost(ConnectionResetError, RuntimeError):
    """The connection was lost before something was written.

    An OSError, as with asyncio, for whoever writes; a RuntimeError, as with uvloop, for nats-py's
    own ping, which ends by that and nothing else.
    """


class LeanTransport(TcpTransport):
    """nats-py's TCP, where a connection that was lost is an OSError, whatever the event loop.

    On uvloop to write to one is a RuntimeError, by which nats-py ended a reconnection for good, and
    failed requests that would have been answered by the next connection.
    """

    def write(self, payload: bytes) -> None:
        """Write, or raise `Lost`."""
        try:
            super().write(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise Lost(str(error)) from None

    def writelines(self, payload: list[bytes]) -> None:
        """Write, or raise `Lost`."""
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise Lost(str(error)) from None


class LeanClient(Client):
    """nats-py's client with direct subscriptions and raw writes."""

    def __init__(self, domain: str | None = None) -> None:
        super().__init__()
        self.domain = domain
        self._direct: dict[bytes, RawHandler] = {}  # by subscription id
        self._ps: Any = LeanParser(self._ps, self._direct, AWAITING_CONTROL_LINE)
        self.socket_writes = 0
        self.first_connected = False
        self.must_encrypt = False
        # What nats-py would give to a subscription of its own: nobody, who drops what still comes.
        self._nobody: asyncio.Future[Any] | None = None
        self._nothing: asyncio.Queue[Any] = asyncio.Queue()
        self._later: asyncio.TimerHandle | None = None
        self._denials: dict[str, set[asyncio.Future[str]]] = {}
        self.renewed: set[Callable[[], None]] = set()  # who is told of a reconnection

    async def subscribe_direct(
        self, subject: str, handler: RawHandler, queue: str = ""
    ) -> Subscription:
        """Subscribe, alone or as one of a queue group.

        `handler` runs on the read loop for every message and must not block.
        """
        # With a callback there would be a task for each, and each has a queue: 5 KB that nobody
        # uses, and a gateway has two subscriptions for each client that waits.
        if self._nobody is None:
            self._nobody = asyncio.get_running_loop().create_future()
            self._nobody.cancel()
        subscription = await self.subscribe(subject, queue, future=self._nobody)
        subscription._pending_queue = self._nothing
        self._direct[b"%d" % subscription._id] = handler
        return subscription

    def end_interest(self, subscription: Subscription) -> None:
        """Tell the server to send no more; what is on its way still reaches the handler.

        (nats-py's own way forgets the subscription at once, and what still comes with it.)
        """
        self.write(b"UNSUB %d\r\n" % subscription._id)

    async def unsubscribe_direct(self, subscription: Subscription) -> None:
        """End a direct subscription; does nothing on a closed connection."""
        self._direct.pop(b"%d" % subscription._id, None)
        try:
            await subscription.unsubscribe()
        except nats.errors.Error:
            log.debug("unsubscribe on a closed connection")

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any
    ) -> None:
        handler = self._direct.get(b"%d" % sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            handler(subject, reply, data, headers)
        except Exception:
            log.exception("a message could not be taken from the connection")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # The INFO is plain text: whoever stands in between may say that there is no TLS, and
        # nats-py would send the password in the clear.
        if initial_connection and self.must_encrypt and not info.get("tls_required"):
            raise nats.errors.Error(
                "the server does not ask for TLS, which tls:// and MQINFER_NATS_TLS_* demand"
            )
        await super()._process_info(info, initial_connection)

    async def _connect_to_server(self, s: Srv) -> None:
        if s.uri.scheme in ("ws", "wss"):
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        if not self._transport:
            self._transport = LeanTransport()  # type: ignore[no-untyped-call]
        timeout = self.options["connect_timeout"]
        await self._transport.connect(s.uri, DEFAULT_BUFFER_SIZE, timeout)

    async def _process_pong(self) -> None:
        # Nobody may wait for it any more. nats-py raises then, which would end the reading.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def close(self) -> None:
        """Close the connection, in bounded time: after a failed TLS handshake it never ends.

        What was written leaves before, as far as there is a server that takes it.
        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT if self.first_connected else ABANDON_TIMEOUT):
                await self._write_out()
                await super().close()
        except TimeoutError:
            if self._transport is not None:  # it may not have come to its last step
                self._transport.close()  # type: ignore[no-untyped-call]
                # Or it would stay for as long as the server does not take what was written.
                if (writer := getattr(self._transport, "_io_writer", None)) is not None:
                    writer.transport.abort()
        except OSError:
            pass

    async def _write_out(self) -> None:
        """Leave nothing pending: nats-py would write it to a lost connection, and stop half way."""
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        if pending and self.is_connected and (transport := self._transport):
            transport.writelines(pending)
            with contextlib.suppress(OSError):
                await transport.drain()  # type: ignore[no-untyped-call]

    def add_servers(self, urls: list[str]) -> None:
        """Let it connect to these as well, should it lose its server."""
        self._setup_server_pool(urls)

    @property
    def wants_certificate(self) -> bool:
        """Whether the server asks for a client certificate."""
        return bool(self._server_info.get("tls_verify"))

    @property
    def wants_login(self) -> bool:
        """Whether the server greeted, and asks who is there."""
        return bool(self._server_info.get("auth_required"))

    @property
    def server_version(self) -> str:
        """Of the server that it is connected to; "" where it says none."""
        return str(self._server_info.get("version") or "")

    @property
    def server_name(self) -> str:
        """What the server that it is connected to is called; "" where it says nothing."""
        return str(self._server_info.get("server_name") or "")

    def connected(self) -> bool:
        """`is_connected`, in one call: it is asked for every publish."""
        return bool(self._status == Client.CONNECTED or self.is_draining)

    def write(self, data: bytes) -> None:
        """Queue protocol bytes; they leave with the next flush, and survive a reconnection."""
        self._pending.append(data)
        self._pending_data_size += len(data)
        queue = self._flush_queue
        if queue is not None and queue.empty() and self.is_connected:
            queue.put_nowait(asyncio.get_running_loop().create_future())
            self.socket_writes += 1

    async def _send_unsubscribe(self, sid: int, limit: int = 0) -> None:
        """As nats-py's, but it leaves with what is written next: by itself it costs a packet.

        A gateway ends an interest for each client that is answered.
        """
        await self._send_command(unsub_cmd(sid, limit))
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(_UNHURRIED, self._unhurried)

    def _unhurried(self) -> None:
        self._later = None
        if self._pending:
            self.write(b"")

    def unsent(self) -> tuple[bytes, ...]:
        """What was written and has not left; from any thread."""
        return tuple(self._pending)

    async def _flusher(self) -> None:
        """As nats-py's, but what is pending leaves in one piece.

        A thousand small pieces cost a transport more than joining them does: uvloop, and asyncio
        from Python 3.12 on, make a vector of them.
        """
        assert self._flush_queue is not None
        while self.is_connected and not self.is_connecting:
            flushed = await self._flush_queue.get()
            try:
                if self._pending and (transport := self._transport):
                    transport.write(b"".join(self._pending))
                    self._pending, self._pending_data_size = [], 0
                    await transport.drain()  # type: ignore[no-untyped-call]
            except OSError as problem:
                await self._error_cb(problem)
                await self._process_op_err(problem)
                return
            except (RuntimeError, AttributeError):  # the loop or the transport is closed
                return
            finally:
                if not flushed.done():
                    flushed.set_result(None)

    async def _read_loop(self) -> None:
        """As nats-py's, which reads 32 KB at a time: three messages of 10 KB."""
        while not (self.is_closed or self.is_reconnecting) and (transport := self._transport):
            try:
                if transport.at_eof():
                    ended = nats.errors.UnexpectedEOF()
                    await self._error_cb(ended)
                    await self._process_op_err(ended)
                    return
                await self._ps.parse(await transport.read(_READ))
            except (nats.errors.ProtocolError, OSError) as problem:
                await self._process_op_err(problem)
                return
            except Exception:
                log.exception("reading from the connection failed")
                return

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has taken all that was written before.

        Raises:
            nats.errors.Error: it did not say so in `timeout` seconds, or the connection is closed.
        """
        # nats-py writes its ping past the commands that wait for its flusher, so the answer to it
        # says nothing of them: a denied subscription was told too late, now and then.
        if self.is_connected:
            await self._flush_pending(force_flush=True)
        await super().flush(timeout)

    async def api(self, subject: str, body: Any = None, timeout: float = 5.0) -> dict[str, Any]:
        """One request to JetStream's JSON API, in its domain; the answer may hold an `error`.

        Raises:
            PermissionDenied: the server denies the subject to these credentials.
            Unavailable: no answer in time, nobody listens, or not connected.
        """
        subject = in_domain(subject, self.domain)
        payload = b"" if body is None else json.dumps(body).encode()
        denied = asyncio.get_running_loop().create_future()
        waiting = self._denials.setdefault(subject.lower(), set())
        waiting.add(denied)
        asking = asyncio.ensure_future(self.request(subject, payload, timeout=timeout))
        try:
            # A denial comes as an error of the connection, and the request then runs out of time.
            await asyncio.wait({asking, denied}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise PermissionDenied(denied.result())
            answer: dict[str, Any] = json.loads(asking.result().data)
        except nats.errors.NoRespondersError:
            raise Unavailable(f"no JetStream answers on {self.url}: {self._missing()}") from None
        except (TimeoutError, nats.errors.TimeoutError):
            raise Unavailable(f"no answer from JetStream to {subject} in {timeout} s") from None
        except nats.errors.ConnectionClosedError:
            raise ConnectionClosed("the connection to NATS is closed for good") from None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS at {self.url}: {text_of(error)}") from None
        finally:
            asking.cancel()
            waiting.discard(denied)
            if not waiting:
                self._denials.pop(subject.lower(), None)
        return answer

    def _missing(self) -> str:
        if self.domain is None:
            return "start nats-server with -js"
        return (
            f"no server of the domain {self.domain} (MQINFER_NATS_DOMAIN) is reached from there now"
        )

    async def answered(self, subject: str, payload: bytes, timeout: float = 5.0) -> bool:
        """Whether a request was answered with anything at all."""
        try:
            await self.request(subject, payload, timeout=timeout)
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return True

    def on_permission_denied(self, text: str) -> None:
        """The server denied a subject; tells the request that waits for it."""
        found = _QUOTED.search(text)
        for waiting in self._denials.get(found.group(1).lower(), ()) if found else ():
            if not waiting.done():
                waiting.set_result(f"NATS denies it to these credentials: {text}")

    @property
    def url(self) -> str:
        """Host and port of the current server, without credentials."""
        url = self.connected_url
        return f"{url.hostname}:{url.port}" if url else "(not connected)"


def text_of(problem: BaseException) -> str:
    """What an error of nats-py says."""
    return str(problem).removeprefix("nats: ") or type(problem).__name__
