"""Environments of packed models: a venv for each set of requirements, made once and kept.

They lie in the user's cache (`~/.cache/mqinfer/environments`, or what MQINFER_ENVIRONMENTS names)
under a hash of the requirements and the Python, and are shared by all versions and models with the
same. One is made beside its place and renamed when it is whole, so that half of one is never used;
`uv` makes it if it is on the PATH, else `venv` and `pip`, with their own settings for indexes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Seconds that installing all packages may take.
_BUILD_SECONDS = 3600.0
_ASK_SECONDS = 60.0
_NUMPY = re.compile(r"numpy\b(?!-)", re.IGNORECASE)
# What pip says of no use, at the end of an error.
_CHATTER = re.compile(r"^(\[notice\]|WARNING|note:|hint:|\s*$)")


class EnvironmentFailed(RuntimeError):
    """An environment cannot be made; the text has the installer's own words."""


@dataclass(frozen=True)
class Environment:
    """What a model runs with.

    Attributes:
        python: a version, `3.11`; or the path of one, which is used as it is if there are no
            requirements: it has all the packages.
        requirements: lines for pip.
    """

    python: str
    requirements: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Of all that it depends on."""
        of = [self.python, sys.platform, platform.machine(), sorted(self.requirements)]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:24]

    def ensure(self) -> str:
        """Give the path of its Python; makes the environment if it is not there.

        Raises:
            EnvironmentFailed: it cannot be made, and why.
        """
        if _is_path(self.python) and not self.requirements:
            return self.python
        cache = cache_folder()
        place = cache / self.key
        python = place / "bin" / "python"
        if python.exists():
            return str(python)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / f"{self.key}.lock"):
                if not python.exists():  # another process made it meanwhile
                    part = cache / f"{self.key}.part"
                    for old in (part, place):
                        shutil.rmtree(old, ignore_errors=True)
                    try:
                        self._make(part)
                        part.rename(place)
                    finally:
                        shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            raise EnvironmentFailed(
                f"its environment cannot be made in {cache}: {error} (MQINFER_ENVIRONMENTS names "
                "another folder)"
            ) from error
        return str(python)

    def _make(self, place: Path) -> None:
        wanted = list(self.requirements)
        if not any(_NUMPY.match(line) for line in wanted):
            wanted.append("numpy")
        python = str(place / "bin" / "python")
        uv = shutil.which("uv")
        if uv is not None:
            _call([uv, "venv", "--quiet", "--python", self.python, str(place)])
            install = [uv, "pip", "install", "--quiet", "--python", python]
        else:
            _call([find_python(self.python), "-m", "venv", str(place)])
            quiet = ("--quiet", "--no-input", "--disable-pip-version-check")
            install = [python, "-m", "pip", "install", *quiet]
        listed = place / "requirements.txt"
        listed.write_text("\n".join(wanted) + "\n")
        _call([*install, "-r", str(listed)])


def environment_of(facts: dict[str, Any]) -> Environment:
    """The environment that a version's `packed.json` names."""
    return Environment(facts["python"], tuple(facts["requirements"]))


def cache_folder() -> Path:
    """Where environments are kept."""
    named = os.environ.get("MQINFER_ENVIRONMENTS")
    if named:
        return Path(named).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mqinfer" / "environments"


def find_python(wanted: str) -> str:
    """The path of a Python of a version, or what is a path already.

    Raises:
        EnvironmentFailed: there is none on this machine.
    """
    if _is_path(wanted):
        return wanted
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}" == wanted
    near = [f"{sys.base_prefix}/bin/python{wanted}", sys.executable] if ours else []
    for name in (*near, f"python{wanted}", "python3", "python"):
        path = shutil.which(name) if name else None
        if path is not None and _version(path) == wanted:
            return path
    raise EnvironmentFailed(
        f"there is no Python {wanted} on the PATH, which the model was packed for: install it "
        "(`uv python install`, or your system's packages), or pack the model for another (--python)"
    )


def _is_path(python: str) -> bool:
    return "/" in python


def _version(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, timeout=_ASK_SECONDS
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _call(command: list[str]) -> None:
    ignored = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PIP_TARGET")
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(
            f"its environment was not made within {_BUILD_SECONDS:g} s: {' '.join(command)}"
        ) from None
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if not _CHATTER.match(line)]
        said = (
            "\n".join(map(_short, lines[-6:]))
            or f"exit code {done.returncode} of {' '.join(command)}"
        )
        raise EnvironmentFailed(f"its environment cannot be made: {said}")


def _short(line: str) -> str:
    """Without the middle of what is long: pip lists every version that there is."""
    return line if len(line) <= 400 else f"{line[:150]} ... {line[-200:]}"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a file alone; the kernel gives it back however this process ends."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
