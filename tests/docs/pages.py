"""What the pages hold: blocks of Python, and commands, each with where it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docsite import links

ROOT = links.ROOT
PAGES = sorted(
    {*links.pages(), *(f.relative_to(ROOT).as_posix() for f in ROOT.glob("docs/**/*.md"))}
)
# A record of what was, in the words of its day.
PAGES.remove("CHANGELOG.md")

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:(?<=\n\n)|^)((?: {4}\S.*\n(?:\n(?= {4}))?)+)", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")


class Line(NamedTuple):
    """A command of a page, as it is typed."""

    page: str
    text: str
    inline: bool = False


def python(page: str) -> list[str]:
    """The blocks of Python, in order."""
    return [code for _, language, code in _FENCED.findall(_text(page)) if language == "python"]


def commands(page: str) -> Iterator[Line]:
    """Every command that a page shows, in blocks and in its text."""
    text = _text(page)
    blocks = [code for _, language, code in _FENCED.findall(text) if language in ("", "console")]
    prose = _FENCED.sub("", text)
    indented = re.compile(r"^(?: {4}.*\n|\n)+", re.MULTILINE)
    blocks += [found for found in indented.findall(prose) if found.strip()]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            for one in simple(line.strip().removeprefix("$ ")):
                yield Line(page, one)
    for one in _INLINE.findall(indented.sub("", prose)):
        if one.startswith("mqinfer ") or re.match(r"make \w", one):
            yield Line(page, one, inline=True)


def simple(line: str) -> Iterator[str]:
    """The simple commands of a line of a shell, without the variables before them."""
    for part in re.split(r" (?:&&|\||;|&|>)(?: |$)|; ", line):
        bare = re.sub(r"^(?:\w+=\S* +)*", "", part.strip())
        if re.match(r"(mqinfer|make|python3? -m) +[\w-]", bare):
            yield bare


def shortened(text: str) -> Iterator[list[str]]:
    """What of a line may be the command: all of it, or less, where an explanation follows it.

    One is set off by `#` or by two spaces.
    """
    ends = [len(text), *(one.start() for one in [*re.finditer(r"\s{2,}", text)][::-1])]
    for end in ends:
        try:
            yield [word for word in shlex.split(text[:end], comments=True) if word != "..."]
        except ValueError:
            continue


def _text(page: str) -> str:
    return (ROOT / Path(page)).read_text()
