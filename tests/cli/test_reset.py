"""`mqinfer reset`: all of an app goes, nothing of another one, and never by accident."""

import signal

import pytest

import mqinfer.cli.reset
from mqinfer.cli.errors import ExitCode
from tests.cli.test_worker import publish
from tests.support.cli import TIMEOUT, Shell, until


def test_all_of_an_app_is_deleted_once_it_was_asked(
    served: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, "a", "reject", "bb")
    served.drain()
    other = served.write(
        (served.folder / f"{served.name}.py").read_text().replace(served.name, "{name}")
    )
    assert served.run("publish", other, "word", "words.jsonl")[0] == 0

    code, out, err = served.run("reset", served.app)
    assert (code, "--yes" in err) == (ExitCode.USAGE, True)  # nobody is there to be asked
    assert f"stream {served.name}: 4 messages" in out or f"stream {served.name}: 5 messages" in out
    assert f"table length_{served.name}: 2 rows" in out

    worker = served.start("worker", served.app, "--stage=count")
    until(lambda: "1 workers of app" in served.run("reset", served.app)[2])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT) == 0

    monkeypatch.setattr(mqinfer.cli.reset, "_STACK", "another")
    code, _, err = served.run("reset", served.app, "--yes")
    assert (code, f"--really {served.name}" in err) == (ExitCode.USAGE, True)
    code, _, err = served.run("reset", served.app, "--really", "another")
    assert (code, f"the app is called {served.name}" in err) == (ExitCode.USAGE, True)
    code, out, err = served.run("reset", served.app, "--really", served.name)
    assert (code, out.splitlines()[-1]) == (0, "deleted; the next worker begins anew"), err

    code, out, _ = served.run("reset", served.app, "--really", served.name)
    assert (code, out) == (0, f"app {served.name} has nothing there\n")
    assert served.json("status", other, "--interval=0")["stream"]["messages"] == 3
    publish(served, "ccc")
    served.drain()
    assert served.json("tables", served.app)[0]["rows"] == 1


@pytest.mark.parametrize(
    ("urls", "local"),
    [
        (["nats://127.0.0.1:4222", "nats://[::1]:4222"], True),
        (["nats://localhost"], True),
        (["nats://127.0.0.1:4222", "nats://nats.example"], False),
        (["http://u:p@10.0.0.1:8123/x"], False),
    ],
)
def test_only_loopback_is_this_machine(urls: list[str], local: bool) -> None:
    assert mqinfer.cli.reset._local(urls) is local
