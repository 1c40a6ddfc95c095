"""`mqinfer up`: readiness line, signals, and what it says when it cannot start."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.cli import TIMEOUT, Shell, command, until

pytest.importorskip("chdb")
FREE = ["--nats-port=0", "--no-triton", "--no-clickhouse"]
FREE.append("--servers=embedded")  # whatever is installed on this machine


def test_it_runs_until_a_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("up", *FREE, f"--dir={tmp_path}"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().startswith("ready in ")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopping\nstopped\n"
    assert process.wait(TIMEOUT) == 0


def test_it_says_when_a_server_died_and_when_it_is_back(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("up", *FREE, "--restart", f"--dir={tmp_path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline().startswith("ready in ")
        (guard,) = psutil.Process(process.pid).children()
        (server,) = guard.children()
        server.kill()
        line = out.readline()
        assert line.startswith("warning: NATS was ended by SIGKILL, and is started again in 0.5 s")
        assert str(tmp_path / "logs" / "nats.log") in line
        assert out.readline().startswith("NATS is back, ")
        process.send_signal(signal.SIGTERM)
        assert out.read() == "stopping\nstopped\n"
    assert process.wait(TIMEOUT) == 0


def test_a_signal_while_it_starts(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("up", *FREE, f"--dir={tmp_path}"), stderr=subprocess.PIPE, text=True
    )
    until((tmp_path / "lock").exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")


def test_a_taken_port_is_a_usage_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("up", *FREE[1:], f"--nats-port={port}", f"--dir={tmp_path}"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert f"{port}" in done.stderr
    assert "--nats-port" in done.stderr


@pytest.mark.parametrize(("flags", "variable"), [(["--servers=mine"], ""), ([], "mine")])
def test_servers_of_no_kind_are_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, flags: list[str], variable: str
) -> None:
    monkeypatch.setenv("MQINFER_SERVERS", variable)
    code, _, err = shell.run("up", *flags)
    assert code == 2
    assert "must be one of auto, embedded, path" in err


def test_the_ready_line_says_which_programs_run(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("up", *FREE, f"--dir={tmp_path}"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as out:
        line = out.readline()
        assert re.search(r"NATS nats://127.0.0.1:\d+ \(embedded, version \d+\.\d+\.\d+\); ", line)
        process.send_signal(signal.SIGTERM)
        out.read()
    assert process.wait(TIMEOUT) == 0


def test_a_missing_extra_says_what_to_install(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("mqinfer.stack")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mqinfer.stack", None)
    code, _, err = shell.run("up")
    assert code == 2
    assert "pip install 'mqinfer[embedded]'" in err
