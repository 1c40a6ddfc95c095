"""Every way to log in to NATS, through settings: a pipeline runs, and what is wrong is said."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("nkeys")
from mqinfer import App, Message, Settings, wiring
from mqinfer.errors import ConfigurationError, MqinferError, PermissionDenied, Unavailable
from mqinfer.testing import Harness, nats_only
from tests.support.security import Authority, Operator, Pair, nkey


class Number(Message):
    value: int


class Double(Message):
    value: int


app = App("secure")


@app.stage
async def double(number: Number) -> Double:
    return Double(2 * number.value)


async def a_pipeline_runs(settings: Settings) -> None:
    async with Harness(app, settings) as harness:
        await harness.publish(Number(21))
        await harness.drain()
        assert Double(42) in await harness.messages(Double)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def refused(settings: Settings, kind: type[MqinferError]) -> str:
    """What the error says; one line, without secrets."""
    with pytest.raises(kind) as raised:
        async with wiring.jetstream(app, settings, "test"):
            pass
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def load(plain: Settings, **variables: str) -> Settings:
    return Settings.load(
        {
            "MQINFER_NATS_URL": plain.nats_url,
            "MQINFER_BLOBS": plain.blobs,
            **{f"MQINFER_{name}": value for name, value in variables.items()},
        }
    )


@asynccontextmanager
async def tls_server(
    folder: Path, pair: Pair, *, client_ca: str | None = None
) -> AsyncIterator[Settings]:
    lines = [f"cert_file: {json.dumps(pair.cert)}", f"key_file: {json.dumps(pair.key)}"]
    if client_ca:
        lines += [f"ca_file: {json.dumps(client_ca)}", "verify: true"]
    config = "tls {\n" + "\n".join(lines) + "\n}\n"
    async with nats_only(folder / "stack", nats_config=config) as settings:
        yield settings


# --- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls(tmp_path: Path, authority: Authority, scheme: str) -> None:
    async with tls_server(tmp_path, authority.issue("server")) as plain:
        url = f"{scheme}://{plain.nats_servers[0].partition('://')[2]}"
        await a_pipeline_runs(load(plain, NATS_URL=url, NATS_TLS_CA=authority.file))


async def test_a_server_that_is_not_trusted_is_told(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    async with tls_server(tmp_path, authority.issue("server")) as plain:
        for settings in (load(plain, NATS_TLS_CA=other.file), load(plain)):
            text = await refused(settings, ConfigurationError)
            assert "certificate" in text
            assert "MQINFER_NATS_TLS_CA" in text
            assert plain.nats_url in text


async def test_a_certificate_of_another_host_is_told(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("server", address="127.0.0.2")
    async with tls_server(tmp_path, pair) as plain:
        text = await refused(load(plain, NATS_TLS_CA=authority.file), ConfigurationError)
        assert "127.0.0.1" in text
        assert "certificate" in text


async def test_tls_that_the_server_has_not_is_told(tmp_path: Path, authority: Authority) -> None:
    async with nats_only(tmp_path / "stack") as plain:
        url = plain.nats_url.replace("nats://", "tls://")
        text = await refused(load(plain, NATS_URL=url, NATS_TLS_CA=authority.file), MqinferError)
        assert "TLS" in text or "SSL" in text


async def test_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    mine = authority.issue("client")
    foreign = Authority(tmp_path, "other").issue("foreign")
    async with tls_server(tmp_path, authority.issue("server"), client_ca=authority.file) as plain:
        ca = {"NATS_TLS_CA": authority.file}
        await a_pipeline_runs(load(plain, **ca, NATS_TLS_CERT=mine.cert, NATS_TLS_KEY=mine.key))
        text = await refused(load(plain, **ca), MqinferError)
        assert "MQINFER_NATS_TLS_CERT" in text
        text = await refused(
            load(plain, **ca, NATS_TLS_CERT=foreign.cert, NATS_TLS_KEY=foreign.key), MqinferError
        )
        assert "MQINFER_NATS_TLS_CERT" in text
        text = await refused(
            load(plain, **ca, NATS_TLS_CERT=mine.cert, NATS_TLS_KEY=foreign.key),
            ConfigurationError,
        )
        assert "NATS TLS files" in text


# --- who is there ---------------------------------------------------------------------------------


async def test_user_and_password(tmp_path: Path) -> None:
    config = 'authorization { user: "bob", password: "hunter2" }\n'
    async with nats_only(tmp_path, nats_config=config) as plain:
        await a_pipeline_runs(load(plain, NATS_USER="bob", NATS_PASSWORD="hunter2"))
        in_url = plain.nats_url.replace("://", "://bob:hunter2@")
        await a_pipeline_runs(load(plain, NATS_URL=in_url))
        for wrong in (
            load(plain, NATS_USER="bob", NATS_PASSWORD="hunter3"),
            load(plain, NATS_URL=plain.nats_url.replace("://", "://bob:hunter3@")),
            load(plain),
        ):
            text = await refused(wrong, PermissionDenied)
            assert "refuses these credentials" in text
            assert "hunter" not in text


async def test_a_login_that_comes_too_late_is_an_outage(tmp_path: Path) -> None:
    config = 'authorization { user: "bob", password: "hunter2", timeout: 2 }\n'
    async with nats_only(tmp_path, nats_config=config) as plain:
        _, _, address = plain.nats_url.rpartition("/")
        host, _, port = address.partition(":")

        async def late(theirs: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Pass on the server's welcome when it waits no longer for a login; reset that."""
            reader, far = await asyncio.open_connection(host, int(port))
            welcome = await reader.readline()
            await reader.read()
            writer.write(welcome)
            await theirs.read(1)
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            far.close()

        async with await asyncio.start_server(late, "127.0.0.1", 0) as listening:
            slow = f"nats://bob:hunter2@127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            text = await refused(load(plain, NATS_URL=slow), Unavailable)
    assert "hunter" not in text


async def test_a_token(tmp_path: Path) -> None:
    async with nats_only(tmp_path, nats_config='authorization { token: "hunter2" }\n') as plain:
        await a_pipeline_runs(load(plain, NATS_TOKEN="hunter2"))
        await a_pipeline_runs(load(plain, NATS_URL=plain.nats_url.replace("://", "://hunter2@")))
        text = await refused(load(plain, NATS_TOKEN="hunter3"), PermissionDenied)
        assert "hunter" not in text


async def test_an_nkey(tmp_path: Path) -> None:
    known, unknown = nkey(), nkey()
    files = {}
    for name, text in (("known", known.seed), ("unknown", unknown.seed + "\n"), ("bad", "SUX")):
        files[name] = write(tmp_path / name, text)
    config = f"authorization {{ users = [{{ nkey: {known.public} }}] }}\n"
    async with nats_only(tmp_path / "stack", nats_config=config) as plain:
        await a_pipeline_runs(load(plain, NATS_NKEY=files["known"]))
        await refused(load(plain, NATS_NKEY=files["unknown"]), PermissionDenied)
        text = await refused(load(plain, NATS_NKEY=files["bad"]), ConfigurationError)
        assert files["bad"] in text
        assert "MQINFER_NATS_NKEY" in text
        assert "SUX" not in text


async def test_credentials_of_an_operator(tmp_path: Path) -> None:
    operator = Operator()
    texts = {
        "good": operator.creds("worker"),
        "foreign": operator.creds("stranger", foreign=True),
        "empty": "",
        "no seed": operator.creds("worker").partition("-----BEGIN USER")[0],
        "broken seed": operator.creds("worker").replace("\nSU", "\nXX"),
    }
    files = {}
    for name, text in texts.items():
        files[name] = write(tmp_path / f"{name}.creds", text)
    async with nats_only(tmp_path / "stack", nats_config=operator.config()) as plain:
        await a_pipeline_runs(load(plain, NATS_CREDS=files["good"]))
        await refused(load(plain, NATS_CREDS=files["foreign"]), PermissionDenied)
        for name in ("empty", "no seed", "broken seed"):
            text = await refused(load(plain, NATS_CREDS=files[name]), ConfigurationError)
            assert files[name] in text
            assert "MQINFER_NATS_CREDS" in text
        await refused(load(plain), PermissionDenied)


async def test_nobody_there_is_an_outage() -> None:
    settings = Settings.load({"MQINFER_NATS_URL": "nats://bob:hunter2@127.0.0.1:9"})
    text = await refused(settings, Unavailable)
    assert "bob:***@127.0.0.1:9" in text
    assert "nobody listens there" in text


# --- the other servers ----------------------------------------------------------------------------


async def test_clickhouse_over_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    """A server that asks for a certificate gets ours, and the query with the password."""
    server, mine = authority.issue("server"), authority.issue("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cert = writer.get_extra_info("peercert")
        seen.append(dict(pair for (pair,) in cert["subject"])["commonName"])
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = b"Code: 516. DB::Exception: nobody may. (AUTHENTICATION_FAILED)"
            writer.write(b"HTTP/1.1 403 X\r\nX-ClickHouse-Exception-Code: 516\r\n")
            writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        tls = {
            "MQINFER_CLICKHOUSE_URL": f"https://bob:hunter2@127.0.0.1:{port}/default",
            "MQINFER_CLICKHOUSE_TLS_CA": authority.file,
        }
        certificate = {
            "MQINFER_CLICKHOUSE_TLS_CERT": mine.cert,
            "MQINFER_CLICKHOUSE_TLS_KEY": mine.key,
        }
        database = wiring.clickhouse(Settings.load({**tls, **certificate}))
        with pytest.raises(PermissionDenied, match="nobody may"):
            await database.command("SELECT 1")
        await database.close()
        assert set(seen) == {"client"}
        for variables in (tls, {"MQINFER_CLICKHOUSE_URL": tls["MQINFER_CLICKHOUSE_URL"]}):
            database = wiring.clickhouse(Settings.load(variables))
            with pytest.raises(MqinferError) as raised:
                await database.command("SELECT 1")
            assert "hunter2" not in str(raised.value)
            await database.close()


def test_half_a_client_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    mine = authority.issue("client")
    for server in ("NATS", "TRITON", "CLICKHOUSE"):
        with pytest.raises(ConfigurationError, match=f"MQINFER_{server}_TLS_KEY: set both"):
            Settings.load({f"MQINFER_{server}_TLS_CERT": mine.cert})


async def test_triton_over_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    """gRPC's own server stands for Triton: the handshake is what differs."""
    import grpc

    server, mine = authority.issue("server"), authority.issue("client")
    ready = "/inference.GRPCInferenceService/ServerReady"

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: object) -> object:
            async def answer(_request: bytes, _context: object) -> bytes:
                return b"\x08\x01"  # ready: true

            assert getattr(details, "method") == ready  # noqa: B009
            return grpc.unary_unary_rpc_method_handler(answer)

    pair = (read(server.key), read(server.cert))
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=read(authority.file), require_client_auth=True
    )
    listening = grpc.aio.server(handlers=(Handler(),))
    port = listening.add_secure_port("127.0.0.1:0", credentials)
    await listening.start()
    try:
        tls = {
            "MQINFER_TRITON_URL": f"grpcs://127.0.0.1:{port}",
            "MQINFER_TRITON_TLS_CA": authority.file,
        }
        certificate = {"MQINFER_TRITON_TLS_CERT": mine.cert, "MQINFER_TRITON_TLS_KEY": mine.key}
        triton = wiring.triton(Settings.load({**tls, **certificate}))
        await triton.ready()
        await triton.close()
        triton = wiring.triton(Settings.load(tls))
        with pytest.raises(Unavailable):
            await triton.ready()
        await triton.close()
    finally:
        await listening.stop(None)


# --- secrets --------------------------------------------------------------------------------------

SECRETS = {
    "nats": "n4ts-hunter2",
    "clickhouse": "ch-hunter2",
    "row": "r0w-hunter2",
}
WORKER = """
import asyncio, logging, os, sys
import mqinfer
from mqinfer import App, Message, Row, Settings, Worker
from mqinfer.observe import configure_logging

class Number(Message):
    value: int

class Result(Row, table="result", order_by=("value",)):
    value: int

app = App("quiet")
model = app.model("m")

@app.stage(attempts=1)
async def work(number: Number) -> Result:
    if number.value:
        raise RuntimeError(f"cannot open {os.environ['MQINFER_CLICKHOUSE_URL']}")
    return Result(1)

settings = Settings.load()
configure_logging("debug", sys.argv[1])
logging.getLogger().setLevel(logging.DEBUG)  # all that any library has to say
print(settings)

async def main():
    worker = Worker(app, settings=settings, wait="--no-wait" not in sys.argv)
    task = asyncio.create_task(worker.run())
    async def until_told():
        while not any("clickhouse" in reason.lower() for reason in worker.not_ready()):
            if task.done():
                return
            await asyncio.sleep(0.05)
    try:
        await asyncio.wait_for(until_told(), 60)
        print("not ready:", worker.not_ready())
        if not task.done():
            async with mqinfer.connect(app, settings) as client:
                await client.publish(Number(1))
                for _ in range(1200):
                    info = await client._services.broker.stream_info("quiet-dead")
                    if info and info["state"]["messages"]:
                        print("dead letter stored")
                        break
                    await asyncio.sleep(0.05)
        worker.stop()
    finally:
        await task

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "console"])
async def test_secrets_are_in_no_output(tmp_path: Path, form: str) -> None:
    """At debug level, with servers that are away or refuse, and a handler that tells its URL."""
    script = tmp_path / "quiet.py"
    script.write_text(WORKER)
    users = f'{{user: "bob", password: "{SECRETS["nats"]}"}}'
    config = f"authorization {{ users = [{users}] }}\n"

    async def run(url: str, *options: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            form,
            *options,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "MQINFER_NATS_URL": url,
                "MQINFER_CLICKHOUSE_URL": f"http://bob:{SECRETS['clickhouse']}@127.0.0.1:9/d",
                "MQINFER_TRITON_URL": "127.0.0.1:9",
                "MQINFER_BLOBS": str(tmp_path / "blobs"),
                "MQINFER_GRACE": "1",
            },
        )
        output, _ = await asyncio.wait_for(process.communicate(), 180)
        return output.decode()

    async with nats_only(tmp_path / "stack", nats_config=config) as plain:
        right = plain.nats_url.replace("://", f"://bob:{SECRETS['nats']}@")
        output = await run(right)
        assert "not ready: " in output
        assert "dead letter stored" in output
        assert "bob:***@" in output
        wrong = plain.nats_url.replace("://", f"://alice:{SECRETS['nats']}@")
        denied = await run(wrong)
        assert "refuses these credentials" in denied
        away = await run(f"nats://bob:{SECRETS['nats']}@127.0.0.1:9", "--no-wait")
        assert "bob:***@127.0.0.1:9" in away
    for text in (output, denied, away):
        for name, secret in SECRETS.items():
            assert secret not in text, name
