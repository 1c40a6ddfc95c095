"""Loopback ports: choosing free ones, and telling a taken one before anything starts."""

from __future__ import annotations

import random
import socket

from mqinfer.stack.errors import StackConfigurationError

HOST = "127.0.0.1"

# Below the range from which Linux takes the local ports of outgoing connections,
# so that a port chosen here stays free while its server is being restarted.
_FIRST, _LAST = 18_000, 32_000
_handed_out: set[int] = set()


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


def free_port() -> int:
    """Choose a free loopback port that this process has not handed out before.

    Raises:
        StackConfigurationError: No free port was found.
    """
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port not in _handed_out and is_free(port):
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
