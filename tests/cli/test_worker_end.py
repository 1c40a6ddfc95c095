"""A worker that is told to stop ends, whatever its handlers do: exit code 1, and who it was."""

from __future__ import annotations

import json
import signal

import pytest

from mqinfer.cli.deadline import Deadline
from tests.support.cli import TIMEOUT, Shell, until

APP = """
import asyncio
import time
from pathlib import Path
from mqinfer import App, Message

app = App("{name}")

class Word(Message, subject="word"):
    text: str

@app.stage(timeout=3600, ack_wait=2.0)
async def hang(word: Word) -> None:
    Path(word.text).touch()
    if word.text == "stubborn" and not Path("again").exists():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    if word.text == "blocking" and not Path("again").exists():
        time.sleep(3600)
    Path(word.text + " handled").touch()
"""


@pytest.mark.parametrize(
    ("kind", "event", "line"),
    [
        ("stubborn", "a handler does not end, whatever cancels it: it is left behind", 18),
        ("blocking", "the worker does not stop in order, and is ended", 22),
    ],
)
def test_a_stop_ends_and_names_who_does_not(
    served: Shell, kind: str, event: str, line: int
) -> None:
    app = served.write(APP)
    (served.folder / "word.jsonl").write_text(json.dumps({"text": kind}))
    assert served.run("publish", app, "word", str(served.folder / "word.jsonl"))[0] == 0
    worker = served.start("worker", app, MQINFER_GRACE="0.5")
    until((served.folder / kind).exists)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 1, err
    (said,) = (json.loads(one) for one in err.splitlines() if f'"event": "{event}"' in one)
    where = f"{said.get('file')}:{said.get('line')} {said.get('reason')} {said.get('stage')}"
    assert f"{app.partition(':')[0]}.py:{line}" in where
    assert "hang" in where
    assert "Traceback" not in err
    # What it held goes to another.
    (served.folder / "again").touch()
    other = served.start("worker", app, "--drain")
    _, err = other.communicate(timeout=TIMEOUT)
    assert other.returncode == 0, err
    assert (served.folder / f"{kind} handled").exists()


def test_a_deadline_waits_for_the_signal_and_for_the_grace() -> None:
    said: list[str] = []
    blocked: list[str | None] = [None]
    deadline = Deadline(0.0, lambda _seconds: blocked[0], said.append)
    with deadline.kept():
        assert said == []
        deadline.begin()
        blocked[0] = "by s"
        until(lambda: said)
    assert said == ["by s"]


def test_a_deadline_of_a_worker_that_ends_is_forgotten() -> None:
    said: list[str] = []
    deadline = Deadline(3600.0, lambda _seconds: "by s", said.append)
    with deadline.kept():
        deadline.begin()
    with Deadline(0.0, lambda _seconds: "by s", said.append).kept():
        pass
    assert said == []
