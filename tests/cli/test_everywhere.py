"""Options that may stand anywhere: --app-dir, --env-file, --debug."""

import json
import os

import pytest

from mqinfer.cli import everywhere
from mqinfer.cli.errors import ExitCode
from tests.support.cli import Shell


def test_they_are_found_wherever_they_stand() -> None:
    rest, options = everywhere.split(
        ["--app-dir=a", "worker", "x:app", "--debug", "--env-file", "e"]
    )
    assert rest == ["worker", "x:app"]
    assert options == [("--app-dir", "a"), ("--debug", ""), ("--env-file", "e")]


def test_an_app_is_found_in_a_folder(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQINFER_APP_DIR", "")
    (shell.folder / "src").mkdir()
    source = (shell.folder / f"{shell.name}.py").read_text()
    (shell.folder / "src" / "elsewhere.py").write_text(source)
    code, _, err = shell.run("graph", "elsewhere:app")
    assert (code, "--app-dir" in err) == (ExitCode.USAGE, True)
    code, out, err = shell.run("graph", "elsewhere:app", "--app-dir", "src")
    assert code == 0, err
    assert "measure" in out


def test_variables_come_from_a_file_and_what_is_set_wins(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQINFER_GRACE", "7")
    monkeypatch.delenv("MQINFER_LOG_LEVEL", raising=False)
    (shell.folder / ".env").write_text(
        "# ours\nMQINFER_GRACE=9\nexport MQINFER_LOG_LEVEL='error'\n"
    )
    try:
        code, out, err = shell.run("settings", "--json", "--env-file", ".env")
        assert (code, err) == (0, "")
        assert json.loads(out)
        assert (os.environ["MQINFER_GRACE"], os.environ["MQINFER_LOG_LEVEL"]) == ("7", "error")
    finally:
        os.environ.pop("MQINFER_LOG_LEVEL", None)


@pytest.mark.parametrize("option", ["--app-dir", "--env-file"])
def test_what_is_not_there_is_told(option: str, shell: Shell) -> None:
    for given in ([option], [option, "nowhere"]):
        code, _, err = shell.run("settings", *given)
        assert code == ExitCode.USAGE
        assert err.startswith(f"error: {option} ")
