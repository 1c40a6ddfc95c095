"""Triton, from the wheel nvidia-pytriton, with an ONNX Runtime backend in Python.

The wheel holds a real tritonserver and the Python backend alone. The backend
directory assembled here adds ``onnxruntime`` as a Python-based backend, so that
a model repository with ``backend: "onnxruntime"`` is served here and, unchanged,
by NVIDIA's container with its C++ backend.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mqinfer.inference.reasons import why
from mqinfer.packed.runtime import together
from mqinfer.stack import probe
from mqinfer.stack.errors import NotInstalled, StackConfigurationError, StackError
from mqinfer.stack.modelfolder import flaw
from mqinfer.stack.ports import HOST, free_port
from mqinfer.stack.repository import Files, RepositoryWatch, files_of
from mqinfer.stack.server import Server

ModelControl = Literal["poll", "explicit", "none"]

# What the stand-in backend consists of; its parts lie beside each other in Triton's folder.
_ONNXRUNTIME_BACKEND = (
    Path(__file__).with_name("onnxruntime_backend") / "model.py",
    Path(__file__).with_name("onnxconfig.py"),
    Path(together.__file__),
)
_MACHINES = ("x86_64", "aarch64")
_INSTEAD = (
    "start our own inference server with --inference onnx; or use a Triton of your own (for "
    "example compose/compose.yaml) with MQINFER_TRITON_URL, and start the stack with --no-triton"
)

# Interfaces of HTTP. The first ones are nobody else's even on a port that was asked for: who may
# load a model may send it along, and Python models are programs.
ALWAYS_CLOSED = ("model-repository", "shared-memory", "trace", "logging")
OPENED = ("health", "metadata", "inference", "model-config", "statistics")


def huge_pages() -> dict[str, str]:
    """Give the variable that lets a process take large blocks of memory in huge pages.

    Models make large arrays anew for each request, and the kernel each of their pages: 2 MB at a
    time instead of 4 kB. glibc knows it from 2.35 on; nothing else minds. What is set stays.
    """
    name = "GLIBC_TUNABLES"
    return {} if name in os.environ else {name: "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True, slots=True)
class ModelState:
    """What Triton says about one version of a model in its repository."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class TritonFiles:
    """Where the installed wheel keeps what is needed to run its server."""

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path
    site_packages: Path


def find_triton() -> TritonFiles:
    """Find the server in the wheel nvidia-pytriton without importing it.

    Raises:
        NotInstalled: The platform has no such wheel, or it is not installed.
        StackConfigurationError: It has no stub for this Python, this NumPy is
            too new for it, or it is not whole.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise NotInstalled(
            f"the embedded Triton is for Linux on {' and '.join(_MACHINES)}, not {sys.platform} on "
            f"{platform.machine()}: {_INSTEAD}"
        )
    for package in ("pytriton", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise NotInstalled(
                f"the embedded Triton needs the package {package}: "
                f"pip install 'mqinfer[embedded]', or {_INSTEAD}"
            )
    numpy = importlib.metadata.version("numpy")
    if int(numpy.partition(".")[0]) > 1:
        # It starts with NumPy 2 and says that it is ready, and each answer is empty.
        raise StackConfigurationError(
            f"the embedded Triton needs a NumPy before 2, not {numpy}: pip install 'numpy<2' "
            f"(Python 3.13 has none), or {_INSTEAD}"
        )
    spec = importlib.util.find_spec("pytriton")
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    package_dir = Path(locations[0])
    root = package_dir / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    files = TritonFiles(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / version / "triton_python_backend_stub",
        libraries=package_dir.parent / "nvidia_pytriton.libs",
        site_packages=package_dir.parent,
    )
    if not files.stub.exists():
        raise StackConfigurationError(
            f"nvidia-pytriton has no stub for Python {version} ({files.stub}): "
            f"use a Python that it supports, or {_INSTEAD}"
        )
    for path in (files.server, files.python_backend, files.libraries):
        if not path.exists():
            raise StackConfigurationError(
                f"nvidia-pytriton is installed without {path}: reinstall it "
                f"(nvidia-pytriton==0.7.0), or {_INSTEAD}"
            )
    return files


class TritonServer(Server):
    """A tritonserver on loopback that serves one model repository.

    Args:
        directory: Where its backend directory is assembled.
        log: Where its output goes.
        models: The model repository; None serves an empty one under `directory`.
        http_port: 0 takes a free one, so for the others. None, too, and answers this process
            alone: whatever web page would reach it, and could have models loaded.
        grpc_port: What ``MQINFER_TRITON_URL`` names.
        metrics_port: Prometheus metrics of Triton itself; None opens none.
        model_control: ``poll`` takes up new versions within about a second, and
            loads on request, too (a model whose process died is loaded anew);
            ``explicit`` only on request, beginning with everything there is;
            ``none`` loads once.
        exit_timeout: How long requests in flight may take when it stops, seconds.
        extra_arguments: More command-line arguments for tritonserver.
    """

    name = "Triton"

    def __init__(
        self,
        directory: Path,
        *,
        log: Path,
        models: Path | None = None,
        http_port: int | None = None,
        grpc_port: int = 0,
        metrics_port: int | None = None,
        model_control: ModelControl = "poll",
        exit_timeout: int = 2,
        extra_arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(log)
        self.directory = directory
        self.models = models if models is not None else directory / "models"
        self._own_models = models is None
        self.http_port = http_port or free_port()
        self.grpc_port = grpc_port or free_port()
        self.metrics_port = free_port() if metrics_port == 0 else metrics_port
        # What other users of this machine see in the list of processes, and no web page does.
        self._key = {"x-mqinfer-key": secrets.token_hex(16)}
        self._closed = ALWAYS_CLOSED if http_port is not None else (*ALWAYS_CLOSED, *OPENED)
        self.model_control: ModelControl = model_control
        self.exit_timeout = exit_timeout
        self.extra_arguments = extra_arguments
        self._watch: RepositoryWatch | None = None
        # Its own, so that what a killed server leaves in shared memory can be told
        # from what other servers use.
        digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]
        self._shared_memory_prefix = f"mqinfer_triton_{digest}_"

    @property
    def url(self) -> str:
        """The gRPC address as tritonclient wants it, ``host:port``."""
        return f"{HOST}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """The HTTP address."""
        return f"http://{HOST}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads Triton's own metrics, if it was given a port for them."""
        return f"http://{HOST}:{self.metrics_port}/metrics"

    def check(self) -> None:
        """Refuse what cannot work before anything is started.

        Raises:
            StackConfigurationError: See :func:`find_triton`; or the model
                repository is not there.
        """
        self._check_models()
        find_triton()

    def _check_models(self) -> None:
        """Refuse a model repository that is not there.

        Raises:
            StackConfigurationError: It is not a folder.
        """
        if not self._own_models and not self.models.is_dir():
            raise StackConfigurationError(
                f"the model repository {self.models} is not a folder: name another with "
                "--models, or create it (it may be empty)"
            )

    def ports(self) -> Mapping[int, tuple[str, str]]:
        """Give two, or three."""
        wanted = {
            self.grpc_port: ("Triton gRPC", "--triton-grpc-port"),
            self.http_port: ("Triton HTTP", "--triton-http-port"),
        }
        if self.metrics_port is not None:
            wanted[self.metrics_port] = ("Triton metrics", "--triton-metrics-port")
        return wanted

    def prepare(self) -> None:
        """Assemble what it needs afresh, as what is installed may have changed."""
        self.check()
        if self._own_models:
            self.models.mkdir(parents=True, exist_ok=True)
        self._assemble()
        self._look_no_more()
        if self.model_control == "poll":
            self._watch = RepositoryWatch(self.models, self.http_port, headers=self._key)

    def _assemble(self) -> None:
        """Make the backend directory."""
        files = find_triton()
        backends = self.directory / "backends"
        shutil.rmtree(backends, ignore_errors=True)
        python = backends / "python"
        python.mkdir(parents=True)
        # Copies: Triton refuses a library that a link leads out of the backend directory.
        for entry in files.python_backend.iterdir():
            if entry.is_file():
                shutil.copy2(entry, python / entry.name)
        shutil.copy2(files.stub, python / files.stub.name)
        onnxruntime = backends / "onnxruntime"
        onnxruntime.mkdir()
        for file in _ONNXRUNTIME_BACKEND:
            shutil.copyfile(file, onnxruntime / file.name)

    async def start(self) -> None:
        """Start the process, and look for models that change; see `Server.start`."""
        await super().start()
        if self._watch is not None:
            self._watch.start()

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop the server in order; see `Server.stop`."""
        self._look_no_more()
        await super().stop(timeout)

    def _look_no_more(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def leftovers(self) -> str:
        """Give the shared memory of its model instances."""
        return f"/dev/shm/{self._shared_memory_prefix}*"

    def command(self) -> list[str]:
        """Give the command line."""
        command = [
            *self._executable(),
            f"--model-repository={self.models.resolve()}",
            f"--model-control-mode={'none' if self.model_control == 'none' else 'explicit'}",
            "--exit-on-error=false",
            # One broken model must not keep the others from being served.
            "--strict-readiness=false",
            f"--exit-timeout-secs={self.exit_timeout}",
            f"--http-address={HOST}",
            f"--http-port={self.http_port}",
            f"--grpc-address={HOST}",
            f"--grpc-port={self.grpc_port}",
            *(
                f"--http-restricted-api={','.join(self._closed)}:{name}={value}"
                for name, value in self._key.items()
            ),
            f"--allow-metrics={'false' if self.metrics_port is None else 'true'}",
        ]
        if self.metrics_port is not None:
            command += [f"--metrics-address={HOST}", f"--metrics-port={self.metrics_port}"]
        if self.model_control != "none":
            command.append("--load-model=*")
        return [*command, *self.extra_arguments]

    def _executable(self) -> list[str]:
        """Give the beginning of its command line, with its backends."""
        return [
            str(find_triton().server),
            f"--backend-directory={(self.directory / 'backends').resolve()}",
            f"--backend-config=onnxruntime,shm-region-prefix-name={self._shared_memory_prefix}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
        ]

    def environment(self) -> Mapping[str, str]:
        """Let the stub find the wheel's libraries and the packages of this environment."""
        files = find_triton()
        # The last one for a Python that was built with a shared library of its own.
        paths = [
            str(files.libraries),
            os.environ.get("LD_LIBRARY_PATH", ""),
            sysconfig.get_config_var("LIBDIR") or "",
        ]
        packages = dict.fromkeys(
            (str(files.site_packages), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
        )
        return {
            "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
            "PYTHONPATH": ":".join(packages),
            "PYTHONUNBUFFERED": "1",
            **huge_pages(),
        }

    async def probe(self) -> bool:
        """Ask whether the server takes requests.

        It listens only after every model of the repository was loaded or has failed.
        """
        ready = (await self.ask("/v2/health/ready"))[0] == 200
        if ready and not self.version:
            status, about = await self.ask("/v2")
            self.version = json.loads(about).get("version", "") if status == 200 else ""
        return ready

    async def ask(
        self, path: str, *, method: str = "GET", timeout: float = 2.0
    ) -> tuple[int, bytes]:
        """Ask the HTTP interface, which answers nobody else; see `probe.http`."""
        return await probe.http(
            self.http_port, path, method=method, headers=self._key, timeout=timeout
        )

    async def model_states(self) -> list[ModelState]:
        """List every version of every model with its state, and why it is not served.

        A model that is served, and whose changed folder is not taken, is listed once more for
        that, without a version.

        Raises:
            StackError: Triton did not answer as expected.
        """
        # Before its answer: what is loaded meanwhile may stand in the answer as it was.
        asked = self._watch.loaded() if self._watch is not None else None
        status, body = await self.ask("/v2/repository/index", method="POST", timeout=5.0)
        if status != 200:
            raise StackError(f"Triton does not list its models: {status} {body[:200]!r}")
        listed = [
            ModelState(
                name=entry["name"],
                version=entry.get("version", ""),
                state=entry.get("state", ""),
                reason=why(entry.get("reason", "")),
            )
            for entry in json.loads(body)
        ]
        refused = dict(self._watch.refused) if self._watch is not None else {}
        whole = {one.name for one in listed if one.state == "READY"}
        whole -= {one.name for one in listed if one.state != "READY"}
        listed += [ModelState(name, "", "", "") for name in sorted(whole & refused.keys())]
        return [
            one
            if one.reason or one.state
            else replace(one, reason=self._flaw(one.name, refused, asked))
            for one in listed
        ]

    def _flaw(
        self, model: str, refused: Mapping[str, str], asked: Mapping[str, Files] | None
    ) -> str:
        """Why Triton did not take a folder, of which its index says nothing; "" while it may.

        It may while the folder is not what Triton was asked for: new, or mended a moment ago.
        """
        folder = self.models / model
        # The files are looked at last: what is mended meanwhile has no reason any more.
        reason = flaw(folder) or refused.get(model) or f"see {self.log}"
        return reason if asked is None or asked.get(model) == files_of(folder) else ""
