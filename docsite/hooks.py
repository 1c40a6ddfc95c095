"""What MkDocs calls: pages that are made, links that are led, and a menu of what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mkdocs.structure.files import File, InclusionLevel

from docsite import commands, facts, links

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

MADE: Final = {
    "reference/commands.md": commands.reference,
    "reference/settings.md": facts.settings,
    "reference/metrics.md": facts.metrics,
}
# The console's own.
ICON: Final = "mqinfer/console/static/icon.svg"
_LEFT_OUT: Final = (InclusionLevel.EXCLUDED, InclusionLevel.DRAFT)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave entries out of the menu whose page is not there yet."""
    there = {links.page_of(path) for path in links.pages()} | MADE.keys()
    docs = links.ROOT / links.DOCS
    there |= {file.relative_to(docs).as_posix() for file in docs.rglob("*.md")}
    config.nav = _kept(config.nav, there)
    return config


def _kept(entry: Any, there: set[str]) -> Any:
    """A part of the menu without what is not there; None if nothing is left."""
    if isinstance(entry, list):
        return [kept for one in entry if (kept := _kept(one, there)) is not None] or None
    if isinstance(entry, dict):
        ((title, inside),) = entry.items()
        kept = _kept(inside, there)
        return None if kept is None else {title: kept}
    return entry if entry in there else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages that lie outside of docs/, and those of what they link."""
    wanted: set[str] = set()
    for path in [*links.pages(), *(f"{links.DOCS}{one.src_uri}" for one in files if _is_page(one))]:
        text, found = links.led((links.ROOT / path).read_text(), path)
        _put(files, config, links.page_of(path), text)
        wanted |= found
    for uri, make in MADE.items():
        _put(files, config, uri, make())
    files.append(File.generated(config, "icon.svg", abs_src_path=str(links.ROOT / ICON)))
    while wanted:
        path = wanted.pop()
        uri = links.page_of(path)
        if files.get_file_from_path(uri) is not None:
            continue
        if not uri.endswith(".md"):
            source = str(links.ROOT / path)
            files.append(File.generated(config, uri, abs_src_path=source))
            continue
        wanted.update(links.held(path))
        _put(files, config, uri, links.shown(path))
    return files


def _is_page(file: File) -> bool:
    return bool(file.is_documentation_page() and file.inclusion not in _LEFT_OUT)


def _put(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    if (stale := files.get_file_from_path(uri)) is not None:
        files.remove(stale)
    files.append(File.generated(config, uri, content=text))
