"""What a supervised process does at its start; see `processes.py` for who supervises it.

A command asks here whether it is such a one, without loading what a supervisor needs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from mqinfer.cli.errors import ExitCode

SUPERVISOR = "MQINFER_SUPERVISOR"  # in a child's environment: <pid of the supervisor>:<number>
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_bound = False


def log() -> Any:
    """The logger of a supervisor and its children."""
    import structlog  # a tenth of a second that `--help` need not wait for

    return structlog.get_logger("mqinfer.supervisor")


def supervised() -> bool:
    """Whether this process is the child of a supervisor."""
    return _bound


def bind_to_supervisor() -> None:
    """In a child: end when the supervisor does; logs say which process it is."""
    global _bound
    value = os.environ.pop(SUPERVISOR, None)
    if value is None:
        return
    _bound = True
    import structlog

    from mqinfer.supervise.guard import end_with

    parent, _, number = value.partition(":")
    structlog.contextvars.bind_contextvars(process=int(number))
    if sys.platform != "linux":
        threading.Thread(target=_watch_parent, args=(int(parent),), daemon=True).start()
    end_with(int(parent))
    sys.breakpointhook = _no_terminal
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOPS, signal.SIGCHLD})


def _no_terminal(*_: object, **__: object) -> None:
    """What `breakpoint()` does where nobody could answer."""
    log().warning(
        "breakpoint() is passed over: this process has no terminal",
        hint="run the stage in one process: mqinfer worker APP --stage NAME",
    )


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(ExitCode.FAILED)
