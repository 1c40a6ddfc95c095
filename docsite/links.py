"""Links: where a file of the repository is on the site, and every link of a page led there.

Pages are written for whoever reads them in the repository: they link files beside them. Docs are
pages of their own name, the READMEs of the examples are the studies, and any other file that a page
links is a page that shows it; so the site needs no other host.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = "docs/"
# Files outside of docs/ that are pages, and the folder of the studies.
PAGES: Final = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "compose/README.md": "compose.md",
}
_STUDY = re.compile(r"examples/(\w+)/README\.md")
_PICTURES: Final = (".png", ".svg", ".jpg")
_LANGUAGES: Final = {
    ".py": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".mjs": "javascript",
    ".js": "javascript",
}
# A link or a picture, and code, in which there is none.
_LINK = re.compile(
    r"^(?P<fence> *```).*?^(?P=fence)[ ]*$|`[^`\n]*`"
    r"""|(?:(?<=\]\()|(?<= src="))(?P<target>[^()\s"]+)(?=[)"])""",
    re.DOTALL | re.MULTILINE,
)


def page_of(path: str) -> str:
    """Where on the site a file or a folder of the repository is.

    Args:
        path: from the repository's root, with `/`.
    """
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    if study := _STUDY.fullmatch(path):
        return f"studies/{study[1]}.md"
    if path in PAGES:
        return PAGES[path]
    if path.endswith(_PICTURES):
        return f"source/{path}"
    # A name of its own: a folder may have that of a file without its ending.
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def pages() -> Iterator[str]:
    """The files outside of docs/ that are pages, from the root."""
    yield from PAGES
    for readme in sorted(ROOT.glob("examples/*/README.md")):
        yield readme.relative_to(ROOT).as_posix()


def led(text: str, path: str) -> tuple[str, set[str]]:
    """A page with its links as they are on the site, and the files that it links.

    Args:
        text: Markdown.
        path: the page's file, from the root.
    """
    found: set[str] = set()
    here = posixpath.dirname(page_of(path))

    def lead(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or target.startswith("#") or "://" in target or ":" in target:
            return match[0]
        name, mark, anchor = target.partition("#")
        linked = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        if linked.startswith(".."):
            return match[0]
        # What MkDocs makes itself, and what is not there, is for MkDocs to judge.
        if not (ROOT / linked).exists():
            return match[0]
        found.add(linked)
        return posixpath.relpath(page_of(linked), here) + mark + anchor

    return _LINK.sub(lead, text), found


def shown(path: str) -> str:
    """The page that shows a file, or lists a folder.

    Args:
        path: from the root.
    """
    file = ROOT / path
    if file.is_dir():
        lines = "\n".join(
            f"- [{one.name}]({posixpath.relpath(one.relative_to(ROOT).as_posix(), path)})"
            for one in sorted(file.iterdir())
            if one.is_file() and not one.name.startswith(".") and one.suffix != ".pyc"
        )
        text = led(lines, f"{path}/.")[0]
    else:
        language = _LANGUAGES.get(file.suffix, "text")
        text = f"````{language}\n{file.read_text()}\n````\n"
    return f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n{text}\n"


def held(path: str) -> Iterator[str]:
    """The files that the list of a folder links; none of a file."""
    if (ROOT / path).is_dir():
        for one in sorted((ROOT / path).iterdir()):
            if one.is_file() and not one.name.startswith(".") and one.suffix != ".pyc":
                yield one.relative_to(ROOT).as_posix()
