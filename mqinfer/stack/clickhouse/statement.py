"""Telling an INSERT's statement from the data behind it, as ClickHouse's parser does.

Pure. Only what the HTTP interface must know before the engine sees a query is
looked at: where the data of an INSERT begins and in which format it is, and which
output format a query names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
      (?P<space>   \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/ )
    | (?P<quoted>  '(?:[^'\\]|\\.|'')*' | `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*"
                 | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<word>    [A-Za-z_]\w* )
    | (?P<other>   \d[\w.]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT with data.

    Attributes:
        statement: Up to its SETTINGS, or its format.
        settings: Its SETTINGS clause, or nothing.
        format: Of the data.
        data_start: Where the data begins.
    """

    statement: str
    settings: str
    format: str
    data_start: int

    def from_file(self, path: str) -> str:
        """The statement that inserts the contents of a file instead."""
        return (
            f"{self.statement} FROM INFILE {quote(path)} COMPRESSION 'none' "
            f"{self.settings} FORMAT {self.format}"
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement: a ``word``, ``quoted``, or ``other``."""

    kind: str
    text: bytes
    start: int
    end: int

    @property
    def word(self) -> bytes:
        """A bare word in upper case; nothing for the rest."""
        return self.text.upper() if self.kind == "word" else b""


def tokens(query: bytes) -> Iterator[Token]:
    """Cut a statement into its tokens, blanks and comments left out."""
    position = 0
    while match := _TOKEN.match(query, position):
        position = match.end()
        kind = match.lastgroup or ""
        if kind == "tag":  # the group inside a heredoc ends last
            kind = "quoted"
        if kind != "space":
            yield Token(kind, match.group(), match.start(), position)


def find_insert(query: bytes) -> Insert | None:
    """Find the data of an INSERT.

    Args:
        query: A statement, with or without data behind it. Data may be of any
            kind: nothing behind the format's name is looked at.

    Returns:
        None if the query is something else: no INSERT, or one from SELECT or INFILE.
    """
    rest = tokens(query)
    first = next(rest, None)
    if first is None or first.word != b"INSERT":
        return None
    depth = 0
    position = 0  # among the tokens after INSERT [INTO] [TABLE|FUNCTION]
    end = first.end
    dotted = False
    settings: int | None = None

    def found(stop: int, format_: str, data_start: int) -> Insert:
        cut = stop if settings is None else settings
        statement, clause = query[:cut].decode(), query[cut:stop].decode()
        return Insert(statement, clause, format_, data_start)

    for token in rest:
        end = token.end
        if token.text == b"(":
            depth += 1
        elif token.text == b")":
            depth -= 1
        if position == 0 and token.word in (b"INTO", b"TABLE", b"FUNCTION"):
            continue
        # The dot of ``database.table`` and what follows it belong to the name.
        if token.text == b"." or dotted:
            dotted = token.text == b"."
            continue
        position += 1
        if depth or position == 1:  # the first is the table's name, whatever it is
            continue
        if token.text == b";":
            end = token.start
            break
        if token.word in (b"SELECT", b"WITH", b"FROM", b"WATCH", b"EXPLAIN"):
            return None
        if token.word == b"SETTINGS":
            settings = token.start
        if token.word == b"VALUES":
            return found(token.start, "Values", token.end)
        if token.word == b"FORMAT":
            name = next(rest, None)
            if name is None or name.kind != "word":
                return None  # the engine says what is wrong with it
            return found(token.start, name.text.decode(), _data_start(query, name.end))
    if position <= 1 or query[:end].rstrip().endswith(b")"):
        # ``INSERT INTO t`` and ``INSERT INTO t (a, b)`` with the data in the body are
        # Values for ClickHouse; ``INSERT INTO t (SELECT 1)`` is not.
        inner = re.search(rb"\(\s*(SELECT|WITH)\b", query[:end], re.IGNORECASE)
        return None if inner else found(end, "Values", len(query))
    return None


def _data_start(query: bytes, position: int) -> int:
    """Skip blanks and one line end, no more: further ones may be data."""
    while position < len(query) and query[position] in b" \t\f":
        position += 1
    if query[position : position + 1] == b"\r":
        position += 1
    if query[position : position + 1] == b"\n":
        position += 1
    return position


def output_format(query: bytes, default: str) -> str:
    """Tell the format that the query's own FORMAT clause names, or the default."""
    found = default
    previous = b""
    depth = 0
    for token in tokens(query):
        depth += (token.text == b"(") - (token.text == b")")
        if previous == b"FORMAT" and token.kind == "word" and depth == 0:
            found = token.text.decode()
        previous = token.word
    return found


def quote(text: str) -> str:
    """Write a string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """Write a name in its quotes."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
