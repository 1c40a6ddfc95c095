"""`mqinfer timers`: what waits, and cancelling it."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import TIMEOUT, Shell

TIMED = """
from mqinfer import Context

class Reminder(Message, key="who"):
    who: str

@app.stage(later=Reminder)
async def remember(word: Word, ctx: Context) -> None:
    await ctx.later(Reminder(word.text), after="1h", name="check", key=word.text)
    await ctx.later(Reminder(word.text), after="2h")
"""


def test_timers_are_listed_and_cancelled(served: Shell) -> None:
    assert served.run("timers", served.app)[:2] == (0, "no timer waits\n")
    source = Path(f"{served.name}.py").read_text() + TIMED
    app = served.write(source, module=f"{served.name}_timed")
    lines = served.folder / "words.jsonl"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert served.run("publish", app, "word", str(lines))[0] == 0
    worker = served.start("worker", app, "--drain", "--stage=remember")
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err

    listed = served.json("timers", app)
    assert [(one["stage"], one["name"], one["key"]) for one in listed[:2]] == [
        ("remember", "check", "a"),
        ("remember", "check", "b"),
    ]
    assert [one["name"] for one in listed[2:]] == [None, None]
    assert listed[0]["subject"] == f"{served.name}.reminder.a"
    code, out, _ = served.run("timers", app, "--stage=remember")
    assert (code, out.count("remember/")) == (0, 4)
    assert served.json("timers", app, "--stage=measure") == []

    left = served.json("timers", app, "--cancel", listed[0]["timer"])
    assert left == listed[1:]
    code, _, err = served.run("timers", app, "--cancel", listed[0]["timer"])
    assert (code, "that waits; `mqinfer timers` lists them" in err) == (2, True)
    assert served.run("check", app)[0] == 0
    drawn = served.run("graph", app)[1]
    assert "-- later -->" in drawn
