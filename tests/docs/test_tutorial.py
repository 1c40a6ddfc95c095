"""The tutorial as it is typed: every command in its order, on the servers that its `up` starts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Line, commands
from tests.docs.test_commands import refused
from tests.support.cli import Shell, until

PAGE = "docs/tutorial.md"
TEXT = (ROOT / PAGE).read_text()
# What is a shell's, asks for a person, runs until it is told to stop, or is tested elsewhere.
PASSED_OVER = ("python3 -m venv", "mqinfer console", "mqinfer worker")

pytestmark = pytest.mark.skipif(
    not (ROOT / "mqinfer/cli/init.py").exists(), reason="mqinfer init is not there yet"
)


def served(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start what `mqinfer up` starts, on free ports, and look for it there."""
    ports = [f"--{name}-port=0" for name in ("nats", "triton-grpc", "clickhouse")]
    log = shell.folder / "up.log"
    with log.open("w") as out:
        up = subprocess.Popen(
            [sys.executable, "-m", "mqinfer", "up", "--inference=onnx", *ports],
            cwd=Path.cwd(),
            stdout=out, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    shell.running.append(up)
    until(lambda: "ready in" in log.read_text() or up.poll() is not None)
    said = log.read_text()
    addresses = {
        "NATS_URL": r"(nats://[\d.:]+)",
        "TRITON_URL": r"server ([\d.]+:\d+)",
        "CLICKHOUSE_URL": r"(http://\S+?/default)",
    }
    for name, pattern in addresses.items():
        found = re.search(pattern, said)
        assert found, said
        monkeypatch.setenv(f"MQINFER_{name}", found[1])


def test_each_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of what the commands start
    rows: list[str] = []
    for line in (line for line in commands(PAGE) if not line.inline):
        if line.text.startswith(PASSED_OVER):
            continue
        if line.text == "mqinfer up":
            served(shell, monkeypatch)
            continue
        said = typed(shell, line, monkeypatch)
        if line.text.startswith("mqinfer init"):
            monkeypatch.chdir("shop")
        elif line.text.startswith("mqinfer publish"):
            code, _, err = shell.run("worker", "app:app", "--drain")
            assert code == 0, err
        elif line.text.startswith("mqinfer models pack"):
            until(lambda: "1, 2" in shell.run("models", "app:app")[1])
        elif line.text.startswith("mqinfer shell"):
            rows.append(said)
        elif "dead list" in line.text:
            assert "review r7 has no text" in said
    assert [len(re.findall("'review'", one)) for one in rows] == [6, 6]
    assert rows[0] != rows[1]  # promoted
    for name in ("app", "model"):
        sys.modules.pop(name, None)


def typed(shell: Shell, line: Line, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints, typed as the page says it."""
    assert refused(line) is None
    words = shlex.split(line.text)[1:]
    if words[:2] == ["models", "pack"]:
        (learned,) = re.findall(r"^    (and a friend .*)$", TEXT, re.MULTILINE)
        model = Path("model.py").read_text()
        Path("model.py").write_text(model.replace('PLEASED = """', f'PLEASED = """\n{learned}', 1))
    (echoed,) = re.findall(r"echo '(.*)' \|", TEXT)  # what the one that reads from it is given
    file = shell.folder / "echoed.jsonl"
    file.write_text(f"{echoed}\n")
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, err = shell.run(*words, *(["--yes"] if words[0] == "reset" else []))
    assert code == 0, (line.text, err)
    return out
