"""A command that is forked is what one that Python starts would be; it ends with who started it.

This file is also such a command: it prints what it finds, and ends as it is told.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from tests.support import forked

STARTER = """
import subprocess, sys, time
from tests.support import forked
with forked.commands():
    waits = subprocess.Popen([sys.executable, "-m", "tests.test_forked", "wait"])
    print(waits.pid, forked.Popen.zygote.pid, flush=True)
    time.sleep(600)
"""


def found() -> dict[str, Any]:
    """What a command can see of how it was started."""
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "path": sys.path,
        "cwd": str(Path.cwd()),
        "environ": dict(os.environ),
        "main": (__name__, __spec__.name),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "files": sorted(one.name for one in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "flags": str(sys.flags),
        "streams": [
            (one.fileno(), one.mode, one.encoding, one.errors, one.line_buffering, one.seekable())
            for one in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "read": sys.stdin.read(),
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.test_forked", *arguments]


def test_it_is_as_if_executed(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(forked.ROOT), "A": "\u00e4"}
    told = []
    for popen in (subprocess.Popen, forked.EXECUTED):
        with popen(
            command("tell", "a b"),
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            out, err = process.communicate("in")
        assert (process.returncode, err) == (3, "told\n")
        told.append(json.loads(out))
    seeds = [facts.pop("random") for facts in told]
    assert seeds[0] != seeds[1]
    assert told[0] == told[1]
    assert told[0]["read"] == "in"
    assert told[0]["parent"] == os.getpid()


async def test_the_loop_hears_how_it_ends() -> None:
    async def begun(*arguments: str) -> tuple[asyncio.subprocess.Process, bytes]:
        process = await asyncio.create_subprocess_exec(
            *command(*arguments), cwd=forked.ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        return process, await process.stdout.readline()

    waits, line = await begun("wait")
    assert int(line) == waits.pid
    other, _ = await begun("wait")
    waits.kill()
    other.terminate()
    assert [await one.wait() for one in (waits, other)] == [-signal.SIGKILL, -signal.SIGTERM]


def test_it_ends_with_who_started_it() -> None:
    environ = {**os.environ, "PYTHONPATH": str(forked.ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=forked.ROOT, env=environ, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        begun = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        assert len(begun) == 2
        starter.kill()
    assert not psutil.wait_procs(begun, timeout=60)[1]


if __name__ == "__main__":
    if sys.argv[1] == "wait":
        print(os.getpid(), flush=True)
        signal.pause()
    print(json.dumps({**found(), "random": random.random()}))
    print("told", file=sys.stderr)
    sys.exit(3)
