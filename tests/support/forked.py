"""Commands that tests start, forked from a process that has imported what they would.

A command imports for half a second of a processor before it does anything, and the tests start
hundreds. Inside `commands` whoever starts `python -m mqinfer ...`, or a module of the tests, gets a
real process all the same: a child of this one, with its own pid, arguments, folder, environment,
`sys.path`, standard streams, signal handlers and random numbers, which runs the module as
`python -m` would. It comes from a zygote: a process that has imported `_IMPORTED`, started when it
is first needed, and forked for each command.

This file is also the zygote's program, and imports nothing of the tests for that. A zygote ends
when its socket closes, whatever becomes of this process; the commands are killed when it dies.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, AnyStr

ROOT = Path(__file__).parents[2]
EXECUTED = subprocess.Popen  # which forks nothing
_IMPORTED = (
    *(
        "mqinfer.cli.root",
        "mqinfer.cli.worker",
        "mqinfer.client",
        "mqinfer.running",
        "mqinfer.http",
    ),
    *("mqinfer.observe", "mqinfer.adapters.blobs", "mqinfer.adapters.blobstores.folder"),
    *("mqinfer.adapters.clickhouse", "mqinfer.gateway.application", "uvicorn", "prometheus_client"),
    *("pydantic.type_adapter", "numpy.random", "uvloop"),
)
# What Python heeds when it starts: a command with others of these is executed.
_HEEDED = ("PYTHON", "LANG", "LC_", "TZ")
# And so is one with options that are not these.
_PLAIN: dict[str, Any] = {
    **dict.fromkeys(("executable", "preexec_fn", "gid", "gids", "uid")),
    **{"close_fds": True, "pass_fds": (), "shell": False, "umask": -1},
    **{"start_new_session": False, "process_group": -1},
}
_OPTIONS = inspect.signature(EXECUTED._execute_child)  # type: ignore[attr-defined]
_MOST = 1 << 17  # bytes of a command with its environment
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


# --- here -----------------------------------------------------------------------------------------


class Zygote:
    """The process that is forked.

    Raises:
        RuntimeError: it is gone (`fork`).
    """

    def __init__(self) -> None:
        self._heeded = _heeded(os.environ)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = {name: value for name, value in os.environ.items() if not name.startswith("MQINFER_")}
        own.pop("PYTHONPATH", None)
        with theirs:
            self._process: subprocess.Popen[bytes] = EXECUTED(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Streams that nobody seeks in: those of a command may be pipes.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**own, "OPENBLAS_NUM_THREADS": "1"},  # it would be forked beside threads
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def becomes(self, options: Mapping[str, Any]) -> bool:
        """Whether it can become what `subprocess.Popen` was asked for."""
        args, env = options["args"], options["env"]
        if not isinstance(args, (list, tuple)) or list(args[:2]) != [sys.executable, "-m"]:
            return False
        return (
            (args[2] == "mqinfer" or args[2].startswith("tests."))
            and all(options[name] == plain for name, plain in _PLAIN.items())
            and self._heeded == _heeded(os.environ if env is None else env)
        )

    def fork(self, options: Mapping[str, Any], streams: Sequence[int]) -> int:
        """The pid of a child of this process that becomes a command.

        Args:
            options: as `subprocess.Popen` was given them.
            streams: stdin, stdout and stderr.
        """
        env = os.environ if options["env"] is None else options["env"]
        asked = {
            "arguments": [str(one) for one in options["args"][2:]],
            "cwd": str(Path(options["cwd"] or "").absolute()),
            "env": dict(env),
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        }
        with self._lock:
            # The child's own parent ends at once: it becomes a child of the next process above
            # that takes such orphans, which this one does for just so long.
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self._socket, [json.dumps(asked).encode()], streams)
                pid = self._socket.recv(64)
            finally:
                _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        if not pid:
            _, why = self._process.communicate()
            raise RuntimeError(f"the process that is forked is gone: {why.decode()}")
        return int(pid)

    def close(self) -> None:
        """End it; commands that it became go on."""
        self._socket.close()
        self._process.communicate()


def _heeded(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_HEEDED) and name != "PYTHONPATH"
    }


class Popen(subprocess.Popen[AnyStr]):
    """`subprocess.Popen`, but a command that the zygote can become is forked from it."""

    zygote: Zygote | None = None

    def _execute_child(self, *given: Any) -> None:
        options = _OPTIONS.bind(self, *given).arguments
        made = type(self)
        made.zygote = made.zygote or Zygote()
        if not made.zygote.becomes(options):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        ends = options["p2cread"], options["c2pwrite"], options["errwrite"]
        pid = made.zygote.fork(options, [n if end == -1 else end for n, end in enumerate(ends)])
        self.pid = pid
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(options[name] for name in pipes))  # type: ignore[attr-defined]


@contextmanager
def commands() -> Iterator[None]:
    """Inside, commands are forked; where there is no Linux they are executed."""
    if sys.platform != "linux":
        yield
        return
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = EXECUTED  # type: ignore[misc]
        if Popen.zygote is not None:
            Popen.zygote.close()
            Popen.zygote = None


# --- the zygote -----------------------------------------------------------------------------------


def _zygote(asked: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each command that is asked for; returns in the child, which is to become it."""
    starter = os.getppid()
    while True:
        text, streams, *_ = socket.recv_fds(asked, _MOST, 3)
        if not text:
            os._exit(0)
        if between := os.fork():
            os.waitpid(between, 0)
            for stream in streams:
                os.close(stream)
            continue
        between = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.0002)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(1)
        return json.loads(text), streams


def _become(arguments: list[str], cwd: str, env: dict[str, str], blocked: list[int]) -> None:
    """Run what `python -m ARGUMENTS...` would."""
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    paths = [str(Path(p).absolute()) for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [str(Path.cwd()), *dict.fromkeys([*paths, *sys.path])]
    importlib.invalidate_caches()
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.modules["numpy"].random.seed()  # Python's own is another in each child as it is
    sys.argv = ["-m", *arguments[1:]]
    sys.orig_argv = [sys.executable, "-m", *arguments]
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _main() -> None:
    asked = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever started it, and so it
    site = sys.path[1:]  # without this file's folder
    sys.path[:] = [str(ROOT), *site]
    from mqinfer.cli import _import_structlog

    _import_structlog()
    for name in _IMPORTED:
        with suppress(ModuleNotFoundError):  # of an extra
            importlib.import_module(name)
    sys.path[:] = site
    gc.collect()
    gc.freeze()  # or each child would copy it all when it looks for cycles
    command, streams = _zygote(asked)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked.send(b"%d" % os.getpid())
    asked.close()
    _become(**command)


if __name__ == "__main__":
    _main()
