"""A real group that scales by itself: up, kills, drain, down; never against a gate; in portions."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.support.cli import TIMEOUT, Shell, until

APP = """
from __future__ import annotations
import asyncio
from pathlib import Path
from mqinfer import App, Message

app = App("{name}")

class Word(Message, subject="word"):
    text: str

class Out(Message, subject="out"):
    text: str

@app.stage(timeout=600, concurrency=1, max_in_flight=2)
async def slow(word: Word) -> None:
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    with Path("slow").open("a") as file:
        file.write(word.text + "\\n")

@app.stage(max_downstream=5)
async def first(word: Word) -> Out:
    return Out(text=word.text)

@app.stage
async def last(out: Out) -> None:
    with Path("last").open("a") as file:
        file.write(out.text + "\\n")
"""


def publish(served: Shell, app: str, prefix: str, count: int) -> set[str]:
    words = {f"{prefix}{number}" for number in range(count)}
    path = served.folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": word}) for word in sorted(words)))
    code, _, err = served.run("publish", app, "word", str(path))
    assert code == 0, err
    return words


def events(served: Shell, name: str, log: str = "log") -> list[dict[str, Any]]:
    lines = (served.folder / log).read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [one for one in found if one["event"] == name]


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def ended(worker: subprocess.Popen[str]) -> int:
    worker.send_signal(signal.SIGTERM)
    return worker.wait(TIMEOUT)


def test_up_with_a_burst_through_kills_and_down_again(served: Shell) -> None:
    app = served.write(APP)
    rules = "--scale=target=1s,backlog=5,cooldown=1s"
    worker = served.start("worker", app, "--stage=slow", "--processes=1..3", rules, log="log")
    until(lambda: events(served, "started"))
    words = publish(served, app, "w", 60)
    # Nobody's handler ends before there are three, so a slow machine changes nothing.
    until(lambda: len(events(served, "started")) >= 3)
    assert [one["processes"] for one in events(served, "scaling")] == [2, 3]
    for _ in range(2):
        crashes = len(events(served, "process crashed"))
        started = len(events(served, "process started"))
        os.kill(events(served, "process started")[-1]["pid"], signal.SIGKILL)
        until(lambda before=crashes: len(events(served, "process crashed")) > before)
        until(lambda before=started: len(events(served, "process started")) > before)
    (served.folder / "go").touch()
    until(lambda: set(lines(served.folder / "slow")) == words)  # lost: none
    until(lambda: events(served, "scaling")[-1]["processes"] == 1)
    until(lambda: len(events(served, "process ended")) == 2)
    status = served.json("status", app, "--interval=0")
    assert next(one for one in status["stages"] if one["name"] == "slow")["lag"] == 0
    assert ended(worker) == 0


def test_not_while_a_gate_is_closed(served: Shell) -> None:
    app = served.write(APP)
    code = served.start("worker", app, "--stage=last", "--drain").wait(TIMEOUT)
    assert code == 0  # its consumer is there
    worker = served.start(
        *("worker", app, "--stage=first", "--processes=1..3", "--log-level=debug"),
        "--scale=target=1s,backlog=100,cooldown=1s",
        log="log",
    )
    words = publish(served, app, "a", 20)
    until(lambda: any("max_downstream=5" in one["held"] for one in events(served, "looked")))
    before = len(events(served, "scaling"))
    words |= publish(served, app, "b", 1000)

    def seen() -> list[dict[str, Any]]:
        return [one for one in events(served, "looked") if one["waiting"] >= 200]

    until(lambda: len(seen()) >= 4)
    assert before == len(events(served, "scaling")) == 0
    assert "max_downstream=5" in events(served, "more would not help")[-1]["why"]
    other = served.start("worker", app, "--stage=last", log="last.log")
    until(lambda: set(lines(served.folder / "last")) == words)
    assert ended(worker) == ended(other) == 0


def test_a_process_that_had_its_share_ends_in_order_and_another_begins(served: Shell) -> None:
    app = served.write(APP)
    (served.folder / "go").touch()
    worker = served.start("worker", app, "--stage=slow", "--max-messages=10", log="log")
    until(lambda: events(served, "started"))
    words = publish(served, app, "w", 40)
    until(lambda: events(served, "process ended to begin anew"))
    until(lambda: len(events(served, "started")) >= 2)
    until(lambda: set(lines(served.folder / "slow")) == words)
    assert ended(worker) == 0
    assert sorted(lines(served.folder / "slow")) == sorted(words)  # nothing was handled twice
    assert not events(served, "process crashed")
    why = events(served, "ends to begin anew")[0]["why"]
    assert "messages (--max-messages 10)" in why


def test_a_stop_while_a_process_ends_that_had_its_share_is_an_orderly_one(served: Shell) -> None:
    app = served.write(APP)
    (served.folder / "go").touch()
    worker = served.start("worker", app, "--stage=slow", "--max-messages=10", log="log")
    until(lambda: events(served, "started"))
    worker.send_signal(signal.SIGSTOP)
    publish(served, app, "w", 40)
    until(lambda: events(served, "stopped"))  # and its supervisor has not seen it yet
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(TIMEOUT) == 0
    assert not events(served, "process ended to begin anew")


def test_memory_is_a_share_as_well(served: Shell) -> None:
    app = served.write(APP)
    worker = served.start("worker", app, "--stage=slow", "--max-memory=1MB", log="log")
    until(lambda: events(served, "process ended to begin anew"))
    assert (
        "bytes of memory (--max-memory 1,000,000)" in events(served, "ends to begin anew")[0]["why"]
    )
    assert ended(worker) == 0


def test_wrong_ranges_are_told(served: Shell) -> None:
    for wrong, said in (
        (["--processes=3..1"], "write 4, or 1..8"),
        (["--processes=1..3", "--drain"], "--drain and --run take one number"),
        (["--processes=1..3", "--scale=speed=3"], "write target=30s"),
        (["--max-memory=x"], "size"),
    ):
        code, _, err = served.run("worker", served.app, *wrong)
        assert code == 2
        assert said in err
