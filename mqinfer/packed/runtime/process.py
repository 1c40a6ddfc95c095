"""PackedProcess: a packed model that answers in a process of its own, from whoever serves it.

    process = PackedProcess(Path("triton_models/iris/1"))
    process.start()                                   # makes its environment, loads the model
    process.run({"x": np.zeros((8, 4), np.float32)})  # -> {"label": array of (8, 1), ...}
    process.stop()

The model runs with a Python and packages of its own (see `environment`), which need not fit those
of the server: two models may want two versions of the same library. Arrays go over a socket.

It ends with the server, however that ends; what it prints goes where the server's own errors go.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import child
from .environment import environment_of

Arrays = dict[str, Any]

# Seconds between two looks whether the process lives, while it is waited for: one that it started
# may hold its end of the socket open.
_LOOKS = 0.5
# How the text of a `PackedRejected` begins; `mqinfer.adapters.tritonerrors` knows it.
_REJECTED = "rejected by the model: "
# Left out of the model's environment: they are about the Python and the libraries of the server.
_NOT_ITS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class PackedError(Exception):
    """The model cannot be loaded, or refused what it was given; the process stays usable then."""


class PackedRejected(PackedError):
    """The model said of what it was given that it can never be answered.

    Clients of a server know it by how its text begins, and take the rest for the model's words.
    """


class PackedDied(Exception):
    """The process of the model ended. It is not started again before `start`.

    The text is the one of Triton for the death of a model's process, so that clients know it.
    """


class PackedProcess:
    """One process of one version of a packed model; thread-safe, answers one request at a time.

    Args:
        folder: of the version, as `mqinfer models pack` made it.
        name: of the model, for texts.
        start_timeout: seconds that loading the model may take, without making its environment.

    Attributes:
        schema: `{"inputs": {name: [dtype, shape]}, "outputs": ...}`, shapes of one item; it is
            known when the process has started.
        about: what the model's class says of itself to people, see `child.about`; so is this.
    """

    def __init__(self, folder: Path, *, name: str | None = None, start_timeout: float = 600.0):
        self.folder = Path(folder)
        self.name = name or f"{self.folder.parent.name} {self.folder.name}"
        self.schema: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self._start_timeout = start_timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._life = -1
        self._death: str | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        if self._process is None or self._death is not None:
            return False
        if self._process.poll() is not None:
            self._note_death()
        return self._death is None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and load the model; the first time its environment is made, too.

        Raises:
            PackedError: the environment cannot be made, or the model not be loaded, and why.
        """
        with self._lock:
            self._end()
            try:
                facts = json.loads((self.folder / "packed.json").read_text())
                python = environment_of(facts).ensure()
            except (OSError, ValueError, RuntimeError) as error:
                raise PackedError(f"model {self.name}: {error}") from error
            self._spawn(python)
            try:
                head, _ = self._receive(time.monotonic() + self._start_timeout)
            except PackedDied as error:
                self._end()
                raise PackedError(f"model {self.name} cannot be loaded: {error}") from error
            except TimeoutError:
                self._end()
                raise PackedError(
                    f"model {self.name} was not loaded within {self._start_timeout:g} s"
                ) from None
            if "error" in head:
                self._end()
                raise PackedError(f"model {self.name} cannot be loaded: {head['error']}")
            self.schema, self.about = head["schema"], head["about"]

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Have a batch predicted, which may take any time.

        Args:
            inputs: arrays by name, their first side the items; texts as objects, str or bytes.
                One value an item (the shape `()`) may have a side of its own, `(items, 1)`, and
                has it in what comes back: as the model's config.pbtxt says, dims [1].

        Returns:
            Arrays by name, with as many items; those of texts hold str or bytes.

        Raises:
            PackedRejected: the model says that something in the batch can never be answered.
            PackedError: the model failed, or answered what it does not declare.
            PackedDied: the process is gone, or died of it.
        """
        with self._lock:
            if self._socket is None or not self.running:
                raise self._died()
            try:
                self._socket.settimeout(None)
                child.send(self._socket, {}, dict(inputs))
            except OSError:
                raise self._died() from None
            head, outputs = self._receive(None)
        if "rejected" in head:
            raise PackedRejected(_REJECTED + head["rejected"])
        if "error" in head:
            raise PackedError(f"model {self.name}: {head['error']}")
        return outputs

    def stop(self, timeout: float = 2.0) -> None:
        """End the process; one that is at work longer than `timeout` seconds is killed."""
        if self._process is not None and self._lock.acquire(timeout=timeout):
            self._lock.release()
        self._end()

    def _spawn(self, python: str) -> None:
        ours, its = socket.socketpair()
        life, self._life = os.pipe()
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_ITS}
        libraries = environment.get("LD_LIBRARY_PATH", "").split(":")
        environment["LD_LIBRARY_PATH"] = ":".join(
            one for one in libraries if one and "nvidia_pytriton" not in one
        )
        file = str(Path(child.__file__).resolve())
        try:
            self._process = subprocess.Popen(
                [python, "-I", file, str(self.folder), str(its.fileno()), str(life)],
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(), life),
                env=environment,
                start_new_session=True,  # what it starts ends with it, and no Ctrl-C reaches it
            )
        except OSError as error:
            ours.close()
            os.close(self._life)
            raise PackedError(f"model {self.name}: cannot run {python}: {error}") from error
        finally:
            its.close()
            os.close(life)
        self._socket, self._death = ours, None

    def _receive(self, deadline: float | None) -> tuple[dict[str, Any], Arrays]:
        connection = self._socket
        assert connection is not None
        connection.settimeout(_LOOKS)

        def exactly(count: int) -> bytearray:
            content = bytearray(count)
            view, position = memoryview(content), 0
            while position < count:
                try:
                    got = connection.recv_into(view[position:])
                except TimeoutError:
                    if deadline is not None and time.monotonic() > deadline:
                        raise
                    if self.running:
                        continue
                    got = 0
                if not got:
                    raise self._died()
                position += got
            return content

        try:
            return child.receive(exactly)
        except TimeoutError:
            raise
        except OSError:
            raise self._died() from None

    def _died(self) -> PackedDied:
        if self._death is None:
            self._note_death()
        return PackedDied(f"Stub process '{self.name}' is not healthy: {self._death}")

    def _note_death(self) -> None:
        """Say how it ended, once; what it started ends with it."""
        process = self._process
        if process is None:
            self._death = "it was not started"
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        code = process.returncode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._death = f"it ended with exit code {code}"
        if code is None:
            self._death = "it closed its connection"
        elif code < 0:
            with contextlib.suppress(ValueError):
                self._death = f"it was ended by {signal.Signals(-code).name}"

    def _end(self) -> None:
        """Kill what there is of it, and let a thread that waits for it go."""
        process, connection, self._socket = self._process, self._socket, None
        if process is not None:
            if self._death is None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            os.close(self._life)

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.running else "not running"
        return f"<PackedProcess {self.name}: {state}>"
