"""The site as it is built: no dead link, nothing from elsewhere, every name in the reference."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docsite.commands import tree, walked
from mqinfer.settings import Settings
from tests.docs.pages import ROOT
from tests.test_surface import MODULES

pytest.importorskip("mkdocs", reason="the extra docs is not installed")


class Page:
    """What a page links or loads, what of it is loaded, and which anchors it has."""

    def __init__(self, file: Path):
        text = file.read_text()
        # Of tags: what a page shows of HTML has none.
        self.links = set(re.findall(r'<[a-z]+\b[^>]*?\s(?:href|src)="([^"]*)"', text))
        loads = re.findall(r"<(?:script|img|source|iframe|link)\b[^>]*", text)
        self.loads = {one for tag in loads for one in re.findall(r'(?:href|src)="([^"]*)"', tag)}
        self.anchors = {unescape(one) for one in re.findall(r' (?:id|name)="([^"]*)"', text)}


MADE_OF = ("docs", "docsite", "mqinfer", "examples", "stages", "mkdocs.yml", "*.md", "compose")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning fails. One that `make lint` has just built will do."""
    built = ROOT / "build/site"
    files = [file for name in MADE_OF for file in ROOT.glob(name)]
    files += [file for folder in files for file in folder.rglob("*.*")]
    newest = max(file.stat().st_mtime for file in files if file.suffix != ".pyc" and file.is_file())
    if (built / "sitemap.xml").exists() and (built / "sitemap.xml").stat().st_mtime > newest:
        return built
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [*(sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir"), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_no_link_is_dead(pages: dict[Path, Page]) -> None:
    assert len(pages) > 40
    dead = []
    there: dict[str, bool] = {}
    for file, page in pages.items():
        for link in page.links:
            url = urlsplit(unescape(link))
            if url.scheme:
                continue
            target = os.path.normpath(file.parent / unquote(url.path)) if url.path else str(file)
            if not there.setdefault(target, Path(target).exists()):
                dead.append((file.name, link))
            to = pages.get(Path(target))
            if to and url.fragment not in ("", "__skip", *to.anchors):
                dead.append((file.name, link))
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    foreign = {load for page in pages.values() for load in page.loads if "//" in load}
    assert foreign == set()


def test_every_public_name_is_in_the_reference(site: Path, pages: dict[Path, Page]) -> None:
    reference = [page for file, page in pages.items() if file.parent == site / "reference"]
    anchors = set().union(*(page.anchors for page in reference))
    for name in MODULES:
        module = importlib.import_module(name)
        public = getattr(module, "__all__", None) or [
            one for one, value in vars(module).items() if getattr(value, "__module__", "") == name
        ]
        missing = [
            one
            for one in public
            if not one.startswith("_") and not anchors & {f"{name}.{one}", f"mqinfer.errors.{one}"}
        ]
        assert missing == [], name


def test_every_command_and_setting_is_in_the_reference(site: Path) -> None:
    commands = (site / "reference/commands.html").read_text()
    for name, _, _ in walked(tree(), "mqinfer"):
        assert f'id="{name.replace(" ", "-")}"' in commands
    settings = (site / "reference/settings.html").read_text()
    for one in Settings.describe():
        assert one.env in settings
