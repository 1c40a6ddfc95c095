"""Servers that are installed on the machine are taken before the embedded ones."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import clickhouse_connect
import nats
import numpy as np
import psutil
import pytest
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from mqinfer.stack import Stack, StackConfigurationError, StackError, StackSettings, run_up
from mqinfer.stack.errors import NotInstalled
from mqinfer.stack.nats import find_nats_server
from mqinfer.stack.onpath import ClickHouseOnPath
from mqinfer.stack.programs import CLICKHOUSE, NATS, Program
from mqinfer.stack.triton import TritonServer
from tests.support.models import save_scale

# Stands for a ClickHouse, which no package of Python brings: tells a version, reads its
# configuration as the real one does, and has the embedded front serve the port.
CLICKHOUSE_STANDIN = f"""#!{sys.executable}
import hashlib, os, sys
from xml.etree import ElementTree
sys.path[:0] = {sys.path!r}
what, *rest = sys.argv[1:]
assert what == "server"
if rest == ["--version"]:
    sys.exit(print("ClickHouse server version 25.8.2.29 (official build)."))
(flag,) = rest
config = ElementTree.parse(flag.removeprefix("--config-file=")).getroot()
assert config.tag == "clickhouse" and config.findtext("listen_host") == "127.0.0.1"
password = os.environ.get("STANDIN_PASSWORD", "")
secret = config.findtext("users/default/password_sha256_hex")
assert secret == (hashlib.sha256(password.encode()).hexdigest() if password else None)
os.environ["MQINFER_STACK_CLICKHOUSE_PASSWORD"] = password
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
os.execv(sys.executable, [
    sys.executable, "-m", "mqinfer.stack.clickhouse", "--user=default",
    "--directory=" + config.findtext("path"), "--port=" + config.findtext("http_port"),
])
"""


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: A001
    """A folder that is first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def install(folder: Path, name: str, script: str) -> Path:
    program = folder / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    return program


def install_nats(folder: Path) -> Path:
    """The embedded one, as one of its own."""
    return Path(shutil.copy(find_nats_server(), folder / "nats-server"))


def chosen(folder: Path, *wanted: str, **changes: object) -> StackSettings:
    parts = {name: name in wanted for name in ("nats", "triton", "clickhouse")}
    return StackSettings.free_ports(folder, **{"servers": "auto", **parts, **changes})


# --- finding ------------------------------------------------------------------------------------


def test_the_embedded_one_is_not_one_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an environment that is activated has it on the PATH."""
    embedded = find_nats_server()
    monkeypatch.setenv("PATH", f"{embedded.parent}")
    with pytest.raises(NotInstalled, match=r"no nats-server on the PATH.*--servers embedded"):
        NATS.find()
    (tmp_path / "nats-server").symlink_to(embedded)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{embedded.parent}")
    with pytest.raises(NotInstalled):
        NATS.find()
    (tmp_path / "nats-server").unlink()
    other = install_nats(tmp_path)
    monkeypatch.setenv("PATH", f"{embedded.parent}{os.pathsep}{tmp_path}")
    assert NATS.find() == other  # behind it


def test_what_cannot_be_run_is_not_found(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: A002
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}.{os.pathsep}")
    (bin / "clickhouse").mkdir()
    (bin / "clickhouse-server").write_text("no program")
    monkeypatch.chdir(bin)
    install(bin / "here", "clickhouse", "#!/bin/sh\n")
    monkeypatch.chdir(bin / "here")  # the current folder is no place for servers
    with pytest.raises(NotInstalled, match="no clickhouse or clickhouse-server"):
        CLICKHOUSE.find()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho nats-server: v2.9.10\n", "is version 2.9.10, and .* needs 2.12 or later"),
        ("#!/bin/sh\necho oh, no >&2; exit 127\n", "does not tell a version, but: oh, no"),
        ("#!/bin/sh\necho hello\n", "does not tell a version, but: hello"),
        ("#!/bin/sh\nsleep 600\n", "gave no answer in 0.2 s"),
        ("#!/no/such/interpreter\n", "does not run: No such file"),
        ("no program", "does not run: Exec format error"),
    ],
)
def test_what_is_no_use_says_why(
    bin: Path,  # noqa: A002
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    says: str,
) -> None:
    monkeypatch.setattr("mqinfer.stack.programs._ANSWER_SECONDS", 0.2 if "sleep" in script else 60)
    with pytest.raises(StackConfigurationError, match=says):
        NATS.check(install(bin, "nats-server", script))


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("nats-server: v2.12.0", "2.12.0"),
        ("nats-server: v2.12.0-RC.2", "2.12.0"),
        ("nats-server: v3.0.1", "3.0.1"),
    ],
)
def test_versions_that_serve(bin: Path, told: str, version: str) -> None:  # noqa: A002
    assert NATS.check(install(bin, "nats-server", f"#!/bin/sh\necho {told}\n")) == version


def test_one_program_of_many_parts(bin: Path) -> None:  # noqa: A002
    assert CLICKHOUSE.command(bin / "clickhouse")[1:] == ["server"]
    assert CLICKHOUSE.command(bin / "clickhouse-server")[1:] == []
    assert Program(names=("any",)).check(bin / "any") == ""


# --- running ------------------------------------------------------------------------------------


async def test_nats_of_the_path_keeps_the_streams_of_the_embedded_one(
    bin: Path,  # noqa: A002
    tmp_path: Path,
) -> None:
    async with Stack(chosen(tmp_path / "stack", "nats")) as stack:
        assert stack.nats is not None
        assert stack.nats.program is None
        connection = await nats.connect(stack.nats_url)
        await connection.jetstream().add_stream(name="kept", subjects=["kept"])
        await connection.jetstream().publish("kept", b"1")
        await connection.close()
    program = install_nats(bin)
    lines: list[str] = []
    async with Stack(chosen(tmp_path / "stack", "nats"), say=lines.append) as stack:
        assert stack.nats is not None
        assert stack.nats.program == program
        assert psutil.Process(stack.nats.pid).exe() == str(program)
        assert stack.nats.version.count(".") == 2
        connection = await nats.connect(stack.nats_url)
        assert (await connection.jetstream().stream_info("kept")).state.messages == 1
        await connection.close()
    assert lines == []
    async with Stack(chosen(tmp_path / "stack", "nats", servers="embedded")) as stack:
        assert stack.nats is not None
        assert stack.nats.program is None


async def test_clickhouse_of_the_path(
    bin: Path,  # noqa: A002
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = install(bin, "clickhouse", CLICKHOUSE_STANDIN)
    monkeypatch.setenv("STANDIN_PASSWORD", "s3:cret/@<")
    settings = chosen(tmp_path / "a < b", "clickhouse", clickhouse_password="s3:cret/@<")
    async with Stack(settings) as stack:
        server = stack.clickhouse
        assert isinstance(server, ClickHouseOnPath)
        assert server.program == program
        client = await asyncio.to_thread(clickhouse_connect.get_client, dsn=stack.clickhouse_url)
        assert client.command("SELECT 1") == 1
        client.close()
        listening = {
            one.laddr
            for process in (psutil.Process(server.pid), *psutil.Process(server.pid).children(True))
            for one in process.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", server.port)}
        text = server.config_file.read_text()
        assert "s3:cret" not in text
        assert server.config_file.stat().st_mode & 0o077 == 0
        config = ElementTree.fromstring(text)
        assert [one.text for one in config.iter("ip")] == ["127.0.0.1"]
        for place in ("path", "tmp_path", "user_files_path", "format_schema_path"):
            assert str(config.findtext(place)).startswith(f"{settings.dir}/clickhouse-server/")
        assert not {"tcp_port", "interserver_http_port", "mysql_port"} & {one.tag for one in config}


@pytest.mark.parametrize(
    ("path", "headers", "answer"),
    [
        ("/ping", {"Host": "127.0.0.1"}, "Ok."),
        ("/ping", {"Host": "evil.example"}, "404"),
        ("/", {"Host": "127.0.0.1:8123"}, "query"),
        ("/", {"Host": "localhost"}, "query"),
        ("/", {"Host": "[::1]:8123", "Sec-Fetch-Site": "none"}, "query"),
        ("/", {"Host": "laptop:9"}, "query"),
        ("/", {"Host": "host.docker.internal:8123"}, "query"),
        ("/", {"Host": "evil.example:8123"}, "404"),
        ("/", {"Host": "127.0.0.1.evil.example"}, "404"),
        ("/", {"Host": "evil.localhost.example"}, "404"),
        ("/", {"Host": "127.0.0.1", "Origin": "http://evil.example"}, "403"),
        ("/", {"Host": "127.0.0.1", "Origin": "null"}, "403"),
        ("/", {"Host": "127.0.0.1", "Sec-Fetch-Site": "cross-site"}, "403"),
        ("/", {"Host": "127.0.0.1", "Sec-Fetch-Site": "same-site"}, "403"),
    ],
)
def test_clickhouse_is_told_to_turn_pages_away(
    tmp_path: Path, path: str, headers: dict[str, str], answer: str
) -> None:
    """Its rules are applied as it would: the first that fits, and absent headers are empty."""
    server = ClickHouseOnPath(tmp_path, log=tmp_path / "log")
    server.prepare()
    rules = ElementTree.parse(server.config_file).getroot().find("http_handlers")
    assert rules is not None
    for rule in rules:
        asked = {one.tag: str(one.text) for one in rule.findall("headers/*")}
        if rule.findtext("url") in (None, path) and all(
            re.fullmatch(text.removeprefix("regex:"), headers.get(name, ""))
            for name, text in asked.items()
        ):
            handler = rule.find("handler")
            assert handler is not None
            kind = handler.findtext("type")
            found = handler.findtext("status") or {"static": "Ok."}.get(str(kind), "query")
            break
    else:
        found = "404"
    assert found == answer


async def test_the_tables_of_the_other_kind_are_told_of(
    bin: Path,  # noqa: A002
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    async with Stack(chosen(tmp_path / "stack", "clickhouse"), say=lines.append):
        pass
    assert lines == []
    install(bin, "clickhouse", CLICKHOUSE_STANDIN)
    for _ in range(2):  # the second time it has tables of its own
        async with Stack(chosen(tmp_path / "stack", "clickhouse"), say=lines.append):
            pass
    (line,) = lines
    assert f"begins without tables: those of earlier starts are in {tmp_path}" in line
    assert "--servers embedded has them" in line


@pytest.mark.triton
async def test_triton_of_the_path_with_its_own_backends(
    bin: Path,  # noqa: A002
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    save_scale(models, "1", 2.0)
    real = TritonServer(tmp_path / "wheel", log=tmp_path / "log", models=models)
    real.prepare()
    shutil.move(tmp_path / "wheel" / "backends", tmp_path / "triton" / "backends")
    variables = "\n".join(f"export {name}='{value}'" for name, value in real.environment().items())
    program, *_ = real.command()
    script = f'#!/bin/sh\n{variables}\nexec {program} "$@"\n'
    install(tmp_path / "triton" / "bin", "tritonserver", script)
    (bin / "tritonserver").symlink_to(tmp_path / "triton" / "bin" / "tritonserver")
    async with Stack(chosen(tmp_path / "stack", "triton", models=models)) as stack:
        assert stack.triton is not None
        assert stack.triton.program == bin / "tritonserver"
        assert stack.triton.version.count(".") == 2
        assert not (tmp_path / "stack" / "triton" / "backends").exists()
        array = np.ones((1, 2), np.float32)
        tensor = InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(array)
        async with InferenceServerClient(stack.triton_url) as client:
            result = await client.infer("scale", [tensor], client_timeout=60)
        assert result.as_numpy("y").tolist() == [[2.0, 2.0]]


# --- what is not taken --------------------------------------------------------------------------


async def test_an_old_one_is_told_of_and_not_taken(bin: Path, tmp_path: Path) -> None:  # noqa: A002
    program = install(bin, "nats-server", "#!/bin/sh\necho nats-server: v2.9.10\n")
    lines: list[str] = []
    async with Stack(chosen(tmp_path / "stack", "nats"), say=lines.append) as stack:
        assert stack.nats is not None
        assert stack.nats.program is None
    (line,) = lines
    assert line.startswith(f"warning: {program} is not used, but the embedded NATS: ")
    assert "2.9.10" in line


async def test_one_that_does_not_start_leaves_its_place(bin: Path, tmp_path: Path) -> None:  # noqa: A002
    script = '#!/bin/sh\n[ "$2" = --version ] && echo 25.8.1.1 && exit\necho oh, no; exit 70\n'
    program = install(bin, "clickhouse", script)
    lines: list[str] = []
    async with Stack(chosen(tmp_path / "stack", "clickhouse"), say=lines.append) as stack:
        assert stack.clickhouse is not None
        assert stack.clickhouse.program is None
        client = await asyncio.to_thread(clickhouse_connect.get_client, dsn=stack.clickhouse_url)
        assert client.command("SELECT 1") == 1
        client.close()
    (line,) = lines
    assert line.startswith(f"warning: {program} is not used, but the embedded ClickHouse: ")
    assert "exit code 70" in line
    assert "oh, no" in line
    settings = chosen(tmp_path / "stack", "clickhouse", servers="path")
    with pytest.raises(StackError, match=r"(?s)exit code 70.*oh, no"):
        await Stack(settings).start()


async def test_of_the_path_alone(
    bin: Path,  # noqa: A002
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{bin}")
    lines: list[str] = []
    settings = chosen(tmp_path / "stack", "nats", "clickhouse", servers="path")
    assert await run_up(settings, out=lines.append) == 2
    assert lines == [
        "error: there is no nats-server on the PATH: install it, or take the embedded one with "
        "--servers embedded"
    ]
    install_nats(bin)
    assert await run_up(settings, out=lines.append) == 2
    assert "there is no clickhouse or clickhouse-server on the PATH" in lines[1]
    assert not (tmp_path / "stack" / "logs").exists()  # nothing was started
