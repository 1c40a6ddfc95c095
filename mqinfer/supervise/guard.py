"""Runs one server and makes sure that nothing of it outlives the stack.

Started as a script (``python -I -S guard.py LEFTOVERS COMMAND...``), standard library
only, so that it costs a few milliseconds and a few megabytes. It reports the
server's process id on its standard output, then waits for whichever comes first:

- the server ends: kill what it left behind, exit with its code;
- SIGTERM: pass it on, kill after a grace period;
- end of file on standard input, or another parent than at the start: the stack
  is gone, kill everything at once.

If the guard itself is killed, the kernel kills the server (PR_SET_PDEATHSIG).
That signal is set between fork and exec, which is only safe in a process with
one thread: the reason why the stack does not do it by itself. A worker's process
asks for it when it has begun (`end_with`).
"""

import contextlib
import ctypes
import glob
import os
import select
import signal
import sys
import time

GRACE_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    """Call prctl where there is one; elsewhere the pipe alone does the work."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def end_with(parent: int) -> None:
    """In a child: be killed by the kernel when the parent is; end at once if it is gone already.

    Args:
        parent: its process id.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _run_server(command: list[str], guard_pid: int) -> None:
    """Become the server (in the forked child); never returns."""
    try:
        os.setpgid(0, 0)
        end_with(guard_pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)  # the guard's standard error is the log
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _descendants() -> list[int]:
    """List the processes whose parent is the guard (it adopts orphans of the server)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:  # noqa: PTH123
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []


def _kill_all(server: int) -> None:
    """Kill the server's process group and whatever else was left to the guard."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server, signal.SIGKILL)
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def main(leftovers: str, command: list[str]) -> int:
    """Run the command until it, the parent or the patience ends.

    Args:
        leftovers: A glob of files to remove afterwards (shared memory); may be empty.
        command: What to run.

    Returns:
        The exit code of the command, or 128 plus the signal that ended it.
    """
    parent, guard_pid = os.getppid(), os.getpid()
    os.setsid()  # a Ctrl-C in the terminal is for the stack, which stops in order
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    terminate = False

    def on_terminate(_number: int, _frame: object) -> None:
        nonlocal terminate
        terminate = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    server = os.fork()
    if server == 0:
        _run_server(command, guard_pid)
    os.write(1, f"{server}\n".encode())
    os.close(1)

    deadline = None
    code = None
    while code is None:
        ready, _, _ = select.select([0, wakeup], [], [], 0.5)
        if wakeup in ready:
            os.read(wakeup, 1024)
        while True:  # also the orphans that the guard adopted end here
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == server:
                code = os.waitstatus_to_exitcode(status)
        parent_gone = os.getppid() != parent or (0 in ready and os.read(0, 1) == b"")
        if parent_gone or (deadline is not None and time.monotonic() > deadline):
            code = code if code is not None else -signal.SIGKILL
        elif terminate and deadline is None and code is None:
            deadline = time.monotonic() + GRACE_SECONDS
            os.kill(server, signal.SIGTERM)
    _kill_all(server)
    for path in glob.glob(leftovers) if leftovers else ():  # noqa: PTH207
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - pathlib would double the start-up time
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: guard.py LEFTOVERS COMMAND [ARGUMENT]...")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
