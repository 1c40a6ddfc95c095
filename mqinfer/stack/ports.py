"""Loopback ports: choosing free ones, and telling a taken one before anything starts."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

from mqinfer.stack.errors import StackConfigurationError

HOST = "127.0.0.1"

# Below the range from which Linux takes the local ports of outgoing connections,
# so that a port chosen here stays free while its server is being restarted.
_FIRST, _LAST = 18_000, 32_000
_handed_out: set[int] = set()
_SHARED = Path("/tmp")  # whatever TMPDIR says, which may be another folder in another process


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        # As the servers do: connections of an earlier server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@cache
def _reservations() -> int:
    """The file in which each process of this user locks the bytes of its ports, open for good."""
    folder = _SHARED if os.access(_SHARED, os.W_OK) else Path(tempfile.gettempdir())
    path = folder / f"mqinfer-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _reserve(port: int) -> bool:
    """Keep the port until this process ends; whether no other process keeps it.

    It is free until its server listens, and again while that is started anew: stacks that start
    side by side would choose the same one now and then.
    """
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


def free_port() -> int:
    """Choose a free loopback port that no process of this user has handed out and still keeps.

    Raises:
        StackConfigurationError: No free port was found.
    """
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        # What another process keeps is not even looked at: its server may be about to listen.
        if port not in _handed_out and _reserve(port) and is_free(port):
            _handed_out.add(port)
            return port
    raise StackConfigurationError(
        f"no free port between {_FIRST} and {_LAST} on {HOST}: stop some servers"
    )


def require_free(port: int, server: str, flag: str) -> None:
    """Refuse a port that something else listens on.

    Args:
        port: The loopback port.
        server: Who wants it, for the error.
        flag: The command-line flag that changes it, for the error.

    Raises:
        StackConfigurationError: The port is taken or not allowed.
    """
    if not is_free(port):
        raise StackConfigurationError(
            f"port {port} for {server} is taken on {HOST}: stop what listens there "
            f"or choose another with {flag} PORT (0 takes any free one)"
        )
