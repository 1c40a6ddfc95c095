"""What the tests of the command line share: one NATS, apps in files, commands in processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import structlog

from mqinfer.cli import main
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer

_numbers = itertools.count()
# Processes run the code that is tested, whatever tree the environment has installed.
_SAME_CODE = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
    )
}
TIMEOUT = 300.0  # seconds for what a busy machine does; only a test that fails waits so long

APP = """
from __future__ import annotations
import asyncio
from pathlib import Path
from mqinfer import App, Message, Reject, Row

app = App("{name}")

class Word(Message, subject="word"):
    text: str
    id: str = ""

class Keyed(Message, subject="keyed", key="who", wire="msgpack"):
    who: str

class Length(Row, table="length_{name}", order_by=("text",)):
    text: str
    length: int

@app.stage(attempts=1)
async def measure(word: Word) -> Length:
    if word.text == "reject":
        raise Reject("no such word [x]")
    if word.text == "fail" and not Path("mended").exists():
        raise ValueError("it fails")
    if word.text == "hang":
        Path("hangs").touch()
        await asyncio.sleep(3600)
    return Length(text=word.text, length=len(word.text))

@app.stage
async def count(word: Word) -> None:
    with Path("counted").open("a") as file:
        file.write(word.text + "\\n")

@app.stage
async def greet(keyed: Keyed) -> None:
    pass
"""


@pytest.fixture(scope="session")
def cli_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a NATS that is started once."""
    folder = tmp_path_factory.mktemp("cli")
    nats = NatsServer(folder / "nats", log=folder / "nats.log")

    async def start() -> None:
        await nats.start()
        await nats.wait_ready()

    asyncio.run(start())
    yield nats.url
    asyncio.run(nats.stop())


def command(*arguments: str, module: str = "mqinfer") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@dataclass
class Shell:
    """A folder with an app in it, and commands that are run there."""

    folder: Path
    name: str
    capture: pytest.CaptureFixture[str]
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def app(self) -> str:
        return f"{self.name}:app"

    def write(self, source: str, *, module: str | None = None) -> str:
        """Write a module; gives the name of its app."""
        name = module or f"{self.name}_{next(_numbers)}"
        (self.folder / f"{name}.py").write_text(source.replace("{name}", name))
        return f"{name}:app"

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in this process: code, stdout, stderr."""
        self.capture.readouterr()
        code = main(arguments)
        out, err = self.capture.readouterr()
        return int(code), out, err

    def json(self, *arguments: str) -> Any:
        """The facts that a command prints."""
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def start(
        self,
        *arguments: str,
        log: str | None = None,
        module: str = "mqinfer",
        **environ: str,
    ) -> subprocess.Popen[str]:
        """Run a command in a process of its own.

        Args:
            arguments: of the command line.
            log: a file for its log; by default it is written to a pipe, as JSON lines.
            module: that runs the command; see `tests.support.eager`.
            environ: variables beside those of this process.
        """
        with ExitStack() as stack:
            path = None if log is None else self.folder / log
            stderr = subprocess.PIPE if path is None else stack.enter_context(path.open("w"))
            return self._start(command(*arguments, module=module), stderr, environ)

    def _start(
        self, command: Sequence[str], stderr: Any, environ: dict[str, str]
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **_SAME_CODE, "MQINFER_LOG_FORMAT": "json", **environ},
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
        self.running.append(process)
        return process

    def drain(self, *stages: str) -> None:
        """Run the stages until nothing is left; in this process, where that costs no start."""
        code, _, err = self.run("worker", self.app, "--drain", *(f"--stage={s}" for s in stages))
        assert code == 0, err


def event(running: subprocess.Popen[str], name: str, **fields: object) -> dict[str, Any]:
    """The next log line of that event; a process that does not come to it is killed."""
    seen = []
    assert running.stderr is not None
    end = threading.Timer(TIMEOUT, running.kill)
    end.start()
    try:
        for line in running.stderr:
            seen.append(line)
            if not line.startswith("{"):
                continue
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == name and fields.items() <= entry.items():
                return entry
    finally:
        end.cancel()
    raise AssertionError(f"no {name!r} in {''.join(seen)}")


def until(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    """Wait for a state; a look may be a whole command, or a query: fewer the longer it takes."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout, "the state was not reached"
        time.sleep(min(max(0.02, waited / 10), 0.5))


@pytest.fixture
def unlogged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging belongs to the whole process, which commands share here with other tests."""
    import mqinfer.observe

    monkeypatch.setattr(mqinfer.observe, "configure_logging", lambda *_: None)
    # Nor where a test before it has told it to write, which may be closed.
    root = logging.getLogger()
    others = [one for one in root.handlers if not hasattr(one, "_mqinfer")]
    monkeypatch.setattr(root, "handlers", [*others, logging.NullHandler()])
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.configure(**usual)


@pytest.fixture
def told(
    nats: Settings, unlogged: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[str]]:
    """Run a command in a thread, beside what the test does: what it prints, to stderr if it fails.

    In a process of its own each would take a processor for a second, to begin with.
    """
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    # Which is for the first thread alone; Ctrl-C is the business of other tests.
    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", lambda *_: None)

    async def told(*arguments: str, code: int = 0) -> str:
        kept = BytesIO(), BytesIO()
        out, err = (TextIOWrapper(one, "utf-8", write_through=True) for one in kept)
        with redirect_stdout(out), redirect_stderr(err):
            found = await asyncio.to_thread(main, arguments)
        printed, said = (one.getvalue().decode() for one in kept)
        assert found == code, said
        return said if code else printed

    return told


@pytest.fixture
def shell(
    tmp_path: Path,
    unlogged: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shell]:
    """A folder with an app of its own; no servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQINFER_DEBUG", raising=False)
    for name in ("NATS_URL", "TRITON_URL"):  # where nobody listens
        monkeypatch.setenv(f"MQINFER_{name}", "127.0.0.1:1")
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", "http://default@127.0.0.1:1/default")
    monkeypatch.setenv("MQINFER_BLOBS", str(tmp_path / "blobs"))
    path = list(sys.path)
    made = Shell(tmp_path, f"cli{os.getpid()}_{next(_numbers)}", capsys)
    made.write(APP, module=made.name)
    yield made
    sys.path[:] = path
    for process in made.running:
        process.kill()
        process.wait(TIMEOUT)
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture
def served(shell: Shell, cli_nats: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The same, with NATS and ClickHouse."""
    monkeypatch.setenv("MQINFER_NATS_URL", cli_nats)
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    return shell
