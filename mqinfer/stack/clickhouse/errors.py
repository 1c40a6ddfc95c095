"""Errors as ClickHouse words them, and the HTTP status that it gives each."""

from __future__ import annotations

import re
from enum import IntEnum

import chdb

_CODE = re.compile(r"Code: (\d+)\.")
# What a client wrote wrongly; what it named and is not there. What is in neither is 500.
_BAD_REQUEST = (
    *(6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376),
    *(427, 441, 675, 676),
)
_NOT_FOUND = (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511)
_STATUS = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys(_NOT_FOUND, 404),
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((76, 209, 439), 503),
    48: 501,
    159: 408,
    194: 401,
    229: 413,
    381: 411,
    779: 415,
}


class Code(IntEnum):
    """The codes of what is refused here, before the engine sees it."""

    BAD_ARGUMENTS = 36
    CHECKSUM_DOESNT_MATCH = 40
    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    READONLY = 164
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
    CANNOT_DECOMPRESS = 271
    SESSION_NOT_FOUND = 372
    SESSION_IS_LOCKED = 373
    INVALID_SESSION_TIMEOUT = 374
    QUERY_WAS_CANCELLED = 394
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516


class EngineError(Exception):
    """A refusal, with ClickHouse's code and text.

    Args:
        text: What the engine said, or a sentence of ours.
        code: Of a sentence of ours; the engine's texts carry theirs.
    """

    def __init__(self, text: str, code: Code | None = None) -> None:
        found = _CODE.search(text) if code is None else None
        # Poco and std exceptions have no code of their own; ClickHouse says 1001 then.
        self.code = int(found[1]) if found else 1001 if code is None else int(code)
        if found is None:
            text = f"Code: {self.code}. DB::Exception: {text}"
        if code is not None:
            text = f"{text} ({code.name})"
        if "(version " not in text:
            text = f"{text} (version {chdb.engine_version})"
        super().__init__(text)

    @property
    def status(self) -> int:
        """Of the HTTP answer."""
        return _STATUS.get(self.code, 500)
