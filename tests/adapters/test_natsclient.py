"""The lean way through nats-py does as nats-py did, and the internals it rests on are there."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from mqinfer.adapters import firstconnection, natsclient
from mqinfer.adapters.firstconnection import open_client
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.natsclient import LeanClient, LeanTransport
from mqinfer.adapters.parser import LeanParser
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.stack.ports import free_port
from mqinfer.testing import until
from tests import rooms

DIRECT, OTHER = 7, 8
UNHEARD: dict[str, Any] = {
    "on_disconnect": lambda: None,
    "on_reconnect": lambda: None,
    "on_denied": lambda _: None,
}


class Peer:
    """What nats-py's parser calls of a client: everything that arrived, in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.seen.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.seen.append("ping")

    async def _process_pong(self) -> None:
        self.seen.append("pong")

    async def _process_err(self, text: str) -> None:
        self.seen.append(("error", text))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.seen.append(info)


def lean(peer: Peer) -> LeanParser:
    def handler(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        peer.seen.append((DIRECT, subject, reply, data, headers))

    return LeanParser(Parser(peer), {b"%d" % DIRECT: handler}, AWAITING_CONTROL_LINE)


def message(sid: int, reply: bytes, data: bytes, headers: bytes | None) -> bytes:
    words = [b"HMSG" if headers else b"MSG", b"a.b", str(sid).encode()]
    words += [reply] if reply else []
    words += [str(len(headers)).encode()] if headers else []
    block = headers or b""
    words += [str(len(block) + len(data)).encode()]
    return b" ".join(words) + b"\r\n" + block + data + b"\r\n"


_payloads = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"\r\n", b"MSG a 7 3\r\nabc\r\n", b"x" * 4095, b"y" * 70_000]),
)
_messages = st.builds(
    message,
    sid=st.sampled_from([DIRECT, DIRECT, DIRECT, OTHER]),
    reply=st.sampled_from([b"", b"$JS.ACK.s.c.1.2.3.4.5"]),
    data=_payloads,
    headers=st.sampled_from([None, b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"]),
)
_others = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a": 1}\r\n', b"-ERR 'no'\r\n"]
)


def pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in sorted({cut % (len(stream) + 1) for cut in cuts}):
        yield stream[start:cut]
        start = cut
    yield stream[start:]


@given(
    st.lists(st.one_of(_messages, _messages, _others), max_size=12),
    st.lists(st.integers(0, 200_000), max_size=8),
)
def test_however_it_is_cut_all_arrives_as_with_nats_py(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)

    async def feed(parser: Any) -> None:
        for piece in pieces(stream, cuts):
            await parser.parse(piece)

    ours, theirs = Peer(), Peer()
    asyncio.run(feed(lean(ours)))
    asyncio.run(feed(Parser(theirs)))
    assert ours.seen == theirs.seen


@pytest.mark.parametrize(
    "garbage",
    [
        b"MSG a 7\r\n\r\n",
        b"MSG a b c d e f\r\n",
        b"MSG a 7 -4\r\n\r\nMSG a 7 0\r\n\r\n",
        b"HMSG a 7 x 12\r\n\r\n",
        b"HMSG 7 1\r\n",
        b"HELLO\r\n",
        b"MSG \r\n",
    ],
)
async def test_what_is_none_of_the_protocol_ends_as_with_nats_py(garbage: bytes) -> None:
    ours, theirs = Peer(), Peer()
    ended = []
    for parser in (lean(ours), Parser(theirs)):
        await parser.parse(message(DIRECT, b"", b"good", None))
        try:
            await parser.parse(garbage)
        except ProtocolError:
            ended.append("error")
        else:
            ended.append("waits for more")
        parser.reset()
        await parser.parse(message(DIRECT, b"", b"again", None))
    assert ended[0] == ended[1]
    assert ours.seen == theirs.seen
    assert [seen[3] for seen in ours.seen] == [b"good", b"again"]


async def test_a_handler_that_fails_does_not_end_the_reading() -> None:
    seen = []

    def handler(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        seen.append(data)
        if data == b"bad":
            raise ValueError("no")

    parser = LeanParser(Parser(Peer()), {b"%d" % DIRECT: handler}, AWAITING_CONTROL_LINE)
    await parser.parse(b"".join(message(DIRECT, b"", data, None) for data in (b"bad", b"next")))
    assert seen == [b"bad", b"next"]


async def test_a_subject_may_hold_blanks_that_the_server_takes(nats: Settings) -> None:
    """A vertical tab is a subject's byte to the server, and a separator to nats-py."""
    arrived: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
    async with JetStream(nats, name="test") as jetstream:
        client = jetstream.client
        await client.subscribe_direct(
            "odd.>", lambda subject, _reply, data, _headers: arrived.set_result((subject, data))
        )
        client.write(b"PUB odd.a\x0bb 2\r\nhi\r\n")
        async with asyncio.timeout(60):
            assert await arrived == (b"odd.a\x0bb", b"hi")


async def test_what_is_on_its_way_arrives_after_the_end_of_the_interest(nats: Settings) -> None:
    async with JetStream(nats, name="test") as jetstream:
        client = jetstream.client
        seen: list[bytes] = []
        subscription = await client.subscribe_direct(
            "way.>", lambda _subject, _reply, data, _headers: seen.append(data)
        )
        client.write(b"PUB way.a 1\r\n1\r\n")
        client.end_interest(subscription)
        client.write(b"PUB way.a 1\r\n2\r\n")
        await client.flush()
        assert seen == [b"1"]
        await client.unsubscribe_direct(subscription)


def test_nobody_else_reaches_into_what_is_not_his() -> None:
    """nats-py's internals are LeanClient's business alone, and each adapter's its own."""
    reached = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in (rooms.PACKAGE / "adapters").rglob("*.py")
        if path.name != "natsclient.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert reached == []


async def test_a_flush_follows_what_was_written_before() -> None:
    """Its answer tells that the server has taken that too, and denied what it denies."""
    told: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.11.0", "max_payload": 1024, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            told.append(line.decode().strip())
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        client = LeanClient()
        await client.connect(f"nats://127.0.0.1:{port}", ping_interval=600)
        del told[:]  # how it connected
        subscription = await client.subscribe_direct("a", lambda *_: None)
        await client.flush()
        assert told == [f"SUB a  {subscription._id}", "PING"]
        client.write(b"PUB b 0\r\n\r\n")
        await client.flush()
        assert told[2:] == ["PUB b 0", "", "PING"]
        await client.close()


async def test_a_flush_that_nobody_waits_for_any_more_does_not_end_the_reading() -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"s","max_payload":1024,"headers":true}\r\n')
        pings = 0
        while line := await reader.readline():
            if line == b"PING\r\n":
                pings += 1
                if pings == 2:  # the first is part of connecting
                    asked.set()
                    await released.wait()
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        client = LeanClient()
        port = listening.sockets[0].getsockname()[1]
        await client.connect(f"nats://127.0.0.1:{port}", ping_interval=600, allow_reconnect=False)
        flushing = asyncio.create_task(client.flush())
        await asked.wait()
        flushing.cancel()
        await asyncio.wait({flushing})
        released.set()
        await client.flush()
        await client.close()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a server says until a client has connected."""
    writer.write(b'INFO {"server_id":"s","max_payload":1048576,"headers":true}\r\n')
    while not (await reader.readline()).startswith(b"PING"):
        pass
    writer.write(b"PONG\r\n")


@pytest.mark.parametrize("noticed", [True, False])
async def test_closing_a_connection_that_was_reset_raises_nothing(noticed: bool) -> None:
    """A worker that is stopped while its server is away ends in order, whatever it had to say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await writer.drain()
        await gone.wait()
        # Linger for no time: the other side gets a reset, not an end.
        link = writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    gone, closed = asyncio.Event(), asyncio.Event()
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = await open_client(
        Settings.load({}, nats_url=f"127.0.0.1:{port}"),
        name="t",
        **UNHEARD,
        on_closed=closed.set,
    )
    gone.set()
    listening.close()
    if noticed:
        await until(lambda: not client.is_connected, "the end of the connection")
    else:
        reader = client._transport._io_reader
        await until(lambda: reader.exception() is not None, "the reset")
    client.write(b"PUB a 0\r\n\r\n")
    await client.close()
    assert client.is_closed
    assert closed.is_set()


async def test_closing_ends_although_the_server_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(natsclient, "CLOSE_TIMEOUT", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        url = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        client = await open_client(
            Settings.load({}, nats_url=url), name="t", **UNHEARD, on_closed=lambda: None
        )
        link = client._transport._io_writer.get_extra_info("socket")
        client.write(b"PUB a 50000000\r\n" + bytes(50_000_000) + b"\r\n")  # more than fits
        await client.close()
        await until(lambda: link.fileno() == -1, "the end of the connection")
        over.set()


async def test_one_of_several_servers_that_hang_or_refuse(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(firstconnection, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(firstconnection.random, "sample", lambda found, _count: list(found))
    # The kernel takes its connections, and nobody says a word.
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        hanging = f"127.0.0.1:{hangs.getsockname()[1]}"
        right = nats.nats_url.removeprefix("nats://")
        servers = [hanging, f"127.0.0.1:{free_port()}", right]
        for first in range(3):  # whichever it comes to first
            turned = servers[first:] + servers[:first]
            settings = Settings.load({}, nats_url=",".join(turned))
            client = await open_client(
                settings, name="t", **UNHEARD, on_closed=lambda: closed.append(1)
            )
            try:
                assert not closed
                assert {url.netloc for url in client.servers} == set(servers)
                assert client.url == right.rpartition("@")[2]
            finally:
                await client.close()
                closed.clear()
        settings = Settings.load({}, nats_url=",".join(servers[:2]))
        with pytest.raises(Unavailable):
            await open_client(settings, name="t", **UNHEARD, on_closed=lambda: None)


def on_loop(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run on an event loop of either kind, which differ in what a write to a lost connection is."""
    if name == "asyncio":
        asyncio.run(work)
    else:
        pytest.importorskip("uvloop").run(work)


class Losing(LeanTransport):
    """Loses the connection as if the server died, where lines begin with these, each once."""

    def __init__(self, before: Transport, *lines: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(before))
        self.lines = [*lines]

    async def readline(self) -> bytes:
        line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        if self.lines and line.startswith(self.lines[0]):
            del self.lines[0]
            self._io_writer.transport.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # from here on uvloop takes no write
        return line


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_asked_as_the_connection_is_lost_is_answered_by_the_next(
    nats: Settings, loop: str
) -> None:
    async def work() -> None:
        client = await open_client(nats, name="t", **UNHEARD, on_closed=lambda: None)

        async def lose() -> None:
            client._transport._io_writer.transport.abort()
            client.write(b"PUB a 0\r\n\r\n")  # the flusher finds out, and nobody reads yet

        try:
            await client.api("$JS.API.INFO", timeout=30)
            losing = asyncio.create_task(lose())
            asked = [client.api("$JS.API.INFO", timeout=30) for _ in range(20)]
            answers = await asyncio.gather(*asked)
            await losing
            assert all("streams" in answer for answer in answers)
        finally:
            await client.close()

    on_loop(loop, work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_is_lost_while_it_is_made_anew_is_made_anew(
    nats: Settings, loop: str
) -> None:
    async def work() -> None:
        client = await open_client(nats, name="t", **UNHEARD, on_closed=lambda: None)
        try:
            await client.api("$JS.API.INFO", timeout=30)
            transport = Losing(client._transport, b"INFO", b"PONG", b"INFO", b"PONG")
            client._transport = transport
            transport._io_writer.transport.abort()
            await until(lambda: not client.is_connected, "the end of the connection")
            assert "streams" in await client.api("$JS.API.INFO", timeout=30)
            assert not transport.lines
        finally:
            await client.close()

    on_loop(loop, work())


@pytest.mark.filterwarnings("ignore:parameter 'timeout'")  # what nats-py passes to aiohttp
async def test_over_a_websocket(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    port = free_port()
    config = f'websocket {{ host: "127.0.0.1", port: {port}, no_tls: true }}'
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log", extra_config=config)
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=f"ws://127.0.0.1:{port}")
        client = await open_client(settings, name="t", **UNHEARD, on_closed=lambda: None)
        try:
            assert (await client.api("$JS.API.INFO", timeout=30))["streams"] == 0
        finally:
            await client.close()
    finally:
        await server.stop()


def test_without_one_aiohttp_is_not_imported() -> None:
    code = "import sys, mqinfer.adapters.natsclient; print('aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_the_internals_that_the_lean_client_rests_on_are_there() -> None:
    client = Client()
    for name in (
        "_ps",
        "_pending",
        "_pending_data_size",
        "_flush_queue",
        "_pongs",
        "_server_info",
        "_transport",
    ):
        assert hasattr(client, name), f"nats-py has no Client.{name} any more"
    for name in (
        "_connect_to_server",
        "_process_msg",
        "_process_info",
        "_process_pong",
        "_read_loop",
        "_flush_pending",
        "_setup_server_pool",
    ):
        assert callable(getattr(Client, name)), f"nats-py has no Client.{name} any more"
    parser = Parser(Peer())
    assert (parser.state, parser.buf) == (AWAITING_CONTROL_LINE, bytearray())
    assert isinstance(LeanClient()._ps, LeanParser)
