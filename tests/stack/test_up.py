"""The whole stack: ports, lock, signals, and that nothing outlives it."""

import asyncio
import contextlib
import glob
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import clickhouse_connect
import nats
import psutil
import pytest
import pytest_asyncio
from onnx import TensorProto

from mqinfer.backoff import Backoff
from mqinfer.stack import (
    NatsServer,
    Stack,
    StackConfigurationError,
    StackError,
    StackSettings,
    TritonServer,
    run_up,
)
from mqinfer.testing import until
from tests.support.models import save_echo
from tests.support.triton import why_no_triton

UP = """
import asyncio, sys
from pathlib import Path
from mqinfer.stack import StackSettings, run_up
settings = StackSettings.free_ports(
    Path(sys.argv[1]), models=Path(sys.argv[2]), triton=sys.argv[3] == "triton"
)
sys.exit(asyncio.run(run_up(settings, out=lambda line: print(line, flush=True))))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("stack") / "with space"
    async with Stack(StackSettings.free_ports(directory)) as stack:
        yield stack


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, as each instance of it is a process that must not outlive the stack."""
    root = tmp_path_factory.mktemp("models")
    save_echo(root, "same", TensorProto.FLOAT, ["n", 1])
    return root


def shared_memory(stack: Path) -> list[str]:
    """What the models of this stack use of it; those of other stacks use some too."""
    return glob.glob(TritonServer(stack / "triton", log=stack / "log").leftovers())  # noqa: PTH207


@contextlib.contextmanager
def up(
    directory: Path, models: Path, triton: str = "triton"
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Run ``up`` in a process of its own; gives it and what it started, when ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", UP, str(directory), str(models), triton],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready in "), line
        yield process, psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def wait_gone(processes: list[psutil.Process], seconds: float = 60) -> list[psutil.Process]:
    """Wait for the processes to end; gives those that did not."""
    deadline = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < deadline:
        left = [
            process
            for process in left
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        time.sleep(0.02)
    return left


async def test_all_three_answer_and_workers_find_them(stack: Stack) -> None:
    environment = stack.environment()
    assert environment == {
        "MQINFER_NATS_URL": stack.nats_url,
        "MQINFER_TRITON_URL": stack.triton_url,
        "MQINFER_CLICKHOUSE_URL": stack.clickhouse_url,
        "MQINFER_BLOBS": str(stack.dir / "blobs"),
    }
    assert Path(environment["MQINFER_BLOBS"]).is_absolute()
    assert stack.blobs.is_dir()
    client = await asyncio.to_thread(clickhouse_connect.get_client, dsn=stack.clickhouse_url)
    assert client.command("SELECT 1") == 1
    client.close()
    assert stack.triton is not None
    assert await stack.triton.model_states() == []
    for name in ("nats", "triton", "clickhouse"):
        assert (stack.dir / "logs" / f"{name}.log").stat().st_size > 0


async def test_jetstream_keeps_messages_over_a_kill(stack: Stack) -> None:
    server = stack.nats
    assert server is not None
    connection = await nats.connect(stack.nats_url)
    stream = connection.jetstream()
    await stream.add_stream(name="kept", subjects=["kept.>"])
    large = b"x" * (4 * 1024 * 1024)  # more than the server's own default allows
    assert (await stream.publish("kept.a", large)).seq == 1
    await connection.close()

    server.kill()
    await server.start()
    await server.wait_ready()
    connection = await nats.connect(stack.nats_url)
    message = await connection.jetstream().get_msg("kept", 1)
    assert message.data == large
    await connection.close()


async def test_a_second_stack_on_the_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(StackConfigurationError, match=rf"process {os.getpid()}.*--dir"):
        await Stack(StackSettings.free_ports(stack.dir)).start()


async def test_a_taken_port_is_named_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    assert stack.clickhouse is not None
    port = stack.clickhouse.port
    settings = StackSettings.free_ports(tmp_path / "new", clickhouse_port=port)
    lines: list[str] = []
    assert await run_up(settings, out=lines.append) == 2
    assert len(lines) == 1
    assert f"port {port} for ClickHouse HTTP is taken" in lines[0]
    assert "--clickhouse-port" in lines[0]
    assert not (tmp_path / "new" / "logs").exists()


async def test_running_twice_is_refused(stack: Stack) -> None:
    assert stack.nats is not None
    with pytest.raises(StackError, match="NATS is running already"):
        await stack.nats.start()


async def test_a_bad_configuration_shows_the_log(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, log=tmp_path / "nats.log", extra_config="no_such_option: 1")
    await server.start()
    with pytest.raises(StackError, match=r"(?s)exit code 1.*no_such_option"):
        await server.wait_ready()
    await server.stop()


async def test_extra_configuration_with_users(tmp_path: Path) -> None:
    users = 'authorization { users: [ { user: "a", password: "b" } ] }'
    server = NatsServer(tmp_path / "nats", log=tmp_path / "log", extra_config=users)
    await server.start()
    await server.wait_ready()
    connection = await nats.connect(server.url, user="a", password="b")
    assert (await connection.jetstream().account_info()).streams == 0
    await connection.close()
    await server.stop()


@pytest.mark.parametrize("restart", [False, True])
async def test_a_death_ends_the_stack_or_is_mended(tmp_path: Path, restart: bool) -> None:
    settings = StackSettings.free_ports(tmp_path, triton=False, clickhouse=False, restart=restart)
    said: list[str] = []
    async with Stack(settings, say=said.append) as stack:
        assert stack.nats is not None
        first = stack.nats.pid
        watch = asyncio.create_task(stack.watch())
        stack.nats.kill()
        async with asyncio.timeout(60):
            if restart:
                while stack.nats.pid in (first, None):
                    assert not watch.done()
                    await asyncio.sleep(0.01)
                await until(lambda: len(said) == 2, "that it is back")
                watch.cancel()
                assert said[0].startswith("warning: NATS was ended by SIGKILL, and is started")
                assert said[1].startswith("NATS is back, ")
            else:
                with pytest.raises(StackError, match=r"NATS was ended by SIGKILL"):
                    await watch
    with pytest.raises(StackError, match="Triton is not part of this stack"):
        _ = stack.triton_url


async def test_what_dies_each_time_it_is_started_ends_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqinfer.supervise.lives._AGAIN", Backoff(initial=0.01))
    settings = StackSettings.free_ports(tmp_path, triton=False, clickhouse=False, restart=True)
    said: list[str] = []
    async with Stack(settings, say=said.append) as stack, asyncio.timeout(60):
        assert stack.nats is not None
        stack.nats.extra_config = "no_such_option: 1"
        stack.nats.kill()
        with pytest.raises(StackError, match=r"(?s)exit code 1.*no_such_option"):
            await stack.watch()
    assert len(said) == 5
    assert "SIGKILL" in said[0]
    assert all("NATS ended with exit code 1, and is started again" in line for line in said[1:])


async def test_cancelled_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    stack = Stack(StackSettings.free_ports(tmp_path))
    start = asyncio.create_task(stack.start())
    async with asyncio.timeout(60):
        while not all(server.running for server in stack.servers):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    family = [
        process
        for process in psutil.Process().children(recursive=True)
        if str(tmp_path) in " ".join(process.cmdline())
    ]
    assert family
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert await asyncio.to_thread(wait_gone, family) == []


def test_killing_the_parent_leaves_no_process(tmp_path: Path, models: Path) -> None:
    with up(tmp_path / "stack", models) as (process, family):
        assert len(family) >= 7  # three guards, three servers, one model instance
        assert shared_memory(tmp_path / "stack") or why_no_triton()  # ours has none with a name
        process.kill()
        process.wait(60)
        assert wait_gone(family) == []
        assert not shared_memory(tmp_path / "stack")
    # The lock went with it, and so did the ports.
    with up(tmp_path / "stack", models) as (process, family):
        # The guards die too: the kernel kills what they guarded.
        for guard in psutil.Process(process.pid).children():
            guard.kill()
        assert wait_gone(family) == []
        assert process.wait(60) == 1
        assert not shared_memory(tmp_path / "stack")


@pytest.mark.parametrize(
    ("number", "triton"), [(signal.SIGTERM, "triton"), (signal.SIGINT, "no triton")]
)
def test_a_signal_stops_in_order(
    tmp_path: Path, models: Path, number: signal.Signals, triton: str
) -> None:
    with up(tmp_path, models, triton) as (process, family):
        process.send_signal(number)
        assert process.wait(60) == 0
        assert wait_gone(family, 1) == []


def test_ports_in_use_elsewhere_are_seen() -> None:
    from mqinfer.stack.ports import free_port, is_free

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
    assert len({free_port() for _ in range(20)}) == 20


def test_a_port_that_another_process_has_in_hand_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mqinfer.stack import ports

    other = "from mqinfer.stack.ports import free_port; print(free_port(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", other],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # as a process of a test may have
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        taken = int(process.stdout.readline())
        assert ports.is_free(taken)  # its server does not listen yet
        monkeypatch.setattr(ports, "_FIRST", taken)
        monkeypatch.setattr(ports, "_LAST", taken)
        with pytest.raises(StackError, match="no free port"):
            ports.free_port()
        process.communicate("")
    assert ports.free_port() == taken
