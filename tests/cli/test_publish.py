"""`mqinfer publish`: lines become messages, a bad one is named and loses nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mqinfer import wiring
from mqinfer.adapters.scan import Scanner
from mqinfer.cli.load import load_app
from mqinfer.settings import Settings
from mqinfer.streams import Stored
from tests.support.cli import TIMEOUT, Shell, command, until


def stored(shell: Shell) -> list[Stored]:
    """What the app's stream holds."""
    app = load_app(shell.app)

    async def read() -> list[Stored]:
        async with wiring.jetstream(app, Settings.load(), "test") as broker:
            return [message async for message in Scanner(broker.client).messages(app.name)]

    return asyncio.run(read())


def lines(shell: Shell, *texts: str) -> str:
    path = shell.folder / "lines.jsonl"
    path.write_text("\n".join(texts))
    return str(path)


def test_lines_are_published_as_they_are(served: Shell) -> None:
    file = lines(served, '{"text": "one"}', "", '{"text":"two"}\r', '{"text": "drei ü"}')
    code, out, err = served.run("publish", served.app, "word", file)
    assert (code, err) == (0, "")
    assert out.startswith(f"published 3 messages on {served.name}.word")
    found = stored(served)
    payloads = [message.data.decode() for message in found]
    assert payloads == ['{"text": "one"}', '{"text":"two"}', '{"text": "drei ü"}']
    assert {message.headers["Content-Type"] for message in found} == {"application/json"}
    assert len({message.headers["Nats-Msg-Id"] for message in found}) == 3


def test_a_bad_line_is_named_and_those_before_it_are_kept(served: Shell) -> None:
    file = lines(served, '{"text": "one"}', '{"text": "two"}', '{"text": 3}', '{"text": "four"}')
    code, out, err = served.run("publish", served.app, "word", file)
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("error: line 3: the payload is no Word")
    assert "published 2 messages" in out
    assert len(stored(served)) == 2


def test_an_id_field_makes_it_safe_to_repeat(served: Shell) -> None:
    file = lines(served, *(json.dumps({"text": "x", "id": f"i{n}"}) for n in range(2500)))
    first = served.json("publish", served.app, f"{served.name}.word", file, "--id-field", "id")
    again = served.json("publish", served.app, "word", file, "--id-field=id")
    assert (first["published"], first["repeats"]) == (2500, 0)
    assert (again["published"], again["repeats"]) == (2500, 2500)
    found = stored(served)
    assert [message.headers["Mq-Id"] for message in found] == [f"i{n}" for n in range(2500)]
    ids = [message.headers["Nats-Msg-Id"] for message in found]  # with the type: see identity.py
    assert ids == [f"{served.name}.word:i{n}" for n in range(2500)]


def test_a_line_without_its_id_is_refused(served: Shell) -> None:
    file = lines(served, '{"text": "a", "id": "1"}', '{"text": "b"}')
    for more in ([], ["--no-check"]):
        code, _, err = served.run("publish", served.app, "word", file, "--id-field=id", *more)
        assert code == 1
        assert "line 2: the field 'id' holds no id" in err


def test_unchecked_lines_go_as_they_are(served: Shell) -> None:
    file = lines(served, "no json at all")
    code, _, _ = served.run(
        "publish", served.app, "word", file, "--no-check", "--content-type", "text/plain"
    )
    assert code == 0
    (message,) = stored(served)
    assert (message.data, message.headers["Content-Type"]) == (b"no json at all", "text/plain")


def test_a_key_becomes_part_of_the_subject(served: Shell) -> None:
    file = lines(served, '{"who": "a b"}', '{"who": "c"}')
    assert served.json("publish", served.app, "keyed", file)["published"] == 2
    assert [message.subject for message in stored(served)] == [
        f"{served.name}.keyed.a%20b",
        f"{served.name}.keyed.c",
    ]


def test_a_message_over_the_servers_limit_is_refused_by_name(served: Shell) -> None:
    file = lines(served, '{"text": "a"}', json.dumps({"text": "x" * 9_000_000}), '{"text": "b"}')
    code, _, err = served.run("publish", served.app, "word", file)
    assert code == 1
    assert "line 2" in err
    assert "raise max_payload" in err


def test_stdin_is_read_as_it_comes(served: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"text": "one"}\n{"te')
    os.write(writer, b'xt": "two"}\n')
    os.close(writer)

    class Stdin:
        buffer: Any = os.fdopen(reader, "rb")

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert served.json("publish", served.app, "word")["published"] == 2
    Stdin.buffer.close()


def test_an_empty_file_is_done(served: Shell) -> None:
    Path(served.folder / "empty").touch()
    assert served.json("publish", served.app, "word", "empty")["published"] == 0


def test_ctrl_c_while_stdin_says_nothing(served: Shell) -> None:
    process = subprocess.Popen(
        command("publish", served.app, "word"),
        cwd=served.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b'{"text": "one"}\n')
    process.stdin.flush()
    until(lambda: len(stored(served)) == 1)
    process.send_signal(signal.SIGINT)
    process.wait(TIMEOUT)
    assert (process.returncode, process.communicate()[1]) == (130, b"")
