"""Kinds of settings: what each may be, and how its text is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mqinfer.headers import parse_headers
from mqinfer.times import DURATION_HELP, SIZE_HELP, parse_duration, parse_size


class Kind(NamedTuple):
    """How a setting's text becomes its value; `parse` raises ValueError or ConfigurationError."""

    name: str
    allowed: str
    parse: Callable[[str], Any]


def _servers(text: str) -> str:
    servers = [server.strip() for server in text.split(",") if server.strip()]
    if not servers:
        raise ValueError
    for server in servers:
        _checked_url(server if "://" in server else f"nats://{server}", "nats", "tls", "ws", "wss")
    return ",".join(server if "://" in server else f"nats://{server}" for server in servers)


def _checked_url(text: str, *schemes: str) -> str:
    url = urlsplit(text)
    if url.scheme not in schemes or not url.hostname or any(char.isspace() for char in text):
        raise ValueError
    if url.port == 0:  # urlsplit itself refuses what is no port
        raise ValueError
    return text


def _http_urls(text: str) -> str:
    for server in AND_HTTP.split(text):
        _checked_url(server, "http", "https")
    return text


def _triton(text: str) -> str:
    servers = [server.strip().rstrip("/") for server in text.split(",") if server.strip()]
    if not servers:
        raise ValueError
    for server in servers:
        bare = server if "://" in server else f"grpc://{server}"
        _checked_url(bare, "grpc", "grpcs")
        if urlsplit(bare).port is None or urlsplit(bare).path:
            raise ValueError
    return ",".join(servers)


def _headers(text: str) -> str:
    parse_headers(text)
    return text


def _blobs(text: str) -> str:
    scheme, mark, rest = text.partition("://")
    if not text.strip() or (mark and (scheme not in _BLOB_SCHEMES or not rest.strip("/"))):
        if text in ("memory://", "nats://"):
            return text
        raise ValueError
    return text


def _cache(text: str) -> str:
    folder, _, size = text.rpartition(":")
    if not folder.strip() or parse_size(size) < _LEAST_CACHE:
        raise ValueError
    return text


def _positive(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        value = parse(text)
        if value <= 0:
            raise ValueError
        return value

    return checked


def _count(text: str) -> int:
    # Digits and grouping only: int() would take other scripts' digits as well, and
    # msgspec.convert takes 1e8 and 1.0 but no grouping.
    if not re.fullmatch(r"[0-9][0-9_]*", text, re.ASCII):
        raise ValueError
    return int(text)


def _matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError
        return text

    return parse


def choice(*allowed: str) -> Kind:
    """One of some words."""

    def parse(text: str) -> str:
        return allowed[allowed.index(text.lower())]

    return Kind("choice", "one of " + ", ".join(allowed), parse)


_BLOB_SCHEMES = ("file", "s3", "gs", "nats", "memory")
TEXT = Kind("text", "any text", str)
PATH = Kind("file", "the path of a file that exists", str)
NATS = Kind(
    "urls", "nats://, tls://, ws:// or wss:// URLs, host:port, separated by commas", _servers
)
HTTP = Kind("urls", "a URL such as http://user:password@host:8123/database; or several", _http_urls)
GRPC = Kind(
    "host:port",
    "host:port of the gRPC endpoint, or grpcs://host:port for TLS; several separated by commas",
    _triton,
)
CLUSTER = Kind("name", "a name of letters, digits, _, - and .", _matching(r"[\w.-]+"))
QUORUM = Kind("number or auto", "a number, at least 1, or auto", _matching(r"[1-9]\d?|auto"))
DOMAIN = Kind("name", "a name of letters, digits, - and _", _matching("[A-Za-z0-9_-]+"))
HEADERS = Kind(
    "headers",
    "headers such as `authorization: Bearer abc, x-team: plants`, one a line where a value holds "
    "commas; no name twice, none that begins with grpc- or ends in -bin",
    _headers,
)
STORE = Kind("folder or url", "a folder, s3://bucket/prefix, gs://bucket, nats://bucket", _blobs)
_LEAST_CACHE = 1_000_000
AND_HTTP = re.compile(r",\s*(?=https?://)")  # a password may have a comma
CACHE = Kind(
    "folder:size",
    "a folder of this machine and how much to keep in it, at least 1MB, such as "
    "/var/cache/mqinfer:10GB",
    _cache,
)
BYTES = Kind("size", SIZE_HELP, parse_size)
SOME_BYTES = Kind("size", f"more than nothing: {SIZE_HELP}", _positive(parse_size))
SECONDS = Kind("duration", DURATION_HELP, parse_duration)
COUNT = Kind("number", "a whole number, at least 1", _positive(_count))
