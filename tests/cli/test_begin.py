"""`mqinfer begin`, and what a worker, `check` and `status` say of a stage that is new."""

import json
from pathlib import Path

from tests.support.cli import TIMEOUT, Shell

MAIL = """
@app.stage
async def mail(word: Word) -> None:
    with Path("mailed").open("a") as file:
        file.write(word.text + "\\n")
"""


def test_a_new_stage_is_asked_about_and_begun(served: Shell) -> None:
    lines = served.folder / "words.jsonl"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in ("a", "b")))
    assert served.run("publish", served.app, "word", str(lines))[0] == 0
    served.drain("count")
    source = Path(f"{served.name}.py").read_text() + MAIL
    app = served.write(source, module=f"{served.name}_grown")
    expected = (
        f"stage mail is new in app {served.name}, which ran before, and would handle 2 messages "
        'that the stream keeps. Say where it begins: start="new" or start="oldest", or `mqinfer '
        "begin <module>:<app> mail new` (or oldest, or 2h)"
    )

    worker = served.start("worker", app, "--drain", "--stage=mail", "--processes=2")
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 2, err
    assert f"error: {expected}" in err.splitlines()
    code, out, _ = served.run("check", app)
    assert code == 1
    assert f"problem  app {served.name}: {expected}" in out
    warning = "stage mail: never started; its consumer begins at the oldest message; 2 are kept"
    assert any(warning in line for line in served.json("status", app)["warnings"])

    code, _, err = served.run("begin", app, "mail", "soon")
    assert (code, "is no time" in err) == (2, True)
    assert served.json("begin", app, "mail", "1h") == {"name": "mail", "waiting": 2}
    code, _, err = served.run("begin", app, "mail", "new")
    assert (code, "mail has begun, and goes on where it is" in err) == (2, True)
    worker = served.start("worker", app, "--drain", "--stage=mail")
    _, err = worker.communicate(timeout=TIMEOUT)
    assert worker.returncode == 0, err
    assert Path("mailed").read_text().split() == ["a", "b"]
    assert served.run("check", app)[0] == 0
