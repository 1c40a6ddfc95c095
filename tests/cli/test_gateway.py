"""`mqinfer gateway`: what is wrong is told before anything listens."""

from __future__ import annotations

from mqinfer.gateway.tenants import hashed
from tests.support.cli import Shell


def test_a_new_key_and_its_hash(shell: Shell) -> None:
    code, out, _ = shell.run("gateway", shell.app, "--new-key")
    assert code == 0
    (_, key), (_, told) = [line.split() for line in out.splitlines()]
    assert len(key) > 40
    assert told == hashed(key)


def test_what_is_wrong_is_told_in_one_line(shell: Shell) -> None:
    code, _, err = shell.run("gateway", shell.app)
    assert (code, "declare one with app.endpoint" in err) == (2, True)
    app = shell.write(
        """
from mqinfer import App, Message
app = App("{name}")
class Asked(Message): n: int
class Said(Message): n: int
@app.stage
async def say(asked: Asked) -> Said: ...
app.endpoint("say", Asked, answers=Said)
"""
    )
    (shell.folder / "keys.toml").write_text("[a]\nkeys = []\n")
    for arguments, told in (
        (("--keys", "none.toml"), "no such file"),
        (("--keys", "keys.toml"), "MQINFER_REQUEST_SECRET"),
        (("--tls-cert", "keys.toml"), "--tls-key"),
        (("--cors-origin", "example.org"), "is no origin"),
        (("--max-body", "much"), "much"),
    ):
        code, _, err = shell.run("gateway", app, *arguments)
        assert code == 2, (arguments, err)
        assert told in err
        assert err.count("\n") == 1
