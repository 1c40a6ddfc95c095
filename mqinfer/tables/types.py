"""Types: ClickHouse's types, read from their text; pure.

Only types whose values we can send exactly are known, each by its one own name: an alias, a
misspelt name or a type that would change what it is given is refused, with what to write instead.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import dataclass

from mqinfer.tables.sql import quoted, text_literal

_INTS = tuple(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256))
_PLAIN = frozenset(
    (*_INTS, "String", "Bool", "Float32", "Float64", "Date", "Date32", "UUID", "IPv4", "IPv6")
)
_WITH_ARGUMENTS = frozenset(
    ("FixedString", "Decimal", "DateTime", "DateTime64", "Enum8", "Enum16", "Nullable",
     "LowCardinality", "Array", "Map", "Tuple")
)  # fmt: skip
_KNOWN = _PLAIN | _WITH_ARGUMENTS
# Digits of the decimals that are named by their bits.
_DECIMALS = {"Decimal32": 9, "Decimal64": 18, "Decimal128": 38, "Decimal256": 76}
_MOST_DIGITS = 76
_ADVICE = {
    **dict.fromkeys(("TINYINT", "INT1", "BYTE"), "Int8"),
    **dict.fromkeys(("SMALLINT", "INT2"), "Int16"),
    **dict.fromkeys(("INT", "INTEGER", "MEDIUMINT", "INT4", "SIGNED"), "Int32"),
    **dict.fromkeys(("BIGINT", "LONG"), "Int64"),
    **dict.fromkeys(("UNSIGNED", "INT UNSIGNED", "INTEGER UNSIGNED"), "UInt32"),
    "BIGINT UNSIGNED": "UInt64",
    "SMALLINT UNSIGNED": "UInt16",
    "TINYINT UNSIGNED": "UInt8",
    **dict.fromkeys(("FLOAT", "REAL", "SINGLE", "BFLOAT16"), "Float32"),
    **dict.fromkeys(("DOUBLE", "DOUBLE PRECISION"), "Float64"),
    **dict.fromkeys(("BOOLEAN", "BIT"), "Bool"),
    **dict.fromkeys(("DEC", "NUMERIC", "FIXED"), "Decimal(18, 4)"),
    **dict.fromkeys(("TIMESTAMP", "DATETIME32"), "DateTime('UTC')"),
    **dict.fromkeys(
        ("TEXT", "VARCHAR", "CHAR", "CHARACTER", "NVARCHAR", "CLOB", "BLOB", "TINYTEXT", "LONGTEXT",
         "MEDIUMTEXT", "BYTEA", "VARBINARY", "JSON", "OBJECT", "VARIANT", "DYNAMIC"),
        "String",
    ),
    "BINARY": "FixedString(16)",
    "ENUM": "Enum8('a' = 1, 'b' = 2)",
    "INET4": "IPv4",
    "INET6": "IPv6",
    "NESTED": "Array(Tuple(name String, count Int64))",
    "TIME": "Int32 (seconds)",
    "TIME64": "Int64 (units of your own)",
    "POINT": "Tuple(Float64, Float64)",
}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:(\w+)|('(?:[^'\\]|\\.|'')*')|(`(?:[^`\\]|\\.)*`)|(-?\d+)|(.))", re.DOTALL
)
_ESCAPES = {"0": "\0", "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Type:
    """A ClickHouse type; `str` of it is the text that a statement takes.

    Attributes:
        name: without what is in brackets.
        inner: the types it is made of.
        names: of a tuple's elements, if they have any.
        numbers: its length, digits or scale.
        members: of an enumeration: code by name.
        zone: of points in time, "" for the server's.
    """

    name: str
    inner: tuple[Type, ...] = ()
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    members: tuple[tuple[str, int], ...] = ()
    zone: str = ""

    @property
    def nullable(self) -> bool:
        """Whether it has a place for a value that is missing."""
        return self.name == "Nullable" or (
            self.name == "LowCardinality" and self.inner[0].name == "Nullable"
        )

    @property
    def plain(self) -> Type:
        """Itself without LowCardinality and Nullable."""
        return self.inner[0].plain if self.name in ("LowCardinality", "Nullable") else self

    @property
    def sent(self) -> str:
        """The type as which it is sent: an enumeration goes as text, which the server checks.

        Of the codes it stores any, also one that it has no name for; then no query can be read.
        """
        if self.members:
            return "String"
        return self._text([part.sent for part in self.inner])

    def as_nullable(self) -> Type:
        """Itself with a place for a missing value."""
        if self.nullable:
            return self
        if self.name == "LowCardinality":
            return Type("LowCardinality", (Type("Nullable", self.inner),))
        return Type("Nullable", (self,))

    def __str__(self) -> str:
        return self._text(list(map(str, self.inner)))

    def _text(self, inner: list[str]) -> str:
        if self.names:
            inner = [f"{quoted(n)} {part}" for n, part in zip(self.names, inner, strict=True)]
        parts = [*map(str, self.numbers), *inner]
        parts += [f"{text_literal(name)} = {code}" for name, code in self.members]
        if self.zone:
            parts.append(text_literal(self.zone))
        return f"{self.name}({', '.join(parts)})" if parts else self.name


def parse(text: str) -> Type:
    """The type that a text names.

    Raises:
        ValueError: it names none that values can be sent to exactly; says what to write.
    """
    parser = _Parser(text)
    found = parser.type()
    parser.end()
    return found


class _Parser:
    """Reads a type, word by word."""

    def __init__(self, text: str):
        self._text = text
        self._tokens = [found.group().strip() for found in _TOKEN.finditer(text)]
        self._tokens = [token for token in self._tokens if token]
        self._at = 0

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, token: str) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise ValueError(f"{self._text!r} is no ClickHouse type: {token!r} is missing")

    def end(self) -> None:
        """Nothing may be left."""
        if self._peek():
            advice = _advice(self._text.partition("(")[0])
            raise ValueError(f"{self._text!r} is no ClickHouse type{advice}")

    def type(self) -> Type:
        name = self._take()
        if name in _PLAIN:
            return Type(name)
        if name in _DECIMALS:
            (scale,) = self._numbers(name, 1)
            return _decimal(_DECIMALS[name], scale)
        if name not in _WITH_ARGUMENTS:
            while self._peek().isidentifier():  # DOUBLE PRECISION
                name += " " + self._take()
            raise ValueError(
                f"{name or self._text!r} is no ClickHouse type that rows can be sent to exactly"
                f"{_advice(name)}"
            )
        match name:
            case "DateTime" | "DateTime64":
                return self._time(name)
            case "Decimal":
                digits, scale = self._numbers(name, 2)
                return _decimal(digits, scale)
            case "FixedString":
                (length,) = self._numbers(name, 1)
                if length < 1:
                    raise ValueError("a FixedString has at least one byte")
                return Type(name, numbers=(length,))
            case "Enum8" | "Enum16":
                return self._enumeration(name)
            case "Tuple":
                return self._tuple()
        inner = self._inner()
        if len(inner) != (2 if name == "Map" else 1):
            raise ValueError(f"{name} takes {'two types' if name == 'Map' else 'one type'}")
        made = Type(name, inner)
        _check_nesting(made)
        return made

    def _inner(self) -> tuple[Type, ...]:
        self._expect("(")
        inner = [self.type()]
        while self._accept(","):
            inner.append(self.type())
        self._expect(")")
        return tuple(inner)

    def _numbers(self, name: str, most: int) -> list[int]:
        """The numbers in brackets; those that are left out at the end are 0."""
        self._expect("(")
        numbers: list[int] = []
        while len(numbers) < most:
            token = self._take()
            if not token.isdecimal():
                raise ValueError(f"{self._text!r}: {name} takes numbers, not {token!r}")
            numbers.append(int(token))
            if not self._accept(","):
                break
        self._expect(")")
        return numbers + [0] * (most - len(numbers))

    def _time(self, name: str) -> Type:
        scale, zone = (3,) if name == "DateTime64" else (), ""
        if self._accept("("):
            if name == "DateTime64" and self._peek().isdecimal():
                scale = (int(self._take()),)
                if scale[0] > 9:
                    raise ValueError("DateTime64 has 0 to 9 digits after the point of a second")
                zone = self._zone() if self._accept(",") else ""
            elif self._peek().startswith("'"):
                zone = self._zone()
            self._expect(")")
        return Type(name, numbers=scale, zone=zone)

    def _text_value(self) -> str:
        token = self._take()
        if not token.startswith("'"):
            raise ValueError(f"{self._text!r}: a text in quotes is wanted, not {token!r}")
        return _unquoted(token)

    def _zone(self) -> str:
        zone = self._text_value()
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, OSError):
            raise ValueError(f"{zone!r} is no time zone known here") from None
        return zone

    def _enumeration(self, name: str) -> Type:
        bits = 8 if name == "Enum8" else 16
        members: dict[str, int] = {}
        code = 0
        self._expect("(")
        while True:
            member = self._text_value()
            code += 1
            if self._accept("="):
                number = ("-" if self._accept("-") else "") + self._take()
                if not re.fullmatch(r"-?\d+", number):
                    raise ValueError(f"{self._text!r}: a number is wanted after =")
                code = int(number)
            if not -(1 << bits - 1) <= code < 1 << bits - 1:
                raise ValueError(f"{name} has no room for {member!r} = {code}")
            if member in members or code in members.values():
                raise ValueError(f"{name} has {member!r} = {code} twice")
            members[member] = code
            if not self._accept(","):
                break
        self._expect(")")
        # As the server shows it.
        return Type(name, members=tuple(sorted(members.items(), key=lambda item: item[1])))

    def _tuple(self) -> Type:
        names, inner = [], []
        self._expect("(")
        while True:
            if self._peek(1) not in ("(", ")", ",", ""):
                token = self._take()
                names.append(_unquoted(token) if token.startswith("`") else token)
            inner.append(self.type())
            if not self._accept(","):
                break
        self._expect(")")
        if names and len(names) != len(inner):
            raise ValueError(f"{self._text!r}: a Tuple names all of its elements, or none")
        return Type("Tuple", tuple(inner), tuple(names))


def _decimal(digits: int, scale: int) -> Type:
    if not 1 <= digits <= _MOST_DIGITS or scale > digits:
        raise ValueError(
            f"Decimal({digits}, {scale}): it has 1 to {_MOST_DIGITS} digits, and no more "
            "of them after the point"
        )
    return Type("Decimal", numbers=(digits, scale))


def _check_nesting(made: Type) -> None:
    inner = made.inner[0]
    if made.name == "Nullable" and inner.name in (
        "Nullable", "LowCardinality", "Array", "Map", "Tuple",
    ):  # fmt: skip
        better = (
            f"LowCardinality(Nullable({inner.inner[0]}))"
            if inner.name == "LowCardinality"
            else f"{inner}; an empty one stands for none"
        )
        raise ValueError(f"ClickHouse has no {made}: write {better}")
    if made.name == "LowCardinality" and inner.plain.name not in ("String", "FixedString"):
        raise ValueError(f"{made}: only String and FixedString gain by it; write {inner}")
    if made.name == "Map" and (inner.nullable or inner.name in ("Array", "Map", "Tuple")):
        raise ValueError(f"{made}: a key is a plain value that is never missing")


def _unquoted(token: str) -> str:
    quote, text = token[0], token[1:-1]
    if "\\" not in text:
        return text.replace(quote * 2, quote)
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)


def _advice(name: str) -> str:
    """What to write for an unknown name, as the end of a sentence."""
    name = " ".join(name.split())
    if better := _ADVICE.get(name.upper()):
        return f"; write {better}"
    by_lower = {known.lower(): known for known in _KNOWN}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return (
        f"; did you mean {by_lower[close[0]]}?"
        if close
        else f": use one of {', '.join(sorted(_KNOWN))}"
    )
