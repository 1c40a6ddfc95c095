"""The process of one instance of a model: loads one version, runs what it is given, one at a time.

Started as a script (``python -P instance.py SOCKET INPUTS OUTPUTS PARENT TITLE``) so that it needs
nothing but Python, NumPy and what runs the model: it knows nothing of mqinfer. What it is asked and
what it answers goes over the socket as JSON, with its length in front. Tensors lie in two regions
of memory that both sides share, as the raw bytes of Triton's protocol: one for inputs, which the
server writes, and one for outputs, which this process does. A request's inputs are laid one behind
the other by the server, so that gathering requests into a batch costs no copy of its own.

What runs a model is a `Runtime`; `RUNTIMES` has those that there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1
# Where tensors begin: what vector instructions like.
_ALIGNED = 64
_LEAST = 1 << 16

# A tensor as messages tell it: name, datatype, shape, offset in its region, bytes.
Place = tuple[str, str, list[int], int, int]


class Region:
    """Memory that two processes share, which grows when it has to.

    Args:
        file: its descriptor; inherited by the other process.
    """

    def __init__(self, file: int):
        self._file = file
        self._memory: mmap.mmap | None = None

    def room(self, size: int) -> mmap.mmap:
        """The memory, with room for so many bytes at least."""
        if self._memory is None or len(self._memory) < size:
            there = os.fstat(self._file).st_size
            if there < size:
                # By halves more, so that a slow growth is no copy each time.
                there = max(_LEAST, size + size // 2)
                os.ftruncate(self._file, there)
            self._memory = mmap.mmap(self._file, there)
        return self._memory

    def close(self) -> None:
        """Give it back; arrays that lie in it keep it until they are gone."""
        self._memory = None
        os.close(self._file)


def shared_file() -> int:
    """A file without a name, in memory: nothing is left of it after both processes."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mqinfer model")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def places(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where tensors of so many bytes begin, and where the last one ends."""
    offsets, end = [], 0
    for size in sizes:
        begin = -(-end // _ALIGNED) * _ALIGNED
        offsets.append(begin)
        end = begin + size
    return offsets, end


def frame(message: object) -> bytes:
    """A message as it goes over the socket."""
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text


def length_of(head: bytes) -> int:
    """How long a message is, by its first four bytes."""
    return int(_LENGTH.unpack(head)[0])


# --- what runs a model ----------------------------------------------------------------------------


class Runtime(Protocol):
    """What runs one version of a model; made from its specification (see `config.specification`).

    Making one raises an exception whose text says why the model does not load.

    Attributes:
        config: the model's configuration, completed: a ModelConfig as protobuf's JSON has it.
    """

    config: dict[str, Any]

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:
        """Run the model once; an exception is the answer of this request.

        Args:
            inputs: by name; strings are bytes in an array of objects.
            outputs: the names of those that are wanted; more may be given.
        """

    def close(self) -> None:
        """Free what it holds."""


class OnnxRuntime:
    """ONNX Runtime on the CPU, for an ONNX file."""

    def __init__(self, specification: Mapping[str, Any]):
        import onnxruntime

        onnxconfig = _onnxconfig()
        config = specification["config"]
        path = str(Path(specification["folder"]) / config["default_model_filename"])
        options = onnxruntime.SessionOptions()
        # One thread an instance: instances are what a server scales by, and threads of several
        # would only fight for the same cores.
        options.intra_op_num_threads = _threads(config, "intra_op_thread_count")
        options.inter_op_num_threads = _threads(config, "inter_op_thread_count")
        options.log_severity_level = 4  # the answers say it
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ValueError(onnxconfig.unloaded(path, error)) from error
        self.config = onnxconfig.complete(config, self._session)
        onnxconfig.require(self.config, self._session)
        # Single values without a side, which the protocol has not: there they are of one.
        self._single = {one.name for one in self._session.get_inputs() if not one.shape}

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:
        """See `Runtime`."""
        for name, array in inputs.items():
            if name in self._single:
                inputs[name] = array.reshape(())
            elif array.dtype == object and array.size:
                inputs[name] = _texts(array)
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))

    def close(self) -> None:
        """See `Runtime`."""
        del self._session


class Packed:
    """A model that `mqinfer models pack` made, which has a process and libraries of its own."""

    def __init__(self, specification: Mapping[str, Any]):
        folder = Path(specification["folder"])
        if not (folder / "packed.json").exists():
            raise ValueError(
                "models of the backend python are served by Triton only, but for those that "
                "`mqinfer models pack` made"
            )
        # What runs it lies in its own folder, of the release that packed it.
        sys.path.insert(0, str(folder))
        from packed_runtime import process

        self.config = specification["config"]
        self._died = process.PackedDied
        self._process = process.PackedProcess(folder, name=specification["name"])
        self._process.start()

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:  # noqa: ARG002
        """See `Runtime`; when the model's process dies, this one does."""
        try:
            answer: Mapping[str, Array] = self._process.run(inputs)
        except self._died as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        return answer

    def close(self) -> None:
        """See `Runtime`."""
        self._process.stop()


RUNTIMES: dict[str, Callable[[Mapping[str, Any]], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "python": Packed,
}


def _onnxconfig() -> Any:
    """The module of this name, which lies in the folder above."""
    path = Path(__file__).parent.with_name("onnxconfig.py")
    found = importlib.util.spec_from_file_location("onnxconfig", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _threads(config: Mapping[str, Any], parameter: str) -> int:
    text = config.get("parameters", {}).get(parameter, {}).get("string_value", "0")
    try:
        return int(text) or 1
    except ValueError:
        raise ValueError(f"parameter {parameter} is no number: {text!r}") from None


def _texts(array: Array) -> Array:
    """An array of bytes as one of texts, which ONNX Runtime wants."""
    import numpy as np

    flat = np.empty(array.size, object)
    flat[:] = [item.decode() for item in array.ravel()]
    return flat.reshape(array.shape)


# --- tensors --------------------------------------------------------------------------------------

_NUMPY_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip


def _datatype(tensor: Mapping[str, Any]) -> str:
    """Triton's name of a tensor's type, by its configuration."""
    name = str(tensor["data_type"]).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def array_of(memory: mmap.mmap, place: Place) -> Array:
    """The array of a tensor: where it lies, but for strings."""
    import numpy as np

    _, datatype, shape, offset, size = place
    if datatype != "BYTES":
        dtype = np.dtype(_NUMPY_TYPES[datatype])
        count = size // dtype.itemsize
        return (
            np.frombuffer(memory, dtype, count, offset).reshape(shape)
            if count
            else np.zeros(shape, dtype)
        )
    texts, at, end = [], offset, offset + size
    while at < end:
        length = length_of(memory[at : at + 4])
        texts.append(memory[at + 4 : at + 4 + length])
        at += 4 + length
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def raw_of(array: Array, datatype: str) -> Any:
    """An array's raw bytes."""
    import numpy as np

    if datatype != "BYTES":
        array = array.astype(_NUMPY_TYPES[datatype], copy=False)
        return array.reshape(-1).view(np.uint8).data
    parts: list[bytes] = []
    for item in np.asarray(array, object).ravel():
        text = item if isinstance(item, bytes) else str(item).encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


# --- the process ----------------------------------------------------------------------------------


class Channel:
    """The socket to the server."""

    def __init__(self, file: int):
        self._socket = socket.socket(fileno=file)

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: there is no server any more.
        """
        return json.loads(self._exactly(length_of(self._exactly(4))))

    def send(self, message: object) -> None:
        """Answer."""
        self._socket.sendall(frame(message))

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts


def answer(runtime: Runtime, message: Any, types: Mapping[str, str], *regions: Region) -> Any:
    """Run what was asked for; its outputs are laid into the second region.

    Returns:
        The message: the places of the outputs, and nanoseconds for reading, running, writing.
    """
    import numpy as np

    inputs, outputs = regions
    began = time.perf_counter_ns()
    last = max((place[3] + place[4] for place in message["inputs"]), default=0)
    memory = inputs.room(last)
    arrays = {place[0]: array_of(memory, place) for place in message["inputs"]}
    read = time.perf_counter_ns()
    found = runtime.run(arrays, message["outputs"])
    ran = time.perf_counter_ns()
    # A single value becomes a tensor of one, as there is none without a side in the protocol.
    results = {name: np.ascontiguousarray(array) for name, array in found.items()}
    names = [name for name in message["outputs"] if name in results]
    raws = [raw_of(results[name], types[name]) for name in names]
    offsets, end = places(len(raw) for raw in raws)
    memory = outputs.room(end)
    told = []
    for name, raw, offset in zip(names, raws, offsets, strict=True):
        memory[offset : offset + len(raw)] = raw
        told.append((name, types[name], list(results[name].shape), offset, len(raw)))
    written = time.perf_counter_ns()
    return {"outputs": told, "ns": [read - began, ran - read, written - ran]}


def main(channel: Channel, inputs: Region, outputs: Region) -> None:
    """Load what the first message says, then answer until the server is gone."""
    specification = channel.receive()
    try:
        runtime: Runtime = RUNTIMES[specification["runtime"]](specification)
    except Exception as error:  # noqa: BLE001 - becomes the reason why it does not load
        channel.send({"error": str(error) or type(error).__name__})
        return
    types = {one["name"]: _datatype(one) for one in runtime.config["output"]}
    channel.send({"config": runtime.config})
    with contextlib.suppress(EOFError):
        while True:
            message = channel.receive()
            try:
                reply = answer(runtime, message, types, inputs, outputs)
            except Exception as error:  # noqa: BLE001 - becomes this request's answer
                reply = {"error": str(error) or type(error).__name__}
            channel.send(reply)
    runtime.close()


def _end_with(parent: int) -> None:
    """Have the kernel end this process with its server, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the server, which stops in order
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


if __name__ == "__main__":
    _end_with(int(sys.argv[4]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        main(Channel(int(sys.argv[1])), Region(int(sys.argv[2])), Region(int(sys.argv[3])))
