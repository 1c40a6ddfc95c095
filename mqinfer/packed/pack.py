"""Pack: puts a version of a model together beside its repository, and moves it in when it is whole.

A server that looks meanwhile never sees half a version, and nothing that is there is overwritten
unasked.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.errors import ConfigurationError
from mqinfer.packed import config
from mqinfer.packed.kinds import Kind, Onnx
from mqinfer.packed.runtime import process
from mqinfer.packed.runtime.process import PackedError, PackedProcess
from mqinfer.packed.schema import Schema, entries

_RUNTIME = Path(process.__file__).parent
# As a Python: the one that packs, with all that is installed there.
HERE = "here"
# Of packed.json: what a server of another release of mqinfer has to know.
_FORMAT = 1
_RELATIVE = re.compile(r"^(-[rce]\b|--(requirement|constraint|editable)\b|\.{1,2}/)")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a packed version goes, and how.

    Attributes:
        to: the model's folder in a repository; its name is the model's.
        version: to write; None is the next.
        force: replace the version if it is there, and the configuration if it differs.
        max_batch: the most items of one run.
        requirements: instead of what the model says.
        python: a version, the path of one, or `HERE`, instead of what the model says.
        environment: make the environment and load the model once, so that what is wrong is told
            now; else it is left to the server.
    """

    to: Path
    version: int | None = None
    force: bool = False
    max_batch: int = 32
    requirements: Sequence[str] = ()
    python: str | None = None
    environment: bool = True


@dataclass(frozen=True)
class Packed:
    """What was written."""

    folder: Path
    schema: Schema | None

    @property
    def name(self) -> str:
        """The model's."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """Its number."""
        return self.folder.name


def pack(model: Kind | Onnx, place: Place, say: Callable[[str], None] = lambda _: None) -> Packed:
    """Write a version of a model into a repository.

    Args:
        model: what is packed.
        place: where it goes.
        say: gets a line for what takes long.

    Raises:
        ConfigurationError: it cannot be packed as it was said, or its environment not be made, or
            it does not load; nothing was changed.
    """
    folder = place.to.absolute()
    version = _version(folder, place)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = _stage(folder.parent)
    try:
        made = stage / folder.name / version
        made.mkdir(parents=True)
        schema = None
        if isinstance(model, Onnx):
            backend = "onnxruntime"
            tensors, batch = model.write(made, folder.name, place.max_batch)
        else:
            backend, batch = "python", place.max_batch
            schema = _write(model, made, place, say)
            tensors = entries(schema)
        text = config.text(folder.name, backend, tensors, batch)
        (made.parent / "config.pbtxt").write_text(text)
        if not place.force:
            _require_fit(folder, backend, tensors)
        _move_in(made.parent, folder, version, place.force)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Packed(folder / version, schema)


def newest(folder: Path) -> Path | None:
    """The latest version that was packed into a model's folder; None where there is none."""
    found = [path.parent for path in folder.glob("*/packed.json") if path.parent.name.isdigit()]
    return max(found, key=lambda path: int(path.name), default=None)


def facts_of(version: Path) -> dict[str, Any]:
    """What a version's packed.json says.

    Raises:
        ConfigurationError: it cannot be read.
    """
    file = version / "packed.json"
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    return found


def digest_of(model: Kind, place: Place) -> str:
    """The `digest` of the version that `pack` would write: the same for the same, whenever it is.

    Raises:
        ConfigurationError: it cannot be packed as it was said.
    """
    with tempfile.TemporaryDirectory(prefix="mqinfer-pack-") as folder:
        digest: str = _fill(model, Path(folder), place)["digest"]
    return digest


def _version(folder: Path, place: Place) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", folder.name):
        raise ConfigurationError(
            f"--to {place.to}: a model's name has letters, digits, _, - and ., not {folder.name!r}"
        )
    there = [0]
    if folder.is_dir():
        there += [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    number = max(there) + 1 if place.version is None else place.version
    if number in there[1:] and not place.force:
        raise ConfigurationError(f"{folder / str(number)} is there: --force replaces it")
    return str(number)


def _write(model: Kind, made: Path, place: Place, say: Callable[[str], None]) -> Schema:
    """Fill a version's folder, and load the model once in its environment."""
    facts = _fill(model, made, place)
    requirements = facts["requirements"]
    if place.environment:
        what = f" and {', '.join(requirements)}" if requirements else ""
        say(f"loading {made.parent.name} with Python {facts['python']}{what}")
        _load(made, facts, facts)
    elif "schema" not in facts:
        # What the class says can be read here, if all that it imports is here, too.
        _load(made, {**facts, "python": sys.executable, "requirements": []}, facts)
    _save(made, facts)
    shutil.copyfile(_RUNTIME / "model.py", made / "model.py")
    target = made / "packed_runtime"
    target.mkdir()
    for path in _runtime():
        if path.name != "model.py":
            shutil.copyfile(path, target / path.name)
    schema: Schema = facts["schema"]
    return schema


def _fill(model: Kind, made: Path, place: Place) -> dict[str, Any]:
    """Copy what a model consists of; gives all of packed.json that is known before it is loaded."""
    (made / "source").mkdir()
    (made / "files").mkdir()
    requirements = list(place.requirements)
    python = sys.executable if place.python == HERE else place.python
    if not requirements and "/" not in (python or ""):  # a Python that is there has them
        requirements = list(model.requirements)
    for line in requirements:
        if _RELATIVE.match(line):
            raise ConfigurationError(
                f"the requirement {line!r} names a file here, which the server does not have; say "
                "what it stands for"
            )
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    facts = {
        "format": _FORMAT,
        **model.write(made),
        "python": python or model.python or ours,
        "requirements": requirements,
    }
    if model.schema is not None:
        facts["schema"] = model.schema
    facts["digest"] = _digest(made, facts)
    return facts


def _digest(made: Path, facts: dict[str, Any]) -> str:
    """Of all that a version consists of, and of what runs it."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    files = [path for path in sorted(made.rglob("*")) if path.is_file()]
    for path in (*files, *_runtime()):
        name = path.relative_to(made) if path in files else path.name
        found.update(f"\n{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    return found.hexdigest()[:32]


def _runtime() -> list[Path]:
    return sorted(_RUNTIME.glob("*.py"))


def _load(made: Path, how: dict[str, Any], facts: dict[str, Any]) -> None:
    """Load the model as a server would; what it says of itself becomes a part of `facts`."""
    _save(made, how)
    running = PackedProcess(made, name=made.parent.name)
    try:
        running.start()
    except PackedError as error:
        raise ConfigurationError(str(error)) from error
    finally:
        running.stop()
    for path in made.rglob("__pycache__"):
        shutil.rmtree(path)
    facts["schema"] = running.schema
    if running.about:
        facts["about"] = running.about


def _save(made: Path, facts: dict[str, Any]) -> None:
    (made / "packed.json").write_text(json.dumps(facts, indent=1) + "\n")


def _require_fit(folder: Path, backend: str, tensors: config.Entries) -> None:
    """Refuse a version that the model's other versions do not go with."""
    written = folder / "config.pbtxt"
    if written.exists():
        config.require_same(written, backend, tensors)
    elif backend == "python" and any(folder.glob("[0-9]*/*")):
        raise ConfigurationError(
            f"{folder} has versions without a config.pbtxt, which are no packed ones: pack it "
            "under another name (--to)"
        )


def _stage(repository: Path) -> Path:
    """A folder to put a version together in, from which it can be renamed into the repository."""
    beside, prefix = repository.parent, ".mqinfer-pack-"
    try:
        if beside.stat().st_dev == repository.stat().st_dev:
            # In the repository it would be a model.
            return Path(tempfile.mkdtemp(dir=beside, prefix=prefix))
    except OSError:
        pass
    try:
        return Path(tempfile.mkdtemp(dir=repository, prefix=prefix))
    except OSError as error:
        raise ConfigurationError(f"cannot write to {repository}: {error}") from error


def _move_in(stage: Path, folder: Path, version: str, force: bool) -> None:
    """Move what was made to its place: a new model whole, else the version."""
    if not folder.exists():
        stage.rename(folder)
        return
    empty = not any(folder.iterdir())
    there = folder / version
    if there.exists():
        there.rename(stage / "replaced")
    (stage / version).rename(there)
    # What is written there already is the user's.
    if empty or force:
        (stage / "config.pbtxt").replace(folder / "config.pbtxt")
