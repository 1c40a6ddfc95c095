"""The model under test: y = 2 x + 1, in a process of its own that can be slow, and can die."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from mqinfer.adapters.triton import TritonClient
from mqinfer.errors import Unavailable
from mqinfer.stack import TritonServer

USUAL = 0.005  # seconds of a request
_CODE = """
import os, sys
sys.path[:0] = os.environ["PYTHONPATH"].split(":")  # its interpreter does not by itself
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            with open({pace!r}) as file:
                time.sleep(float(file.read()))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x + 1)]))
        return answers
"""
_CONFIG = """
backend: "python"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


class Pace:
    """How long the model takes for a request.

    Args:
        path: of the file that the model reads it from.
    """

    def __init__(self, path: Path):
        self.path = path
        self.set(USUAL)

    def set(self, seconds: float) -> None:
        """From the next request on."""
        part = self.path.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(self.path)


def build(repository: Path, name: str) -> Pace:
    """Write the model into a Triton repository."""
    pace = Pace(repository.with_name("pace"))
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(_CODE.format(pace=str(pace.path)))
    (repository / name / "config.pbtxt").write_text(_CONFIG)
    return pace


async def kill(server: TritonServer) -> bool:
    """Kill the process of the model; False when there is none now that has loaded it.

    Triton 24.10 waits for ever for one that dies while it loads: it answers nobody who would load
    the model, or unload it, until it is started again.
    """
    from .memory import below

    stubs = [pid for pid in below(server.pid or -1) if b"backend_stub" in _command(pid)]
    client = TritonClient(server.url)
    try:
        if not all(one.ready for one in await client.versions()):
            return False
    except Unavailable:
        return False
    finally:
        await client.close()
    for pid in stubs:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(stubs)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
