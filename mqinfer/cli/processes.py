"""Several worker processes under one supervisor (`mqinfer worker --processes N`).

The supervisor does nothing but wait for signals and children, in one thread and without an event
loop: a crashed child is started again after a pause that grows; a signal is passed on; when all
have ended, so does it. If it is killed itself, the kernel kills its children (Linux; elsewhere they
look for it once a second), so that nothing runs that nobody supervises. When a child is started
again is said in `supervise/lives.py`, for the embedded servers as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mqinfer import signals
from mqinfer.cli.errors import ExitCode
from mqinfer.supervise.guard import end_with
from mqinfer.supervise.lives import Lives, ended_by

_SUPERVISOR = "MQINFER_SUPERVISOR"  # in a child's environment: <pid of the supervisor>:<number>
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOKS = 0.1  # seconds between two, where there is no waiting for a signal with a bound
_KILL_AFTER = 10.0  # beyond the grace that a child gives its handlers


def _log() -> Any:
    import structlog  # a tenth of a second that `--help` need not wait for

    return structlog.get_logger("mqinfer.supervisor")


def _wait_for(blocked: set[signal.Signals], timeout: float) -> int | None:
    """Wait for one of the blocked signals; its number, or None when none came in time."""
    if hasattr(signal, "sigtimedwait"):
        received = signal.sigtimedwait(blocked, timeout)
        return None if received is None else received.si_signo
    # macOS, which may drop a SIGCHLD that is blocked: so the children are looked at soon anyway.
    time.sleep(min(timeout, _LOOKS))
    pending = signal.sigpending() & blocked
    return signal.sigwait(pending) if pending else None


class _Child(Lives):
    """One place for a process, with its number and the one that has it."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None


class Supervisor:
    """Runs the same command in several processes.

    Args:
        arguments: of `python -m mqinfer`.
        count: of processes.
        http: port of the first one; the others take the following ones.
        environ: added to this process's environment.
        grace: seconds that a child may take to stop in order.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        count: int,
        *,
        http: int | None = None,
        environ: Mapping[str, str] | None = None,
        grace: float = 25.0,
    ):
        self._arguments = list(arguments)
        self._http = http
        self._environ = {**os.environ, **(environ or {})}
        self._grace = grace
        self._children = [_Child(number) for number in range(count)]
        self._signals = 0
        self._deadline: float | None = None
        self._configuration = False

    def run(self) -> int:
        """Supervise until every child has ended; the exit code."""
        # Blocked and waited for, so that none is lost between a look and the next.
        watched = {*_STOP, signal.SIGCHLD}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            signals.hold()  # one that came until now; from now on they are waited for
            while True:
                now = time.monotonic()
                self._start_due(now)
                if all(c.process is None and c.again is None for c in self._children):
                    return self._exit_code()
                received = _wait_for(watched, self._patience(now))
                if received in _STOP:
                    self._stop(received)
                self._reap()
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._kill()
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # --- children -------------------------------------------------------------------------------

    def _start_due(self, now: float) -> None:
        for child in self._children:
            if child.process is None and child.due(now):
                self._start(child, now)

    def _start(self, child: _Child, now: float) -> None:
        command = [sys.executable, "-m", "mqinfer", *self._arguments]
        if self._http is not None:
            port = self._http + child.number if self._http else 0
            command.append(f"--http={port}")
        child.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**self._environ, _SUPERVISOR: f"{os.getpid()}:{child.number}"},
            # A Ctrl-C in the terminal is for the supervisor, which passes it on once.
            process_group=0,
        )
        child.begin(now)
        _log().info("process started", process=child.number, pid=child.process.pid)

    def _reap(self) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            pid, child.process = child.process.pid, None
            self._ended(child, pid, code)

    def _ended(self, child: _Child, pid: int, code: int) -> None:
        child.code = code
        if self._signals:
            return
        if code == ExitCode.DONE:
            _log().info("process ended", process=child.number, pid=pid)
            return
        if code == ExitCode.USAGE:
            _log().error("a process cannot run as configured", process=child.number, pid=pid)
            self._configuration = True
            self._stop(signal.SIGTERM)
            return
        wait = child.crash(time.monotonic())
        by = ended_by(code)
        how = f"exit code {code}" if by is None else f"killed by {by}"
        _log().error("process crashed", process=child.number, pid=pid, how=how, again_in=wait)

    # --- stopping -------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        self._signals += 1
        _log().info("stopping", signal=signal.Signals(number).name)
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace + _KILL_AFTER
        for child in self._children:
            child.end()
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        if self._signals > 2:
            self._kill()

    def _kill(self) -> None:
        for child in self._children:
            child.end()
            if child.process is not None:
                child.process.kill()
                child.process.wait()
                child.code, child.process = child.process.returncode, None

    def _patience(self, now: float) -> float:
        times = [child.again for child in self._children if child.again is not None]
        if self._deadline is not None:
            times.append(self._deadline)
        return max(0.0, min(min(times, default=now + 60.0) - now, 60.0))

    def _exit_code(self) -> int:
        if self._configuration:
            return ExitCode.USAGE
        if self._signals > 1:
            return ExitCode.INTERRUPTED
        return ExitCode.DONE if not any(child.code for child in self._children) else ExitCode.FAILED


# --- in the child ------------------------------------------------------------------------------


def bind_to_supervisor() -> None:
    """In a child: end when the supervisor does; logs say which process it is."""
    value = os.environ.pop(_SUPERVISOR, None)
    if value is None:
        return
    import structlog

    parent, _, number = value.partition(":")
    structlog.contextvars.bind_contextvars(process=int(number))
    if sys.platform != "linux":
        threading.Thread(target=_watch_parent, args=(int(parent),), daemon=True).start()
    end_with(int(parent))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_STOP, signal.SIGCHLD})


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(ExitCode.FAILED)
