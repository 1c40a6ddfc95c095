"""`mqinfer worker` and `mqinfer status`: real processes, signals and exit codes."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from mqinfer.rowpacks import layout
from mqinfer.rowpacks.which import row_subject
from tests.cli.test_dead import scan
from tests.support.cli import TIMEOUT, Shell, event, until


def publish(shell: Shell, *texts: str) -> None:
    path = shell.folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    code, _, err = shell.run("publish", shell.app, "word", str(path))
    assert code == 0, err


def test_drain_ends_when_all_is_done(served: Shell) -> None:
    publish(served, "a", "reject", "bb")
    before = served.json("status", served.app, "--interval", "0")
    assert not any(stage["exists"] for stage in before["stages"])
    assert any("stage measure: never started" in text for text in before["warnings"])

    served.drain()

    after = served.json("status", served.app)
    stages = {stage["name"]: stage for stage in after["stages"]}
    assert {f"sink-length_{served.name}", "measure", "count", "greet"} <= set(stages)
    assert all(stage["lag"] == 0 for stage in stages.values())
    assert stages["measure"]["dead"] == after["dead"] == 1
    assert stages["measure"]["rate"] == 0
    packs = [one for one in scan(served, served.name) if row_subject(one.subject)]
    assert sum(layout.count(pack.data) for pack in packs) == 2
    assert after["stream"]["messages"] == 3 + len(packs)
    code, out, _ = served.run("status", served.app, "--interval=0")
    assert code == 0
    assert "0 messages to do, 1 dead letters" in out
    assert "! stage measure: 1 dead letter (see: mqinfer dead list)" in out


def test_status_warns_of_messages_that_nobody_asks_for(served: Shell) -> None:
    served.drain("count")
    publish(served, "a", "b")
    found = served.json("status", served.app, "--interval", "0")
    count = next(stage for stage in found["stages"] if stage["name"] == "count")
    assert count["waiting"] == 2
    assert any("stage count: 2 messages wait and nobody" in text for text in found["warnings"])


def test_sigterm_stops_in_order_and_http_tells(served: Shell) -> None:
    worker = served.start("worker", served.app, "--stage=count", "--http=0")
    url = event(worker, "serving HTTP")["url"]
    publish(served, "a")
    until(lambda: _get(f"{url}/readyz")[0] == 200)
    assert _get(f"{url}/healthz")[0] == 200
    until(lambda: f'app="{served.name}"' in _get(f"{url}/metrics")[1])
    until((served.folder / "counted").exists)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT) == 0
    found = served.json("status", served.app, "--interval", "0")
    assert next(s for s in found["stages"] if s["name"] == "count")["lag"] == 0


def test_a_second_signal_aborts(served: Shell) -> None:
    publish(served, "hang")
    worker = served.start("worker", served.app, "--stage=measure")
    until((served.folder / "hangs").exists)
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 130, err
    assert "Traceback" not in err


def test_a_taken_http_port_is_a_usage_error(served: Shell) -> None:
    first = served.start("worker", served.app, "--stage=count", "--http=0")
    port = event(first, "serving HTTP")["url"].rpartition(":")[2]
    second = served.start("worker", served.app, "--stage=count", f"--http={port}")
    _, err = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 2
    assert "choose another --http port" in err
    assert "Traceback" not in err


# --- processes ----------------------------------------------------------------------------------


def test_crashed_processes_start_again_and_signals_are_passed_on(served: Shell) -> None:
    worker = served.start("worker", served.app, "--stage=count", "--processes=2")
    pids = {n: event(worker, "process started", process=n)["pid"] for n in (0, 1)}
    os.kill(pids[1], signal.SIGKILL)
    crash = event(worker, "process crashed")
    assert (crash["process"], crash["how"]) == (1, "killed by SIGKILL")
    again = event(worker, "process started")
    assert again["process"] == 1
    event(worker, "started", process=1)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err
    assert not any(psutil.pid_exists(pid) for pid in (*pids.values(), again["pid"]))


def test_a_system_without_a_bounded_wait_for_signals(served: Shell) -> None:
    """As macOS is one."""
    (served.folder / "sitecustomize.py").write_text("import signal\ndel signal.sigtimedwait\n")
    path = os.pathsep.join([str(served.folder), os.environ.get("PYTHONPATH", "")])
    arguments = ("worker", served.app, "--stage=count", "--processes=2")
    worker = served.start(*arguments, PYTHONPATH=path)
    os.kill(event(worker, "process started")["pid"], signal.SIGKILL)
    event(worker, "process crashed")
    event(worker, "process started")
    event(worker, "started")
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err
    (served.folder / "sitecustomize.py").unlink()


def test_a_supervisor_that_stood_still_goes_on(served: Shell) -> None:
    """As by Ctrl-Z, or on a laptop that slept: longer than it waits between two looks."""
    worker = served.start("worker", served.app, "--stage=count", "--processes=1..2")
    event(worker, "started")
    for _ in range(8):
        worker.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err
    told = [json.loads(line) for line in err.splitlines()]
    assert [one["signal"] for one in told if one["event"] == "stopping"] == ["SIGTERM"]


def test_nothing_outlives_a_killed_supervisor(served: Shell) -> None:
    worker = served.start("worker", served.app, "--stage=count", "--processes=2")
    children = [psutil.Process(event(worker, "process started")["pid"]) for _ in range(2)]
    event(worker, "started")
    worker.kill()
    worker.wait(TIMEOUT)
    until(lambda: not any(child.is_running() and _alive(child) for child in children))


def test_processes_drain_together(served: Shell) -> None:
    publish(served, *(f"w{n}" for n in range(300)))
    worker = served.start("worker", served.app, "--stage=count", "--processes=2", "--drain")
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err
    counted = (served.folder / "counted").read_text().split()
    assert sorted(counted) == sorted(f"w{n}" for n in range(300))


def test_a_configuration_error_in_a_process_ends_them_all(served: Shell) -> None:
    source = Path(f"{served.name}.py").read_text()
    # Only a child finds it: the stream of another app holds the subjects.
    app = served.write(source.replace('App("{name}")', "App('x')").replace(served.name, "{name}"))
    served.drain("count")
    wrong = served.folder / f"{app.partition(':')[0]}.py"
    wrong.write_text(wrong.read_text().replace('App("', f'App("{served.name}", replicas=3) #'))
    worker = served.start("worker", app, "--stage=count", "--processes=2")
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 2, err
    assert "a process cannot run as configured" in err


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_watch_runs_until_interrupted(more: list[str], served: Shell) -> None:
    publish(served, "a")
    import subprocess

    from tests.support.cli import command

    process = subprocess.Popen(
        command("status", served.app, "--watch", "--interval=0.1", *more),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        if more:
            looks = [json.loads(process.stdout.readline()) for _ in range(2)]
            assert looks[0]["app"] == served.name
            assert looks[1]["time"] > looks[0]["time"]
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 130
        else:
            process.terminate()
            process.wait(TIMEOUT)
