"""`mqinfer shell`: code that awaits, with the app's client, models and tables."""

import subprocess
import sys

from mqinfer.cli.errors import ExitCode
from tests.cli.test_worker import publish
from tests.support.cli import TIMEOUT, Shell


def test_a_command_has_client_and_tables(served: Shell) -> None:
    publish(served, "a")
    code, out, err = served.run("shell", served.app, "-c", "await client.publish(Word('bb'))")
    assert (code, len(out) > 30) == (0, True), err
    served.drain()
    code, out, err = served.run(
        "shell", served.app, "-c", "n = 5; [r['text'] for r in await tables.rows(Length, n)]"
    )
    assert (code, out) == (0, "['bb', 'a']\n"), err
    sql = f"await tables('SELECT {{n:UInt8}} + max(length) AS m FROM length_{served.name}', n=2)"
    assert served.run("shell", served.app, "-c", sql)[1] == "[{'m': 4}]\n"


def test_what_is_wrong_is_told_in_a_line(served: Shell) -> None:
    for source, says, code in (
        ("await (", "--command: ", ExitCode.USAGE),
        ("nope", "NameError: name 'nope'", ExitCode.FAILED),
    ):
        found, _, err = served.run("shell", served.app, "-c", source)
        assert (found, err.count("\n")) == (code, 1)
        assert says in err


def test_a_prompt_goes_on_after_errors_and_keeps_its_tasks(served: Shell) -> None:
    typed = """
import asyncio
async def later(): return (await client.publish(Word("w")), 41 + 1)[1]

task = asyncio.create_task(later())
nope
print("got", await task, sorted(models))
exit()
"""
    command = [sys.executable, "-m", "mqinfer", "shell", served.app]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=TIMEOUT)
    assert "got 42 []" in done.stdout, done.stderr
    assert "NameError" in done.stderr
    assert done.returncode == 0
