"""Forms: bodies of parts (multipart/form-data, RFC 7578), parsed as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqinfer.gateway import validation
from mqinfer.gateway.problems import Fault, Problem, invalid

if TYPE_CHECKING:
    from mqinfer.message import Message

PARTS: Final = 64  # of one body
NAME: Final = 100  # characters of the name of one
HEADER: Final = 8192  # bytes of the headers of one part
_BOUNDARY: Final = 200


@dataclass(slots=True)
class Part:
    """One part.

    Attributes:
        name: of the field.
        file: whether it is a file.
        filename: that it has at the client's.
        data: its content.
    """

    name: str = ""
    file: bool = False
    filename: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Reader:
    """What the parser calls."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.done = False
        self._name = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._headers = 0

    def on_part_begin(self) -> None:
        if len(self.parts) >= PARTS:
            raise _malformed(f"it has more than {PARTS} parts")
        self.parts.append(Part())
        self._disposition, self._headers = b"", 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def on_header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        if kind != b"form-data" or not name:
            raise _malformed("a part of it has no name")
        if len(name) > NAME:
            raise _malformed(f"the name of a part has more than {NAME} characters")
        part = self.parts[-1]
        if any(one.name == name for one in self.parts[:-1]):
            raise _malformed(f"two of its parts are called {name[:100]!r}")
        part.name, part.file = name, b"filename" in options
        part.filename = options.get(b"filename", b"").decode(errors="replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        self.done = True

    def _count(self, size: int) -> None:
        self._headers += size
        if self._headers > HEADER:
            raise _malformed("the headers of a part are too long")


def boundary(content_type: str) -> bytes:
    """What separates the parts.

    Raises:
        Problem: the header does not say it.
    """
    from python_multipart.multipart import parse_options_header

    _, options = parse_options_header(content_type)
    found: bytes = options.get(b"boundary", b"")
    if not 0 < len(found) <= _BOUNDARY:
        raise Problem(400, "malformed", "multipart/form-data needs its boundary in Content-Type")
    return found


async def parts(
    content_type: str,
    chunks: AsyncIterator[bytes],
    drained: Callable[[Sequence[Part]], Awaitable[None]] | None = None,
) -> list[Part]:
    """The parts of a body.

    Args:
        content_type: of the body.
        chunks: of the body, as it comes.
        drained: takes what came of the parts after each chunk, so that it need not be held; None
            has all of it stay in them.

    Raises:
        Problem: it is no such body.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    reader = _Reader()
    names = (
        "on_part_begin", "on_header_field", "on_header_value", "on_header_end",
        "on_headers_finished", "on_part_data", "on_end",
    )  # fmt: skip
    callbacks: Any = {name: getattr(reader, name) for name in names}
    parser = MultipartParser(boundary(content_type), callbacks)
    try:
        async for chunk in chunks:
            parser.write(chunk)
            if drained is not None:
                await drained(reader.parts)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)[:200]) from None
    if not reader.done:
        raise _malformed("it ends before its last part does")
    return reader.parts


def asked(found: Sequence[Part], kind: type[Message]) -> tuple[bytes, dict[str, bytes]]:
    """The body that a form stands for, as JSON, and its files by name.

    `input` is JSON; a file that nothing in it refers to is the field of its name; any other part is
    the field of its name, as text.

    Raises:
        Problem: `input` is no object.
    """
    given = next((part for part in found if part.name == "input"), None)
    data = validation.json(bytes(given.data)) if given is not None else {}
    if not isinstance(data, dict):
        raise invalid([Fault("/input", "must be an object")])
    webhook = None
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for part in found:
        if part is given:
            continue
        if part.name == "webhook" and "webhook" not in fields:
            webhook = validation.json(bytes(part.data))
        elif not part.file:
            data.setdefault(part.name, _value(part, fields.get(part.name)))
        elif part.name in fields:
            data.setdefault(part.name, {"part": part.name})
    whole = {"input": data} if webhook is None else {"input": data, "webhook": webhook}
    return msgspec.json.encode(whole), {part.name: bytes(part.data) for part in found if part.file}


def _value(part: Part, field: msgspec.structs.FieldInfo | None) -> Any:
    """What a field of a form says: forms know text alone."""
    text = bytes(part.data).decode(errors="replace")
    if field is None:
        return text
    try:
        found = msgspec.convert(text, field.type, strict=False)
        return msgspec.to_builtins(found)
    except Exception:  # noqa: BLE001 - told later, with everything else
        return text


def _malformed(why: str) -> Problem:
    return Problem(
        400,
        "malformed",
        f"the body is no multipart/form-data: {why}",
        headers={"connection": "close"},
    )
