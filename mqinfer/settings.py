"""Settings: everything that is set from outside, in one place.

A setting is a field of `Settings`; its variable is `MQINFER_` and the field's name in capitals.
What is passed to `Settings.load` (the command line's flags) wins over the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from mqinfer.errors import ConfigurationError
from mqinfer.headers import parse_headers
from mqinfer.times import DURATION_HELP, SIZE_HELP, parse_duration, parse_size

T = TypeVar("T")
PREFIX = "MQINFER_"
_log = logging.getLogger("mqinfer.settings")

# A password that was not percent-encoded may hold any of `@/?#`: rather mask too much.
_USERINFO = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s/?#@:]*)(?P<pass>:[^\s,\"'<>]*)?@",
    re.IGNORECASE,
)
_SECRET_QUERY = re.compile(
    r"(?i)([?&][^=&#\s]*(?:password|passwd|secret|token|signature|credential|key)[^=&#\s]*=)[^&#\s]*"
)
_TOKEN_SCHEMES = ("nats://", "tls://", "ws://", "wss://")


def mask_url(text: str) -> str:
    """`text` with the secrets of every URL in it replaced by `***`.

    Masks the password of `user:password@`, the token of `nats://token@`, and query parameters
    that are named like a secret. What is no URL stays as it is.
    """

    def masked(found: re.Match[str]) -> str:
        scheme, user, password = found["scheme"], found["user"], found["pass"]
        if password is not None:
            return f"{scheme}{user}:***@"
        return f"{scheme}***@" if scheme.lower() in _TOKEN_SCHEMES else found[0]

    return _SECRET_QUERY.sub(r"\1***", _USERINFO.sub(masked, text))


class SettingInfo(NamedTuple):
    """One setting, for documentation."""

    env: str
    type: str
    default: str
    meaning: str


class _Kind(NamedTuple):
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


def _http_url(text: str) -> str:
    return _checked_url(text, "http", "https")


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


def _choice(*allowed: str) -> _Kind:
    def parse(text: str) -> str:
        return allowed[allowed.index(text.lower())]

    return _Kind("choice", "one of " + ", ".join(allowed), parse)


_BLOB_SCHEMES = ("file", "s3", "gs", "nats", "memory")
_TEXT = _Kind("text", "any text", str)
_PATH = _Kind("file", "the path of a file that exists", str)
_NATS = _Kind(
    "urls", "nats://, tls://, ws:// or wss:// URLs, host:port, separated by commas", _servers
)
_HTTP = _Kind("url", "a URL such as http://user:password@host:8123/database", _http_url)
_GRPC = _Kind(
    "host:port",
    "host:port of the gRPC endpoint, or grpcs://host:port for TLS; several separated by commas",
    _triton,
)
_HEADERS = _Kind(
    "headers",
    "headers such as `authorization: Bearer abc, x-team: plants`, one a line where a value holds "
    "commas; no name twice, none that begins with grpc- or ends in -bin",
    _headers,
)
_STORE = _Kind("folder or url", "a folder, s3://bucket/prefix, gs://bucket, nats://bucket", _blobs)
_LEAST_CACHE = 1_000_000
_CACHE = _Kind(
    "folder:size",
    "a folder of this machine and how much to keep in it, at least 1MB, such as "
    "/var/cache/mqinfer:10GB",
    _cache,
)
_BYTES = _Kind("size", SIZE_HELP, parse_size)
_SOME_BYTES = _Kind("size", f"more than nothing: {SIZE_HELP}", _positive(parse_size))
_SECONDS = _Kind("duration", DURATION_HELP, parse_duration)
_COUNT = _Kind("number", "a whole number, at least 1", _positive(_count))


def _setting(default: T, kind: _Kind, meaning: str, *, secret: bool = False) -> T:
    return dataclasses.field(
        default=default, metadata={"kind": kind, "meaning": meaning, "secret": secret}
    )


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Every setting; `Settings.describe()` is the table that the documentation shows.

    Make one with `Settings.load()`; `Settings(nats_url=..., ...)` takes values as they are.
    """

    nats_url: str = _setting(
        "nats://127.0.0.1:4222", _NATS, "NATS servers; more than one, separated by commas"
    )
    nats_creds: str | None = _setting(None, _PATH, "credentials file (JWT and seed)")
    nats_nkey: str | None = _setting(None, _PATH, "file with an nkey seed (extra `nkeys`)")
    nats_user: str | None = _setting(None, _TEXT, "user name")
    nats_password: str | None = _setting(None, _TEXT, "password of MQINFER_NATS_USER", secret=True)
    nats_token: str | None = _setting(None, _TEXT, "token to log in with", secret=True)
    nats_tls_ca: str | None = _setting(
        None, _PATH, "certificates (PEM) that the NATS servers' own are checked against"
    )
    nats_tls_cert: str | None = _setting(None, _PATH, "client certificate (PEM) for mutual TLS")
    nats_tls_key: str | None = _setting(None, _PATH, "key (PEM) of MQINFER_NATS_TLS_CERT")
    nats_inbox_prefix: str = _setting(
        "_INBOX", _TEXT, "subject that replies come under, for accounts that may use only their own"
    )
    triton_url: str = _setting(
        "127.0.0.1:8001",
        _GRPC,
        "Triton's gRPC endpoint; grpcs:// in front for TLS. Several, separated by commas or under "
        "one name, share the calls",
    )
    triton_tls_ca: str | None = _setting(
        None, _PATH, "certificates (PEM) that Triton's own is checked against; implies TLS"
    )
    triton_tls_cert: str | None = _setting(None, _PATH, "client certificate (PEM) for mutual TLS")
    triton_tls_key: str | None = _setting(None, _PATH, "key (PEM) of MQINFER_TRITON_TLS_CERT")
    triton_headers: str | None = _setting(
        None,
        _HEADERS,
        "headers sent to Triton with every call, such as `authorization: Bearer ...`, separated by "
        "commas or one a line",
        secret=True,
    )
    clickhouse_url: str = _setting(
        "http://default@127.0.0.1:8123/default",
        _HTTP,
        "ClickHouse's HTTP interface: user, password and database are in the URL",
    )
    clickhouse_tls_ca: str | None = _setting(
        None, _PATH, "certificates (PEM) that ClickHouse's own is checked against"
    )
    clickhouse_tls_cert: str | None = _setting(
        None, _PATH, "client certificate (PEM) for mutual TLS"
    )
    clickhouse_tls_key: str | None = _setting(
        None, _PATH, "key (PEM) of MQINFER_CLICKHOUSE_TLS_CERT"
    )
    blobs: str = _setting(
        ".mqinfer/blobs",
        _STORE,
        "where blobs are kept: a folder that all workers share, or s3://bucket/prefix or "
        "gs://bucket/prefix (extra `s3`; credentials as for every tool of that cloud, AWS_*), or "
        "nats://bucket (nats:// alone is <app>-blobs)",
    )
    blob_cache: str | None = _setting(
        None,
        _CACHE,
        "where copies of blobs from s3://, gs:// or nats:// are kept, for all processes of this "
        "machine, and how much, such as /var/cache/mqinfer:10GB; may be deleted at any moment",
    )
    blob_timeout: float = _setting(
        30.0, _SECONDS, "longest that reading or writing one blob may take"
    )
    request_secret: str | None = _setting(
        None,
        _TEXT,
        "what the ids of requests with a key are made with, so that nobody can guess them: any "
        "text, the same for all that ask",
        secret=True,
    )
    console_token: str | None = _setting(
        None,
        _TEXT,
        "what opens a console that others can reach, and lets people act on it",
        secret=True,
    )
    inline_blob_bytes: int = _setting(
        65536, _BYTES, "blobs up to this size ride in the message, larger ones go to the store"
    )
    max_pixels: int = _setting(
        100_000_000, _COUNT, "height x width above which a picture is refused before it is decoded"
    )
    max_image_bytes: int = _setting(
        256 * 1024 * 1024, _SOME_BYTES, "encoded size above which a picture is refused"
    )
    grace: float = _setting(
        25.0, _SECONDS, "how long a stopping worker may take to finish what it has begun"
    )
    stack_password: str | None = _setting(
        None, _TEXT, "password that `mqinfer up` has NATS and ClickHouse want", secret=True
    )
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error", "critical"), "least level logged"
    )
    log_format: str = _setting(
        "auto", _choice("auto", "console", "json"), "auto is console on a terminal, else JSON lines"
    )
    loop: str = _setting(
        "auto",
        _choice("asyncio", "uvloop", "auto"),
        "event loop; auto is what was quicker: uvloop for a gateway, if installed, else asyncio",
    )
    inference: str = _setting(
        "auto",
        _choice("auto", "triton", "onnx"),
        "what serves the models of `mqinfer up`: Triton, or our own server of its protocol; auto "
        "is Triton wherever it can be had",
    )
    servers: str = _setting(
        "auto",
        _choice("auto", "embedded", "path"),
        "which servers `mqinfer up` runs: those on the PATH and else the embedded ones, or those "
        "of one kind alone",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from the environment and from what was passed.

        Args:
            environ: variables; `os.environ` by default. An empty variable counts as not set. One
                that begins with `MQINFER_` and is unknown is logged, with the nearest known name.
            **overrides: by field name; None counts as not passed, text is read as a variable is.

        Raises:
            ConfigurationError: naming the variable, its value and what is allowed.
            TypeError: an override that is no setting.
        """
        environ = os.environ if environ is None else environ
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := set(overrides) - set(fields):
            raise TypeError(f"no setting is called {', '.join(sorted(unknown))}")
        _warn_of_unknown(environ, [PREFIX + name.upper() for name in fields])
        values: dict[str, Any] = {}
        for name, field in fields.items():
            given = overrides.get(name)
            value = given if given is not None else environ.get(PREFIX + name.upper()) or None
            if value is not None:
                values[name] = _parsed(field, value)
        settings = cls(**values)
        settings._check_files()
        return settings

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ConfigurationError: naming them.
        """
        logins = [n for n in ("nats_creds", "nats_nkey", "nats_user", "nats_token") if self._has(n)]
        if len(logins) > 1:
            names = " and ".join(PREFIX + name.upper() for name in logins)
            raise ConfigurationError(f"{names} are set: choose one way to log in to NATS")
        for needs, needed in (
            ("nats_password", "nats_user"),
            ("nats_tls_cert", "nats_tls_key"),
            ("nats_tls_key", "nats_tls_cert"),
            ("triton_tls_cert", "triton_tls_key"),
            ("triton_tls_key", "triton_tls_cert"),
            ("clickhouse_tls_cert", "clickhouse_tls_key"),
            ("clickhouse_tls_key", "clickhouse_tls_cert"),
        ):
            if self._has(needs) and not self._has(needed):
                raise ConfigurationError(
                    f"{PREFIX}{needs.upper()} is set without {PREFIX}{needed.upper()}: set both"
                )

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _check_files(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["kind"] is not _PATH or value is None:
                continue
            if not Path(value).is_file():
                raise ConfigurationError(
                    f"{PREFIX}{field.name.upper()}={value!r}: there is no such file"
                )
            if not os.access(value, os.R_OK):
                raise ConfigurationError(
                    f"{PREFIX}{field.name.upper()}={value!r}: this user may not read the file"
                )

    @property
    def nats_servers(self) -> list[str]:
        """The URLs in `nats_url`."""
        return self.nats_url.split(",")

    @property
    def blob_cache_bounds(self) -> tuple[str, int] | None:
        """The folder of `blob_cache` and its bytes; None without one."""
        if self.blob_cache is None:
            return None
        folder, _, size = self.blob_cache.rpartition(":")
        return folder, parse_size(size)

    @classmethod
    def describe(cls) -> list[SettingInfo]:
        """Every setting with its variable, type, default and meaning, in order."""
        rows = []
        for field in dataclasses.fields(cls):
            kind: _Kind = field.metadata["kind"]
            name = kind.allowed.removeprefix("one of ") if kind.name == "choice" else kind.name
            default = "" if field.default is None else f"{field.default}"
            rows.append(
                SettingInfo(PREFIX + field.name.upper(), name, default, field.metadata["meaning"])
            )
        return rows

    def __repr__(self) -> str:
        """What differs from the defaults; secrets are masked."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                secret = field.metadata["secret"]
                text = "'***'" if secret else mask_url(value) if isinstance(value, str) else value
                parts.append(f"{field.name}={text if secret else repr(text)}")
        return f"Settings({', '.join(parts)})"


def _parsed(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the field's type.

    Raises:
        ConfigurationError: it cannot be.
    """
    kind: _Kind = field.metadata["kind"]
    try:
        return kind.parse(_as_text(value))
    except (ValueError, ConfigurationError):
        shown = "***" if field.metadata["secret"] else mask_url(str(value))
        raise ConfigurationError(
            f"{PREFIX}{field.name.upper()}={shown!r} is not allowed: it must be {kind.allowed}"
        ) from None


def _as_text(value: Any) -> str:
    if isinstance(value, (str, Path, int, float)) and not isinstance(value, bool):
        return str(value).strip()
    raise ValueError


# Of the command line, and of what runs packed models.
_ELSEWHERE = ("MQINFER_APP_DIR", "MQINFER_DEBUG", "MQINFER_ENVIRONMENTS")


def _warn_of_unknown(environ: Mapping[str, str], known: list[str]) -> None:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and name not in _ELSEWHERE:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            _log.warning("%s is set, but no setting has this name%s", name, hint)
