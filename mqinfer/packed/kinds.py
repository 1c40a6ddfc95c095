"""What can be packed: a Python class, a TorchScript file, an ONNX file; MLflow's is in `mlflow`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mqinfer.errors import ConfigurationError
from mqinfer.packed.config import Entries
from mqinfer.packed.schema import Schema

_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


class Kind(Protocol):
    """A model that runs with Python, before it is packed."""

    @property
    def requirements(self) -> Sequence[str]:
        """What it needs, where nothing else is said."""

    @property
    def python(self) -> str | None:
        """The version of Python that it needs, if it says so."""

    @property
    def schema(self) -> Schema | None:
        """What it takes and gives, if that is known before it was loaded."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Copy what it consists of into a version's folder; gives its part of `packed.json`."""


@dataclass(frozen=True)
class PythonClass:
    """A class with `predict`.

    Attributes:
        name: `module:Class`, searched in the current folder first; or `path/to/file.py:Class`.
        schema: instead of what the class says.
        files: what `load` finds in its folder.
        sources: more modules and packages that it imports.
        rejects: names of exceptions, beside `Reject`, by which it says that an item can never be
            answered; see `runtime.child.rejected`.
        folder: where the module is searched first; None is the current one.
    """

    name: str
    schema: Schema | None = None
    files: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()
    requirements: Sequence[str] = ()
    python: str | None = None
    rejects: tuple[str, ...] = ()
    folder: Path | None = None

    def write(self, folder: Path) -> dict[str, Any]:
        """Copy the module, or the whole package that it is in, and the files."""
        module, _, name = self.name.rpartition(":")
        source, dotted = _source(module, self.folder or Path.cwd())
        for path in (source, *self.sources):
            _copy(path, folder / "source")
        for path in self.files:
            _copy(path, folder / "files")
        said = {"rejects": list(self.rejects)} if self.rejects else {}
        return {"kind": "class", "class": f"{dotted}:{name}", **said}


@dataclass(frozen=True)
class TorchScript:
    """A file of `torch.jit.save`; its inputs are given in their order, outputs taken in theirs."""

    file: Path
    schema: Schema | None
    requirements: Sequence[str] = ("torch",)
    python: str | None = None

    def write(self, folder: Path) -> dict[str, Any]:
        """Copy the file."""
        if self.schema is None:
            raise ConfigurationError(
                f"{self.file} does not say its inputs and outputs: --input image:float32:3,224,224 "
                "--output scores:float32:10 (as the module takes them)"
            )
        _copy(self.file, folder / "files")
        return {"kind": "torchscript", "file": self.file.name}


@dataclass(frozen=True)
class Onnx:
    """An ONNX file, for the backend `onnxruntime`; it runs with no Python.

    Attributes:
        file: the model.
        files: what lies beside it: tensors in files of their own.
    """

    file: Path
    files: tuple[Path, ...] = ()

    def write(self, folder: Path, name: str, max_batch: int) -> tuple[Entries, int]:
        """Copy it, and see whether it loads; gives its tensors and the batch that it can take."""
        try:
            import onnxruntime

            from mqinfer.stack import onnxconfig
        except ImportError as error:
            raise ConfigurationError(
                f"an ONNX file is packed with {error.name}: pip install 'mqinfer[embedded]'"
            ) from error
        for path in self.files:
            _copy(path, folder)
        file = folder / "model.onnx"
        shutil.copyfile(self.file, file)
        try:
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            done = onnxconfig.complete({"name": name}, session)
            if batch := int(done.get("max_batch_size", 0)):
                batch = max_batch
        except Exception as error:  # of the runtime's own kinds, or a ValueError of ours
            raise ConfigurationError(f"{self.file} cannot be served: {error}") from error
        entries = {
            way: [(one["name"], one["data_type"], one["dims"]) for one in done[way]]
            for way in ("input", "output")
        }
        return entries, batch


def _source(module: str, folder: Path) -> tuple[Path, str]:
    """The file or folder to copy so that a module can be imported, and the name to import then."""
    if module.endswith(".py") or "/" in module:
        path = folder / module
        if not path.is_file():
            raise ConfigurationError(f"there is no file {module} in {folder}")
        return path, path.stem
    parts = module.split(".")
    for root in [folder, *(Path(one or ".") for one in sys.path)]:
        place = root.joinpath(*parts)
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            top = root / parts[0]
            return (top if top.is_dir() else top.with_suffix(".py")), module
    raise ConfigurationError(
        f"there is no module {module!r} in {folder} or on the path; MODEL is module:Class, "
        "file.py:Class, an .onnx file, a TorchScript file or a folder of MLflow"
    )


def _copy(path: Path, to: Path) -> None:
    if not path.exists():
        raise ConfigurationError(f"there is no file {path}")
    to.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to / path.resolve().name, ignore=_IGNORED)
    else:
        shutil.copyfile(path, to / path.name)
