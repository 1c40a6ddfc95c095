"""Servers that PyPI does not have, from Debian's packages, without root and without installing.

A program that is installed is used as it is. Otherwise its packages, and those they depend on that
are not installed, are downloaded with apt under `.cache/debian` and unpacked there; apt's lists are
kept there too. Nothing of the machine is changed.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(".cache/debian")
_SECONDS = 300.0  # for one command of apt


class NotProvidedError(Exception):
    """A program is not installed and cannot be fetched; the text says what to install."""


@dataclass(frozen=True)
class Provided:
    """Where a program and what it needs are.

    Attributes:
        root: of the tree that its package was unpacked in; `/` if it is installed.
    """

    root: Path

    def environment(self) -> dict[str, str]:
        """What a program needs to find its libraries and programs in the tree."""
        if self.root == Path("/"):
            return {}
        libraries = (self.root / "usr/lib").glob("*-linux-gnu*")
        programs = [self.root / "usr/bin", self.root / "usr/sbin", self.root / "usr/lib/erlang/bin"]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "PATH": os.pathsep.join([*map(str, programs), os.environ.get("PATH", os.defpath)]),
            "ERL_ROOTDIR": str(self.root / "usr/lib/erlang"),
        }


async def provide(program: str, package: str) -> Provided:
    """Find a program, or fetch its package.

    Args:
        program: path under the root, such as `usr/bin/redis-server`.
        package: Debian's name.

    Raises:
        NotProvidedError: neither is possible.
    """
    if (Path("/") / program).exists():
        return Provided(Path("/"))
    root = (_CACHE / package).absolute()
    if not root.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise NotProvidedError(f"install {package} ({platform.system()} without apt)")
        try:
            await _fetch(package, root)
        except (OSError, TimeoutError) as error:
            raise NotProvidedError(f"install {package} (apt: {error})") from None
    return Provided(root)


async def _fetch(package: str, root: Path) -> None:
    """Download and unpack a package with what it depends on.

    Raises:
        OSError: apt or dpkg failed; the text is the last line it said.
        TimeoutError: it took too long.
    """
    lists, archives = _CACHE / "lists", _CACHE / "archives"
    for folder in (lists / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    apt = [
        "apt-get",
        "--quiet=2",
        f"--option=Dir::State::lists={lists.absolute()}",
        f"--option=Dir::Cache={archives.absolute()}",
        # Downloads by root are else left to a user who cannot write here.
        "--option=APT::Sandbox::User=",
        "--option=Debug::NoLocking=1",
    ]
    await _run(*apt, "update")
    plan = await _run(*apt, "--simulate", "--no-install-recommends", "install", package)
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    partial = root.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    await _run(*apt, "download", *needed, folder=partial)
    for archive in sorted(partial.glob("*.deb")):
        await _run("dpkg-deb", "--extract", str(archive), str(partial))
        archive.unlink()
    # Debian's Erlang knows one place only.
    for script in partial.glob("usr/lib/erlang/**/bin/erl"):
        text = script.read_text()
        script.write_text(text.replace("ROOTDIR=/usr/lib/erlang", 'ROOTDIR="$ERL_ROOTDIR"'))
    partial.rename(root)


async def _run(*command: str, folder: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise OSError(said[-1] if said else f"{command[0]} failed")
    return out.decode(errors="replace")
