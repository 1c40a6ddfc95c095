"""Headers: names and values that a setting sends along with every call. Pure."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]+")


def parse_headers(text: str) -> dict[str, str]:
    """The headers in a text such as `authorization: Bearer abc, x-team=plants`.

    They are separated by commas, or stand one a line where a value holds commas; `:` or `=` is
    after a name. Names are lower case in gRPC, and are made so.

    Raises:
        ValueError: it is no such text, or gRPC cannot send it.
    """
    headers: dict[str, str] = {}
    for part in text.split("\n" if "\n" in text else ","):
        if not part.strip():
            continue
        found = re.fullmatch(r"([^:=]+)[:=](.*)", part.strip(), re.DOTALL)
        if found is None:
            raise ValueError("a header is a name, : and a value")
        name, value = found[1].strip().lower(), found[2].strip()
        # The first belong to gRPC; the values of the others are bytes.
        if not _NAME.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
            raise ValueError("a name is letters, digits, -, _ and ., not grpc-* and not *-bin")
        if not _VALUE.fullmatch(value):
            raise ValueError("a value is printable ASCII")
        if name in headers:
            raise ValueError("a header is given twice")
        headers[name] = value
    if not headers:
        raise ValueError("there is no header in it")
    return headers
