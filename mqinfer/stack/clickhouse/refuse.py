"""Refusing statements that would reach beyond the tables: files, programs, other servers.

The engine refuses most of it itself (see `access`). What it knows no grant for is found
here, in the engine's own rendering of the statement: `formatQuerySingleLine` parses as the engine
will and writes one spelling of everything, without comments, heredocs and odd quoting. A statement
that it cannot parse, or that begins with a word not known here, is not executed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from mqinfer.stack.clickhouse.access import allowed

_STATEMENTS = allowed("statements")
# What a dictionary's SOURCE(CLICKHOUSE(...)) may say of a table of this engine, or ask of it.
_SOURCE_KEYS = allowed("source_keys")
_SOURCE_QUERIES = ("QUERY", "INVALIDATE_QUERY")
# As the engine writes it: one kind of quotes for texts and one for names.
_TOKEN = re.compile(
    r"""
      (?P<space> \s+ )
    | (?P<text>  '(?:[^'\\]|\\.|'')*' )
    | (?P<name>  `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*" )
    | (?P<word>  [A-Za-z_]\w* )
    | (?P<other> \d[\w.]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"b": "\b", "f": "\f", "r": "\r", "n": "\n", "t": "\t", "0": "\0", "a": "\a", "v": "\v"}
# A statement of these without a suspect word and without a backslash is what it looks like; that
# costs microseconds, and asking the engine a millisecond.
_SUSPECT = frozenset({"outfile", "infile", "parallel"})
_WORD = re.compile(r"[a-z_]\w*", re.ASCII)
_PLAIN = re.compile(r"\s*(SELECT|INSERT|SHOW|USE|OPTIMIZE|TRUNCATE)\b", re.I | re.ASCII)
# What may follow a column of that name: GROUP BY parallel WITH TOTALS.
_AFTER_WITH = frozenset({"TOTALS", "ROLLUP", "CUBE", "FILL", "TIES"})
_OUTSIDE = (
    "The embedded ClickHouse is for its own tables: it reads and writes no files, runs no programs "
    "and asks no other servers, and so refuses {}. Insert rows over HTTP, or use a ClickHouse "
    "server of your own (MQINFER_CLICKHOUSE_URL)."
)
_DEFAULT = (
    "The embedded ClickHouse keeps its database default, in which every connection begins: "
    "TRUNCATE DATABASE default empties it."
)


class Refused(Exception):
    """The statement is not executed; the text says why, and what to do instead."""


class Refusal:
    """Looks at statements before they are executed; from any thread.

    Args:
        render: Gives the engine's rendering of a statement in one line; raises what the client is
            to be told when the engine cannot parse it.
        refused: Names that must not be called, in lower case.
    """

    def __init__(self, render: Callable[[str], str], refused: frozenset[str]) -> None:
        self._render = render
        self._refused = refused
        self._lock = threading.Lock()  # a connection has one statement at a time
        # A sink's inserts and a dashboard's queries are the same texts again and again.
        self._reason_once = lru_cache(1024)(self._reason)

    def check(self, statement: str) -> None:
        """Look at one statement, of an INSERT without its data.

        Raises:
            Refused: It reaches beyond the tables, or is of an unknown kind.
        """
        if _PLAIN.match(statement) and "\\" not in statement:
            words = _WORD.findall(statement.lower())
            if self._refused.isdisjoint(words) and _SUSPECT.isdisjoint(words):
                return
        reason = self._reason_once(statement)
        if reason is not None:
            raise Refused(reason)

    def _reason(self, statement: str) -> str | None:
        with self._lock:
            rendered = self._render(statement)
        tokens = list(_tokens(rendered))
        if not tokens or tokens[0].word not in _STATEMENTS:
            first = tokens[0].text if tokens else "nothing"
            return _OUTSIDE.format(f"statements that begin with {first}")
        for token, following in pairwise(tokens):
            # A blank before it: the columns of a table of that name.
            called = following.text == "(" and not following.blank and token.kind != "text"
            if called and token.text.lower() in self._refused:
                return _OUTSIDE.format(f"{token.text}(...)")
            if following.kind == "text" and token.word in ("OUTFILE", "INFILE"):
                return _OUTSIDE.format(token.word)
        words = [token.word for token in tokens]
        for triple in zip(words, words[1:], words[2:], strict=False):
            if triple[:2] == ("PARALLEL", "WITH") and triple[2] not in _AFTER_WITH:
                return _OUTSIDE.format("PARALLEL WITH (send the statements one by one)")
        if words[0] in ("DROP", "DETACH", "RENAME") and words[1:2] == ["DATABASE"]:
            return _DEFAULT if any(token.text == "default" for token in tokens) else None
        if "ATTACH" in words and _in(tokens, "FROM", "text"):
            return _OUTSIDE.format("ATTACH ... FROM a path")
        if words[0] == "CREATE" and "FUNCTION" in words[:4] and "LANGUAGE" in words:
            return _OUTSIDE.format("functions in other languages than SQL")
        if "DICTIONARY" in words:
            return self._source(tokens)
        return None

    def _source(self, tokens: list[_Token]) -> str | None:
        """Look at the sources of a dictionary."""
        for start, (token, following) in enumerate(pairwise(tokens)):
            if (token.word, following.text) != ("SOURCE", "("):
                continue
            kind, depth = tokens[start + 2].word, 0
            if kind not in ("CLICKHOUSE", "NULL"):
                what = f"dictionaries with SOURCE({tokens[start + 2].text}(...))"
                return _OUTSIDE.format(what)
            for key, value in pairwise(tokens[start + 3 :]):
                depth += (key.text == "(") - (key.text == ")")
                if depth == 0:
                    break
                if key.kind == "word" and key.word in _SOURCE_QUERIES and value.kind == "text":
                    self.check(value.text)
                elif key.kind == "word" and key.word not in _SOURCE_KEYS:
                    what = f"dictionaries with {key.word} in SOURCE(CLICKHOUSE(...))"
                    return _OUTSIDE.format(what)
        return None


class _Token(NamedTuple):
    kind: str
    text: str  # of a quoted one what is in the quotes
    blank: bool  # whether a blank stands before it

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "word" else ""


def _tokens(rendered: str) -> Iterator[_Token]:
    blank = False
    for match in _TOKEN.finditer(rendered):
        kind, text = match.lastgroup or "", match.group()
        if kind != "space":
            yield _Token(kind, _unquote(text) if kind in ("text", "name") else text, blank)
        blank = kind == "space"


def _unquote(quoted: str) -> str:
    inner = quoted[1:-1].replace(quoted[0] * 2, quoted[0])
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), inner, flags=re.DOTALL)


def _in(tokens: list[_Token], word: str, kind: str) -> bool:
    return any(token.word == word and after.kind == kind for token, after in pairwise(tokens))
