"""Every block of Python on README and docs runs, page by page, in the order that it stands in."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from mqinfer.settings import Settings
from mqinfer.testing import FakeModels
from tests.docs.pages import PAGES, ROOT, python
from tests.docs.preludes import ELSEWHERE, PRELUDES

WITH = [page for page in PAGES if python(page)]
# Whatever model a page asks: its answer has all that the pages read of one.
ANSWERS = {
    "leaf_detector": {"boxes": [[0, 0, 1, 1]], "scores": [0.9]},
    "sentiment": {"pleased": [0.9]},
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module for a page, found by who looks for its types."""
    found = ModuleType("page")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


def compiled(code: str, name: str) -> CodeType:
    return compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", WITH)
async def test_the_blocks_of_a_page_run(
    page: str,
    module: ModuleType,
    nats: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    monkeypatch.setenv("MQINFER_BLOBS", str(tmp_path / "blobs"))
    monkeypatch.chdir(tmp_path)
    with FakeModels(ANSWERS):
        for number, block in enumerate(python(page)):
            code = compiled(block, f"{page}, block {number}")
            if (page, number) in ELSEWHERE:
                continue
            exec(PRELUDES.get(page, ""), vars(module))  # anew: a block may have taken its names
            done = eval(code, vars(module))
            if inspect.iscoroutine(done):
                await asyncio.wait_for(done, 60)
    for name, test in list(vars(module).items()):
        if name.startswith("test_"):
            arguments = (
                {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}
            )
            await test(**arguments)


def test_what_runs_elsewhere_does() -> None:
    for (page, number), file in ELSEWHERE.items():
        assert len(python(page)) > number
        assert (ROOT / file).exists(), file
