"""Desk: where a newcomer sits: a folder with an app that works, servers, and what he is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from mqinfer.stack.ports import free_port
from tests.support.cli import Shell

# It works. Each mistake is a change of it, or something else than what is right beside it.
APP = """\
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqinfer import App, Blob, Context, Message, Row

app = App("{name}")
double = app.model("double")


class Word(Message):
    text: str


class Length(Message):
    text: str
    length: int


@app.stage(attempts=1)
async def measure(word: Word) -> Length:
    return Length(word.text, len(word.text))
"""
ROW = ("class Length(Message):", 'class Length(Row, table="{name}_length", order_by="text"):')
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that was done wrong.

    Attributes:
        name: what, in a few words.
        run: commands in the app's folder, one after the other; the last one tells. Words in
            braces are the app's name, addresses of servers, and ports.
        says: what stands in the line that it tells, in the order of the parts.
        code: of the last command; each before it succeeds, unless it begins with "-".
        edits: of the app, as (old, new).
        script: instead of the last command, the body of an `async def` in a program beside the app;
            what it raises is what is told.
        files: that lie in the folder, too.
        environ: variables; MQINFER_NATS_URL and MQINFER_CLICKHOUSE_URL are those of real servers.
        letter: whether it is told by the message's dead letter, after which nothing else is there.
    """

    name: str
    says: tuple[str, ...]
    run: tuple[str, ...] = ()
    code: int = 2
    edits: tuple[tuple[str, str], ...] = ()
    script: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    letter: bool = False

    @property
    def id(self) -> str:
        """For pytest."""
        return re.sub(r"\W+", "_", self.name).strip("_")

    @property
    def what(self) -> str:
        """What was typed, for the list."""
        typed = self.script.splitlines()[-1].strip() if self.script else f"mqinfer {self.run[-1]}"
        changed = [(new or f"without {old}").strip().splitlines()[0] for old, new in self.edits]
        told = [f"{name}={value}" for name, value in self.environ.items()]
        return " | ".join((*changed, " ".join((*told, typed)))).replace("{name}", "words")


class Desk:
    """One mistake at a time.

    Args:
        shell: its folder, and what runs commands in this process.
        known: addresses of servers by the words for them.
    """

    def __init__(self, shell: Shell, known: Mapping[str, str]):
        self._shell = shell
        self._name = f"words{os.getpid()}_{next(_numbers)}"
        self._known = {**known, "name": self._name, "port": str(free_port())}

    def told(self, mistake: Mistake) -> tuple[int | None, str]:
        """Make the mistake; the exit code (None is of an exception), and the line that tells."""
        source = APP
        for old, new in mistake.edits:
            assert old in source, f"the app has no {old!r}"
            source = source.replace(old, new)
        self._write(f"{self._name}.py", source)
        for file, text in mistake.files.items():
            self._write(file, text)
        *before, last = mistake.run or ("",)
        for command in before if last and not mistake.script else mistake.run:
            code, out, err = self._shell.run(*self._filled(command.removeprefix("-")).split())
            assert command.startswith("-") or code == 0, f"{command}: {code}\n{out}{err}"
        if mistake.script:
            return None, self._plain(self._raised(mistake.script))
        code, out, err = self._shell.run(*self._filled(last).split())
        return code, self._plain(out + err)

    def _write(self, file: str, text: str) -> None:
        path = self._shell.folder / self._filled(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._filled(text))

    def _filled(self, text: str) -> str:
        for word, value in self._known.items():
            text = text.replace(f"{{{word}}}", value)
        return text

    def _plain(self, text: str) -> str:
        """What is the same in each run, for a page."""
        text = text.strip().replace(str(self._shell.folder), "/home/me/words")
        for word in ("nats", "clickhouse", "models"):
            if address := self._known.get(word, "").rpartition("@")[2].rpartition("/")[2]:
                usual = {"nats": "127.0.0.1:4222", "models": "127.0.0.1:8001"}
                text = text.replace(address, usual.get(word, address))
        return text.replace(self._name, "words")

    def _raised(self, body: str) -> str:
        lines = "".join(f"    {line}\n" for line in self._filled(body).splitlines())
        source = f"import mqinfer\nfrom {self._name} import *\nasync def main():\n{lines}"
        sys.path.insert(0, str(self._shell.folder))  # as for any program that lies there
        names: dict[str, object] = {}
        try:
            exec(source, names)
            asyncio.run(names["main"]())  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            return "".join(traceback.format_exception_only(error))
        return ""
