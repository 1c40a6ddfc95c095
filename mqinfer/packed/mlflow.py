"""A model folder of MLflow: its signature, its requirements, how its python_function is loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.errors import ConfigurationError
from mqinfer.packed.schema import Schema, Tensors

# NumPy's types by those of a signature's columns.
_COLUMNS = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "binary": "bytes",
}
# The channel, the name and the version of a package of conda.
_CONDA = re.compile(r"(?:[^:]*::)?\s*([\w.-]*)\s*(.*)")
_OF_CONDA = ("python", "pip", "setuptools", "wheel")


@dataclass(frozen=True)
class MLflow:
    """A folder with a file `MLmodel`, read once by :func:`read`.

    Attributes:
        folder: as MLflow wrote it.
        flavor: its `python_function`.
        schema: of its signature, or what was said instead.
        columns: whether it wants a table with a column for each input.
        requirements: of its requirements.txt, else of its conda.yaml.
        python: the version that it was logged with, `3.11`.
    """

    folder: Path
    flavor: dict[str, Any]
    schema: Schema | None
    columns: bool
    requirements: Sequence[str]
    python: str | None

    def write(self, folder: Path) -> dict[str, Any]:
        """Copy the folder."""
        shutil.copytree(self.folder, folder / "files" / "model")
        return {
            "kind": "mlflow",
            "columns": self.columns,
            "loader": self.flavor["loader_module"],
            "data": self.flavor.get("data") or self.flavor.get("model_path"),
            "code": self.flavor.get("code"),
        }


def read(folder: Path, schema: Schema | None = None) -> MLflow:
    """Read what a folder says of its model.

    Args:
        folder: with a file `MLmodel`.
        schema: instead of the one of its signature.

    Raises:
        ConfigurationError: something is missing, or of a kind that cannot be served.
    """
    facts = _yaml(folder / "MLmodel")
    flavor = (facts.get("flavors") or {}).get("python_function")
    if not flavor:
        raise ConfigurationError(f"{folder} has no flavour python_function to be served")
    signature = facts.get("signature") or {}
    said = {way: json.loads(signature.get(way) or "[]") for way in ("inputs", "outputs")}
    if schema is None:
        for way, tensors in said.items():
            if not tensors:
                raise ConfigurationError(
                    f"{folder}: its signature says no {way}; log the model with one "
                    "(mlflow.models.infer_signature), or say --input and --output"
                )
        schema = {way: _tensors(folder, way, tensors) for way, tensors in said.items()}
    requirements, python = _environment(folder)
    return MLflow(
        folder=folder,
        flavor=flavor,
        schema=schema,
        columns=bool(said["inputs"]) and said["inputs"][0]["type"] != "tensor",
        requirements=requirements,
        python=_short(python or flavor.get("python_version")),
    )


def _tensors(folder: Path, way: str, said: Sequence[dict[str, Any]]) -> Tensors:
    found: Tensors = {}
    for number, one in enumerate(said):
        name = one.get("name") or (way[:-1] if len(said) == 1 else f"{way[:-1]}_{number}")
        about = f"{folder}: {way[:-1]} {name!r} of its signature"
        if one["type"] == "tensor":
            spec = one["tensor-spec"]
            if spec["shape"][:1] != [-1]:
                raise ConfigurationError(
                    f"{about} has the shape {spec['shape']}; the first side must be -1, of a batch"
                )
            dtype = "string" if spec["dtype"] in ("str", "object") else spec["dtype"]
            found[name] = [dtype, spec["shape"][1:]]
        elif one["type"] in _COLUMNS:
            found[name] = [_COLUMNS[one["type"]], []]
        else:
            raise ConfigurationError(f"{about} is of the type {one['type']}, which has no tensor")
    return found


def _environment(folder: Path) -> tuple[list[str], str | None]:
    """The requirements, and the version of Python if it is said."""
    python: str | None = None
    if (folder / "python_env.yaml").exists():
        python = str(_yaml(folder / "python_env.yaml").get("python") or "") or None
    listed = folder / "requirements.txt"
    if listed.exists():
        lines = (line.strip() for line in listed.read_text().splitlines())
        return [line for line in lines if line and not line.startswith("#")], python
    if not (folder / "conda.yaml").exists():
        return [], python
    found: list[str] = []
    for one in _yaml(folder / "conda.yaml").get("dependencies") or ():
        if isinstance(one, dict):
            found += one.get("pip") or ()
            continue
        name, version = _CONDA.fullmatch(str(one)).groups("")  # type: ignore[union-attr]
        if re.match("=[^=]", version):  # and perhaps a build behind another
            version = f"=={version[1:].partition('=')[0]}"
        if name == "python":
            python = python or version.lstrip("=<>~!") or None
        elif name not in _OF_CONDA:
            found.append(name + version)
    return found, python


def _short(python: str | None) -> str | None:
    return ".".join(str(python).split(".")[:2]) if python else None


def _yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            "a folder of MLflow is read with PyYAML: pip install 'mqinfer[mlflow]'"
        ) from error
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} is no map")
    return found
