"""`mqinfer worker --reload`: code changes while messages are at work."""

import contextlib
import os
import pty
import signal
import subprocess

import pytest

from mqinfer.cli.errors import ExitCode
from tests.cli.test_scaling import lines, publish
from tests.support.cli import TIMEOUT, Shell, command, event, until

pytestmark = pytest.mark.usefixtures("executed")

APP = """
from __future__ import annotations
import asyncio
from pathlib import Path
from mqinfer import App, Context, Message

app = App("{name}")

class Word(Message, subject="word"):
    text: str

@app.stage(timeout=600, concurrency=2)
async def handle(word: Word, ctx: Context) -> None:
    Path(f"began-{word.text}").touch()
    while word.text.startswith("slow") and not Path("go").exists():
        await asyncio.sleep(0.02)
    with Path("handled").open("a") as file:
        file.write(f"VERSION:{word.text}:{ctx.attempt}\\n")
"""


def test_a_change_is_taken_up_and_nothing_is_lost_or_handled_twice(served: Shell) -> None:
    name = f"{served.name}_reload"
    file, handled = served.folder / f"{name}.py", served.folder / "handled"
    source = APP.replace("{name}", name)

    def save(text: str) -> None:
        part = served.folder / "part"  # as editors do it
        part.write_text(text)
        part.replace(file)

    file.write_text("def broken(:\n")
    worker = served.start("worker", f"{name}:app", "--reload", "--http=0", log="log")
    until(lambda: "cannot run as configured" in (served.folder / "log").read_text())
    save("import os; os._exit(1)\n")
    until(lambda: "process crashed" in (served.folder / "log").read_text())
    save(source.replace("VERSION", "one"))
    publish(served, f"{name}:app", "a", 3)
    until(lambda: len(lines(handled)) == 3)

    # One is at work when the next version comes, and another waits behind.
    publish(served, f"{name}:app", "slow", 3)
    until(lambda: len(list(served.folder.glob("began-slow*"))) == 2)
    save("def broken(:\n")
    until(lambda: "what runs goes on until this is mended" in (served.folder / "log").read_text())
    after = len((served.folder / "log").read_text())
    save(source.replace("VERSION", "two"))

    def since(event: str) -> bool:
        return f'"event": "{event}"' in (served.folder / "log").read_text()[after:]

    until(lambda: since("code has changed"))
    (served.folder / "go").touch()
    until(lambda: since("started"))  # the new one, when the old one has ended
    publish(served, f"{name}:app", "b", 3)
    until(lambda: len(lines(handled)) == 9)

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT) == 0
    found = [line.split(":") for line in lines(handled)]
    assert sorted(text for _, text, _ in found) == sorted(
        f"{prefix}{number}" for prefix in ("a", "slow", "b") for number in range(3)
    )
    assert {attempt for _, _, attempt in found} == {"1"}
    versions = {text: version for version, text, _ in found}
    assert {versions[f"a{number}"] for number in range(3)} == {"one"}
    assert {versions[f"b{number}"] for number in range(3)} == {"two"}
    assert sorted(versions[f"slow{number}"] for number in range(3)).count("one") >= 2


@pytest.mark.parametrize("options", [["--drain"], ["--run=x"], ["--processes=1..2"]])
def test_it_goes_with_nothing_that_ends(options: list[str], shell: Shell) -> None:
    code, _, err = shell.run("worker", shell.app, "--reload", *options)
    assert code == ExitCode.USAGE
    assert "--reload goes on until it is told to stop" in err


def test_breakpoint_without_a_terminal_is_passed_over(served: Shell) -> None:
    app = served.write(APP.replace('    Path(f"began', '    breakpoint()\n    Path(f"began'))
    publish(served, app, "x", 1)
    worker = served.start("worker", app, "--reload")
    assert (
        "--stage NAME"
        in event(worker, "breakpoint() is passed over: this process has no terminal")["hint"]
    )
    until(lambda: lines(served.folder / "handled") == ["VERSION:x0:1"])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT) == 0


def test_breakpoint_opens_a_debugger_in_a_terminal(served: Shell) -> None:
    app = served.write(APP.replace("    Path(f", "    breakpoint()\n    Path(f", 1))
    publish(served, app, "x", 1)
    ours, theirs = pty.openpty()
    worker = subprocess.Popen(
        command("worker", app, "--drain"),
        cwd=served.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    served.running.append(worker)
    os.close(theirs)
    told = b""
    try:
        for asked, says in ((b"", b"(Pdb) "), (b"p word.text.upper()\n", b"'X0'"), (b"c\n", b"")):
            os.write(ours, asked)
            while says not in told:
                told += os.read(ours, 4096)
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while os.read(ours, 4096):
                pass
    finally:
        os.close(ours)
    assert worker.wait(TIMEOUT) == 0
    assert lines(served.folder / "handled") == ["VERSION:x0:1"]
