"""Bodies of requests: a statement into memory, the data of an INSERT into a file as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from mqinfer.stack.clickhouse.codec import CodecError, Decoder
from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.statement import Insert, find_insert

# A statement before its data is no longer than this: the default of max_query_size.
_HEAD_BYTES = 1 << 18
_PIECE_BYTES = 1 << 20
_MOST_STATEMENT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Statement:
    """What a request asks for.

    Attributes:
        text: The statement, of an INSERT without its data.
        insert: An INSERT with data, and in ``path`` the file that has them.
    """

    text: bytes
    insert: Insert | None = None
    path: str = ""


async def decoded(
    pieces: AsyncIterator[bytes], decoders: Sequence[Decoder]
) -> AsyncIterator[bytes]:
    """Undo the encodings of a body.

    Raises:
        EngineError: It is damaged, or cut off.
    """
    try:
        async for piece in pieces:
            plain = piece
            for decoder in decoders:
                plain = decoder.feed(plain)
            if plain:
                yield plain
        for decoder in decoders:
            decoder.finish()
    except CodecError as error:
        checksum = str(error).startswith("Checksum")
        code = Code.CHECKSUM_DOESNT_MATCH if checksum else Code.CANNOT_DECOMPRESS
        raise EngineError(str(error), code) from error


async def read_statement(
    query: bytes,
    body: AsyncIterator[bytes],
    new_file: Callable[[], IO[bytes]],
    in_thread: Callable[..., Awaitable[Any]],
) -> Statement:
    """Read a request to its end.

    Args:
        query: The ``query`` URL parameter, which the body goes on with.
        body: Decoded.
        new_file: Makes a file with a name, for an INSERT's data.
        in_thread: Runs a function that may wait for the disk.

    Raises:
        EngineError: A statement is too long.
    """
    head = bytearray()
    async for piece in body:
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    text = query or bytes(head)
    insert = find_insert(text)
    if insert is None:
        async for piece in body:
            head += piece
            if len(head) > _MOST_STATEMENT_BYTES:
                raise EngineError("Max query size exceeded.", Code.SYNTAX_ERROR)
        both = b"\n".join(part for part in (query, bytes(head)) if part)
        return Statement(both)
    data = text[insert.data_start :]
    if query:
        # ClickHouse reads the query of the URL and the body as one text.
        data += (b"\n" if data and head and insert.format == "Values" else b"") + head
    file = new_file()
    waiting = bytearray(data)
    del data, head
    async for piece in body:
        if len(waiting) >= _PIECE_BYTES:
            await in_thread(file.write, bytes(waiting))
            waiting.clear()
        waiting += piece
    await in_thread(_finish, file, waiting)
    return Statement(text[: insert.data_start], insert, file.name)


def _finish(file: IO[bytes], rest: bytes | bytearray) -> None:
    file.write(rest)
    file.flush()
