"""The example of docs/monitor.md is what runs, and prints what stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from types import ModuleType

import pytest

from mqinfer.marker import marks_of
from tests.rooms import ROOT

PAGE = (ROOT / "docs/monitor.md").read_text()
EXAMPLE = ROOT / "examples/drift/__main__.py"


def test_the_page_shows_the_example_as_it_is() -> None:
    code = EXAMPLE.read_text()
    assert len(code.splitlines()) <= 30
    assert code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_it_prints_what_the_page_shows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.drift"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    shown = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert done.stdout in shown


def test_the_marked_row_of_the_page_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], page.__dict__)
    assert page.app.resolve()[1] == []
    assert [mark.field for mark in marks_of(page.Prediction)] == [
        "label",
        "score",
        "width",
        "vector",
    ]
