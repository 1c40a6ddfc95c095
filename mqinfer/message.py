"""Message and Row: the types that are the wiring.

A `Message` is a `msgspec.Struct` with a subject; a `Row` is a message that also has a ClickHouse
table. The class keywords are read by a small metaclass and kept, frozen, in `MessageInfo`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, TypedDict, Unpack, dataclass_transform

from msgspec import Struct, StructMeta, field

from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.times import parse_duration

_DAY = 86_400.0

Wire = Literal["json", "msgpack"]

_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What may stand in one token of a NATS subject as it is; all else is percent-encoded.
_KEY_UNSAFE = re.compile(rb"[^A-Za-z0-9_=+/:@~-]")


# What a field may have as its default, and a method or property is not.
_VALUES = (str, int, float, bytes, list, tuple, dict, set)


class MessageInfo(Struct, frozen=True):
    """What the class keywords of a message type say.

    Attributes:
        subject: the tokens after the app's name (`leaf` is `plants.leaf`).
        key: the field whose value becomes the last token of the subject, if any.
        ordered: messages with the same key are handled one after the other, in stream order.
        foreign_ids: whether headers say who a message is; else it is its place in the stream.
        wire: how a payload is encoded; readers go by the `Content-Type` header. A `Row` in JSON
            that holds NaN or an infinity goes as msgpack.
        table: the ClickHouse table of a `Row`.
        order_by: the columns that sort the table (a prefix of its primary key).
        shared: whether other apps write into the table as well.
        keep: seconds after its birth for which a row is kept; None for ever.
        pack: whether rows that only their table's sink reads may share a message; see `rowpacks`.
    """

    subject: str
    key: str | None = None
    ordered: bool = False
    foreign_ids: bool = True
    wire: Wire = "json"
    table: str | None = None
    order_by: tuple[str, ...] = ()
    shared: bool = False
    keep: float | None = None
    pack: bool = True


class StructKeywords(TypedDict, total=False):
    """The class keywords of `msgspec.Struct`; one that is left out is inherited."""

    tag: bool | str | int | Callable[[str], str | int] | None
    tag_field: str | None
    rename: (
        Literal["lower", "upper", "camel", "pascal", "kebab"]
        | Callable[[str], str | None]
        | Mapping[str, str]
        | None
    )
    omit_defaults: bool
    forbid_unknown_fields: bool
    frozen: bool
    eq: bool
    order: bool
    kw_only: bool
    repr_omit_defaults: bool
    array_like: bool
    gc: bool
    weakref: bool
    dict: bool
    cache_hash: bool


class MessageMeta(StructMeta):
    """`StructMeta` refuses keywords it does not know: take ours, pass the rest on."""

    def __new__(
        mcls: type[MessageMeta],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        subject: str | None = None,
        key: str | None = None,
        ordered: bool = False,
        foreign_ids: bool = True,
        wire: Wire = "json",
        table: str | None = None,
        order_by: tuple[str, ...] | str = (),
        shared: bool = False,
        keep: float | str | None = None,
        pack: bool = True,
        **config: Unpack[StructKeywords],
    ) -> Any:
        """Make the type and keep what its keywords say."""
        _refuse_keywords(name, config)
        cls: Any = super().__new__(mcls, name, bases, namespace, **config)
        _refuse_untyped(cls, namespace)
        if "__is_row__" in namespace:  # Message and Row themselves
            return cls
        is_row = any(getattr(base, "__is_row__", False) for base in bases)
        own = {"table": table, "order_by": order_by, "shared": shared}
        own |= {"keep": keep is not None, "pack": not pack}
        for word, given in own.items():
            if given and not is_row:
                raise WiringError(
                    f"{name}: {word}= belongs to a Row; derive {name} from mqinfer.Row"
                )
        if wire not in ("json", "msgpack"):
            raise WiringError(f"{name}: wire={wire!r} must be 'json' or 'msgpack'")
        if is_row:
            table = table or snake(name)
            if not _TABLE.fullmatch(table):
                raise WiringError(f"{name}: {table!r} cannot name a table")
        subject = subject or table or snake(name)
        if not _SUBJECT.fullmatch(subject):
            raise WiringError(
                f"{name}: subject {subject!r} must be tokens of letters, digits, - and _, "
                "joined by dots"
            )
        order_by = (order_by,) if isinstance(order_by, str) else tuple(order_by)
        fields = cls.__struct_fields__
        for column in (*order_by, *((key,) if key else ())):
            if column not in fields:
                raise WiringError(f"{name}: no field {column!r}; it has {', '.join(fields)}")
        if ordered and not key:
            raise WiringError(f"{name}: ordered=True needs key=, the field to keep in order by")
        cls.__mqinfer__ = MessageInfo(
            subject=subject,
            key=key,
            ordered=ordered,
            foreign_ids=foreign_ids,
            wire=wire,
            table=table,
            order_by=order_by,
            shared=shared,
            keep=None if keep is None else _kept(name, keep),
            pack=pack,
        )
        return cls


def _refuse_keywords(name: str, given: Iterable[str]) -> None:
    """Raise WiringError for a class keyword that there is not."""
    known = (*(MessageMeta.__new__.__kwdefaults__ or ()), *StructKeywords.__annotations__)
    for word in given:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(known)}"
            raise WiringError(f"{name}: {word}= is no class keyword of a message; {hint}")


def _refuse_untyped(cls: type, namespace: Mapping[str, object]) -> None:
    """Raise WiringError for a value without a type, which would be no field, and nobody be told.

    What is written in capitals, or is private, is a constant.
    """
    for name, value in namespace.items():
        if not isinstance(value, _VALUES) or name.startswith("_") or name.isupper():
            continue
        if name not in cls.__annotations__:
            raise WiringError(
                f"{cls.__name__}.{name} has no type, and so is no field: write "
                f"`{name}: {type(value).__name__} = {value!r}`"
            )


def _kept(name: str, keep: float | str) -> float:
    try:
        seconds = parse_duration(keep)
    except ConfigurationError as error:
        raise WiringError(f"{name}: keep= {error}") from None
    if seconds < _DAY:
        raise WiringError(f"{name}: keep={keep!r} must be a day at least: whole days are dropped")
    return seconds


def snake(name: str) -> str:
    """The name of a class in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# For type checkers: types derived from a frozen struct are frozen without saying so again.
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Message(Struct, metaclass=MessageMeta, frozen=True):
    """Base of everything that travels on the stream.

    Class keywords: `subject=` (default: the class name in snake case), `key=` (a field whose value
    is appended to the subject), `ordered=` (in order by key), `foreign_ids=False` (a message is who
    it is by its place in the stream, whatever ids a publisher or a bridge wrote into its headers;
    for types that no stage writes), `wire="json"|"msgpack"`, and any keyword of `msgspec.Struct`.
    """

    __is_row__: ClassVar[bool] = False
    __mqinfer__: ClassVar[MessageInfo]


class Row(Message, frozen=True):
    """A message that also is a row of a ClickHouse table.

    Further class keywords: `table=` (default: the class name in snake case), `order_by=` (columns),
    `shared=True` (other apps write into the table as well; otherwise it belongs to the first app),
    `keep="90d"` (workers drop the days of birth that are older; see docs/tables.md),
    `pack=False` (each row travels as a message of its own, for readers that are no stage of the
    app; so it does where a stage reads the type, or with `key=`).
    """

    __is_row__: ClassVar[bool] = True


class Rejected(Struct, frozen=True):
    """In the list a batch handler returns: this one item can never be answered.

    The item is dead-lettered with `reason`; its neighbours are not touched.
    """

    reason: str


def key_token(value: object) -> str:
    """One subject token for a key value; percent-encodes what NATS gives a meaning of its own.

    An empty value becomes `%00`, so that the subject never has an empty token.
    """
    raw = str(value).encode()
    return _KEY_UNSAFE.sub(lambda m: b"%%%02X" % m.group()[0], raw).decode() or "%00"
