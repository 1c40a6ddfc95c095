"""Every command of README and docs: the command line takes it, and what needs no server is run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from docsite.commands import tree
from mqinfer.cli import main
from mqinfer.cli.everywhere import split
from tests.docs.pages import PAGES, ROOT, Line, commands, python, shortened

# What a foreign tool, or a reader, fills in.
GAPS = re.compile(r"[\[\]|…]|\b[A-Z]{3,}\b \.\.\.")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Everywhere: they are taken off before a command reads its own.
ANYWHERE = {"--debug", "--app-dir", "--env-file"}


def taken(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    """Let a command, and the one under it, read its words; raises what it says against them."""
    context = command.make_context(name, list(words), parent=parent)
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if rest:
            under, sub, words = command.resolve_command(context, rest)
            taken(sub, under, words, context)


def refused(line: Line) -> str | None:
    """What the command line says against a line; None if it takes it."""
    found: str | None = None
    for words in shortened(line.text):
        if words[:1] == ["make"]:
            targets = [word for word in words[1:] if "=" not in word]
            return None if set(targets) <= TARGETS else f"no target of {targets}"
        if words[:1] != ["mqinfer"]:
            where = words[2].removesuffix(".__main__")
            return None if where == "venv" or importlib.util.find_spec(where) else "no such module"
        words, _ = split(words[1:])
        try:
            taken(tree(), "mqinfer", words)
        except Exception as error:  # noqa: BLE001 - of a click of typer's own
            if type(error).__name__ in ("Exit", "NoArgsIsHelpError"):
                return None
            message = getattr(error, "format_message", lambda error=error: str(error))()
            found = found or f"{type(error).__name__}: {message}"
        else:
            return None
    return found


def named(line: Line) -> str | None:
    """What is wrong with a command in running text, where arguments may be left out."""
    words = line.text.split()
    if words[0] == "make":
        return refused(line)
    command, context = tree(), None
    for word in words[1:]:
        if not hasattr(command, "get_command"):
            break
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            return None
        context = command.context_class(command, info_name="mqinfer", parent=context)
        below = command.get_command(context, word)
        if below is None:
            return f"no command {word}"
        command = below
    known = {name for one in command.params for name in [*one.opts, *one.secondary_opts]}
    if hasattr(command, "get_command"):  # `models APP` is `models list APP`
        for name in command.list_commands(context):
            known |= {o for one in command.get_command(context, name).params for o in one.opts}
    options = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", line.text)) - {"--help", *ANYWHERE}
    return f"no option {sorted(options - known)}" if options - known else None


@pytest.mark.parametrize("page", PAGES)
def test_the_command_line_takes_what_a_page_says(page: str) -> None:
    wrong = [
        (line.text, said)
        for line in commands(page)
        if (said := named(line) if line.inline or GAPS.search(line.text) else refused(line))
    ]
    assert wrong == []


def test_commands_are_found_and_a_wrong_one_is_refused() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    assert len([line for line in lines if not line.inline]) > 100
    assert refused(Line("", "mqinfer replay plants:app --stage a --form-seq 1")) is not None
    assert refused(Line("", "mqinfer wroker plants:app")) is not None
    assert named(Line("", "mqinfer dead retry --sqe")) is not None
    assert named(Line("", "mqinfer dead rtry")) is not None
    assert refused(Line("", "make tset")) is not None
    assert refused(Line("", "mqinfer up                  serves them")) is None


ALONE = ("graph", "boards", "permissions", "settings", "check", "deploy render")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the apps that the pages speak of."""
    cut = "def cut(pixels: object, box: object) -> bytes:\n    return b''\n"
    tutorial = python("docs/tutorial.md")[0]
    begins = "from typing import Literal\nimport numpy as np\nfrom mqinfer import *\n"
    apps = {
        "plants": f"{cut}{python('README.md')[0]}",
        "photos": python("docs/coming-from.md")[0],
        "app": f"{begins}{tutorial}",
        "field": python("docs/state.md")[0],
    }
    for name, text in apps.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    shutil.copy(ROOT / "examples/hello/deploy.toml", tmp_path)
    for name in ("grafana/dashboards", "prometheus"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_what_needs_no_server_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = set()
    for line in (line for page in PAGES for line in commands(page)):
        if not re.match(f"mqinfer ({'|'.join(ALONE)})\\b", line.text) or refused(line):
            continue  # of running text that leaves out what it is about
        words = next(w for w in shortened(line.text) if refused(Line("", shlex.join(w))) is None)
        app = next((word for word in words if word.endswith(":app")), "")
        there = not app or (folder / f"{app.removesuffix(':app')}.py").exists()
        alone = words[1] != "check" or "--offline" in words
        if there and alone and "APP" not in words:
            assert main(words[1:]) == 0, (line, capsys.readouterr().err)
            done.add(words[1])
    for name, found in list(sys.modules.items()):
        if Path(getattr(found, "__file__", None) or "/").parent == folder:
            del sys.modules[name]
    assert done == {one.split()[0] for one in ALONE}
