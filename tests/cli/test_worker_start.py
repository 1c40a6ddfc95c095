"""The start of `mqinfer worker`: servers are waited for, and a signal ends it at any moment."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psutil
import pytest

from mqinfer.stack.nats import NatsServer
from mqinfer.stack.ports import free_port
from tests.support.cli import APP, TIMEOUT, Shell, event, until

pytestmark = pytest.mark.usefixtures("executed")

COUNT = "--stage=count"
SLEEPER = """
import time
from pathlib import Path
Path("importing").touch()
{sleep}
from mqinfer import App
app = App("sleeper")
"""
# The supervisor imports it first, and its children sleep.
CHILDREN_SLEEP = """
import os, time
from pathlib import Path
try:
    Path("supervisor").touch(exist_ok=False)
except FileExistsError:
    Path(f"child-{os.getpid()}").touch()
    time.sleep(3600)
"""
SLOW_LIFESPAN = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def slow():
    Path("entering").touch()
    try:
        await asyncio.sleep(3600)
        yield
    finally:
        Path("left").touch()
"""


@contextmanager
def running(server: NatsServer) -> Iterator[NatsServer]:
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


def publish(shell: Shell, *texts: str) -> None:
    path = shell.folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    code, _, err = shell.run("publish", shell.app, "word", str(path))
    assert code == 0, err


def events(process: subprocess.Popen[str], *names: str) -> dict[str, dict[str, Any]]:
    """Read the log until each of these events was there, in whatever order."""
    found: dict[str, dict[str, Any]] = {}
    assert process.stderr is not None
    while missing := set(names) - found.keys():
        line = process.stderr.readline()
        assert line, f"no {missing}"
        if line.startswith("{") and (entry := json.loads(line))["event"] in missing:
            found[entry["event"]] = entry
    return found


def ends_in_order(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Send a signal; what it said until its end."""
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return err


def fails_in_one_line(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# --- servers that are away ----------------------------------------------------------------------


def test_it_waits_for_nats_says_so_once_and_works_when_it_comes(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NatsServer(shell.folder / "nats", log=shell.folder / "nats.log")
    monkeypatch.setenv("MQINFER_NATS_URL", server.url)
    worker = shell.start("worker", shell.app, COUNT, "--http=0")
    said = events(worker, "serving HTTP", "waiting for NATS")
    reason = said["waiting for NATS"]["reason"]
    assert f"NATS at {server.url}" in reason
    url = said["serving HTTP"]["url"]
    assert get(f"{url}/healthz")[0] == 200
    status, text = get(f"{url}/readyz")
    assert status == 503
    assert f"NATS at {server.url}" in text
    with running(server):
        # Whatever is between the two lines is said again: there is nothing.
        assert worker.stderr is not None
        assert json.loads(worker.stderr.readline())["event"] == "NATS answers"
        event(worker, "started")
        until(lambda: get(f"{url}/readyz")[0] == 200)
        publish(shell, "a")
        until((shell.folder / "counted").exists)
        ends_in_order(worker)


def test_a_run_waits_for_nats(served: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(served, "a")
    served.drain("count")
    url = os.environ["MQINFER_NATS_URL"]
    monkeypatch.setenv("MQINFER_NATS_URL", f"nats://127.0.0.1:{free_port()}")
    worker = served.start("worker", served.app, "--run=r1")
    event(worker, "waiting for NATS")
    ends_in_order(worker)
    monkeypatch.setenv("MQINFER_NATS_URL", url)
    worker = served.start("worker", served.app, "--run=r1")  # there is none: waiting does not help
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 2, err
    assert "r1" in err


@contextmanager
def half_open() -> Iterator[socket.socket]:
    """A listener; whoever connects is accepted and gets no answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        yield listener


def test_a_server_that_accepts_and_says_nothing_is_waited_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with half_open() as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("MQINFER_NATS_URL", f"nats://127.0.0.1:{port}")
        worker = shell.start("worker", shell.app, COUNT)
        with closing(listener.accept()[0]):  # in the middle of connecting
            ends_in_order(worker)
        worker = shell.start("worker", shell.app, COUNT)
        event(worker, "waiting for NATS")
        ends_in_order(worker)
        fails_in_one_line(shell.start("worker", shell.app, COUNT, "--no-wait"))


def test_a_cluster_without_a_leader_is_waited_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    one, *others = (
        NatsServer(
            shell.folder / f"n{number}",
            log=shell.folder / f"n{number}.log",
            server_name=f"n{number}",
            extra_config=f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}] }}',
        )
        for number, port in enumerate(ports)
    )
    monkeypatch.setenv("MQINFER_NATS_URL", one.url)
    with ExitStack() as stack:
        stack.enter_context(running(one))
        worker = shell.start("worker", shell.app, COUNT)
        assert "JetStream" in event(worker, "waiting for NATS")["reason"]
        ends_in_order(worker)
        line = fails_in_one_line(shell.start("worker", shell.app, COUNT, "--no-wait"))
        assert "JetStream" in line
        worker = shell.start("worker", shell.app, COUNT)
        event(worker, "waiting for NATS")
        for other in others:
            stack.enter_context(running(other))
        event(worker, "NATS answers")
        event(worker, "started")
        ends_in_order(worker)


@pytest.mark.parametrize("processes", [1, 2])
def test_no_wait_fails_at_once(shell: Shell, processes: int) -> None:
    worker = shell.start("worker", shell.app, "--no-wait", f"--processes={processes}")
    assert "NATS at nats://127.0.0.1:1" in fails_in_one_line(worker)


def test_a_refused_login_is_not_waited_for(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NatsServer(
        shell.folder / "nats",
        log=shell.folder / "nats.log",
        extra_config='authorization { user: "a", password: "b" }',
    )
    monkeypatch.setenv("MQINFER_NATS_URL", server.url)
    with running(server):
        asyncio.run(server.wait_ready())
        line = fails_in_one_line(shell.start("worker", shell.app, COUNT))
    assert "refuses these credentials" in line


def away(served: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", "http://default@127.0.0.1:1/default")
    monkeypatch.setenv("MQINFER_TRITON_URL", "127.0.0.1:1")


def test_clickhouse_is_waited_for(served: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    away(served, monkeypatch)
    sink = f"--stage=sink-length_{served.name}"
    worker = served.start("worker", served.app, sink)
    assert "127.0.0.1:1" in event(worker, "waiting for ClickHouse")["reason"]
    ends_in_order(worker)
    line = fails_in_one_line(served.start("worker", served.app, sink, "--no-wait"))
    assert "127.0.0.1:1" in line


def test_triton_is_waited_for(served: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    away(served, monkeypatch)
    source = (served.folder / f"{served.name}.py").read_text().replace(served.name, "{name}")
    source = source.replace(
        "@app.stage\nasync def count(",
        'm = app.model("m")\n@app.stage(models=[m])\nasync def count(',
    )
    app = served.write(source)
    worker = served.start("worker", app, COUNT)
    assert "127.0.0.1:1" in event(worker, "triton is down")["reason"]
    ends_in_order(worker)
    line = fails_in_one_line(served.start("worker", app, COUNT, "--no-wait"))
    assert "127.0.0.1:1" in line


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "sleep",
    [
        "time.sleep(3600)",
        "try:\n    time.sleep(3600)\nexcept BaseException:\n    pass",
        "try:\n    time.sleep(3600)\nexcept SystemExit as error:\n    raise ImportError from error",
    ],
    ids=["plain", "swallowed", "changed"],
)
def test_a_signal_while_the_app_is_imported(shell: Shell, sleep: str, number: int) -> None:
    app = shell.write(SLEEPER.replace("{sleep}", sleep))
    worker = shell.start("worker", app)
    until((shell.folder / "importing").exists)
    assert ends_in_order(worker, number) == ""


def test_a_second_signal_while_the_app_is_imported(shell: Shell) -> None:
    deaf = "while True:\n    try:\n        time.sleep(3600)\n    except BaseException:\n"
    app = shell.write(SLEEPER.replace("{sleep}", f'{deaf}        Path("once").touch()'))
    worker = shell.start("worker", app)
    until((shell.folder / "importing").exists)
    worker.send_signal(signal.SIGTERM)
    until((shell.folder / "once").exists)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT) == 130


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_while_it_waits_for_nats(shell: Shell, processes: int) -> None:
    worker = shell.start("worker", shell.app, f"--processes={processes}")
    event(worker, "waiting for NATS")
    ends_in_order(worker)


@pytest.mark.parametrize("where", ["app", "stage"])
def test_a_signal_while_a_lifespan_begins(served: Shell, where: str) -> None:
    source = (served.folder / f"{served.name}.py").read_text().replace(served.name, "{name}")
    source = (
        source.replace("app = App(", f"{SLOW_LIFESPAN}\napp = App(lifespan=slow, name=", 1)
        if where == "app"
        else source.replace(
            "@app.stage\nasync def count(",
            f"{SLOW_LIFESPAN}\n@app.stage(lifespan=slow)\nasync def count(",
        )
    )
    worker = served.start("worker", served.write(source), COUNT)
    until((served.folder / "entering").exists)
    ends_in_order(worker)
    assert (served.folder / "left").exists()


def test_a_signal_right_after_the_start(served: Shell) -> None:
    worker = served.start("worker", served.app, COUNT)
    event(worker, "started")
    ends_in_order(worker)


def test_a_signal_while_the_children_are_starting(shell: Shell) -> None:
    app = shell.write(CHILDREN_SLEEP + APP.partition("annotations")[2])
    worker = shell.start("worker", app, "--processes=2")
    until(lambda: len(list(shell.folder.glob("child-*"))) == 2)
    ends_in_order(worker)
    pids = [int(path.name.partition("-")[2]) for path in shell.folder.glob("child-*")]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_children_that_have_only_just_begun_end_in_order(shell: Shell) -> None:
    worker = shell.start("worker", shell.app, "--processes=2")
    event(worker, "process started", process=1)  # its interpreter has hardly begun
    ends_in_order(worker)
