"""Hosts: network namespaces joined by a switch, each with one link that can be cut, slow or lossy.

The namespaces have no names: one lives as long as this process, or one that it started inside,
does. So nothing is left behind whatever ends the tests, and those of two processes cannot meet,
though their addresses are alike. Nothing of it is seen from this machine's own network.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_NETWORK = "10.77.0"


@functools.cache
def why_no_hosts() -> str | None:
    """Why there can be no hosts here; None if there can."""
    if not hasattr(os, "unshare"):
        return "hosts need Linux and Python 3.12 (os.unshare)"
    try:
        with _namespace() as switch:
            _run(switch, "ip", "link", "add", "name", "a", "type", "veth", "peer", "name", "b")
            _run(switch, "ip", "link", "add", "name", "c", "type", "bridge")
            _run(switch, "tc", "qdisc", "add", "dev", "a", "root", "tbf", *_NARROW)
            _run(switch, "tc", "qdisc", "replace", "dev", "b", "root", "blackhole")
    except (OSError, RuntimeError) as error:
        return f"no network namespaces here: {error}"
    return None


class Host:
    """A host of a `Network`, with the one link that it has.

    Attributes:
        name: of it.
        address: of it.
        path: of its namespace.
    """

    def __init__(self, name: str, address: str, path: str, switch: str):
        self.name = name
        self.address = address
        self.path = path
        self._switch = switch

    def command(self, *command: str) -> list[str]:
        """A command that runs on this host; the process is the command itself."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work on this host, in a thread of its own."""
        with ThreadPoolExecutor(1, initializer=self._enter) as alone:
            return alone.submit(asyncio.run, work).result()

    def _enter(self) -> None:
        with Path(self.path).open() as namespace:
            os.setns(namespace.fileno(), os.CLONE_NEWNET)

    # --- the link -------------------------------------------------------------------------------

    def deaf(self) -> None:
        """Nothing reaches it any more; what it says still leaves: connections are half open."""
        self._towards("root", "blackhole")

    def mute(self) -> None:
        """Nothing leaves it any more; what others say still arrives."""
        self._from("root", "blackhole")

    def cut(self) -> None:
        """Nothing passes, and nobody is told."""
        self.deaf()
        self.mute()

    def slow(self) -> None:
        """Little passes at a time, and the rest is lost: the queue has room for a few packets.

        (`netem` would do, too, but not every kernel has it.)
        """
        self._towards("root", "tbf", *_NARROW)
        self._from("root", "tbf", *_NARROW)

    def healed(self) -> None:
        """Everything passes again."""
        self._towards("root", "pfifo", "limit", "1000")
        self._from("root", "pfifo", "limit", "1000")

    def _towards(self, *discipline: str) -> None:
        _run(self._switch, "tc", "qdisc", "replace", "dev", self.name, *discipline)

    def _from(self, *discipline: str) -> None:
        _run(self.path, "tc", "qdisc", "replace", "dev", "eth0", *discipline)


# A burst of three packets, a queue of four; a link of the countryside.
_NARROW = ("rate", "2mbit", "burst", "5kb", "limit", "6kb")


class Network:
    """Hosts that a switch joins.

    Args:
        names: of the hosts; at most ten letters each.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Network:
        with contextlib.ExitStack() as stack:
            switch = stack.enter_context(_namespace())
            _run(switch, "ip", "link", "add", "switch", "type", "bridge")
            _run(switch, "ip", "link", "set", "switch", "up")
            for number, name in enumerate(self._names, 1):
                path = stack.enter_context(_namespace())
                host = Host(name, f"{_NETWORK}.{number}", path, switch)
                link = ("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0")
                _run(switch, *link, "netns", path)
                _run(switch, "ip", "link", "set", "dev", name, "master", "switch", "up")
                _run(path, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
                _run(path, "ip", "link", "set", "eth0", "up")
                _run(path, "ip", "link", "set", "lo", "up")
                self.hosts[name] = host
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


@contextlib.contextmanager
def _namespace() -> Iterator[str]:
    """A network namespace, by its path, for as long as this lasts (and processes in it)."""
    opened: list[int | OSError] = []

    def make() -> None:  # a thread's own; it goes with the thread, but for the open file
        try:
            os.unshare(os.CLONE_NEWNET)
            opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            opened.append(error)

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    (found,) = opened
    if isinstance(found, OSError):
        raise found
    try:
        yield f"/proc/{os.getpid()}/fd/{found}"
    finally:
        os.close(found)


def _run(namespace: str, *command: str) -> None:
    """Run a command in a namespace.

    Raises:
        RuntimeError: what it says.
        OSError: there is no such command.
    """
    done = subprocess.run(
        ["nsenter", f"--net={namespace}", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr.strip() or done.returncode}")
