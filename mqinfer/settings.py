"""Settings: everything that is set from outside, in one place.

A setting is a field of `Settings`; its variable is `MQINFER_` and the field's name in capitals.
What is passed to `Settings.load` (the command line's flags) wins over the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mqinfer.errors import ConfigurationError
from mqinfer.masking import mask_url
from mqinfer.settingkinds import (
    AND_HTTP,
    BYTES,
    CACHE,
    CLUSTER,
    COUNT,
    DOMAIN,
    GRPC,
    HEADERS,
    HTTP,
    NATS,
    PATH,
    QUORUM,
    SECONDS,
    SOME_BYTES,
    STORE,
    TEXT,
    Kind,
    choice,
)
from mqinfer.times import parse_size

T = TypeVar("T")
PREFIX = "MQINFER_"
_log = logging.getLogger("mqinfer.settings")


class SettingInfo(NamedTuple):
    """One setting, for documentation."""

    env: str
    type: str
    default: str
    meaning: str


def _setting(default: T, kind: Kind, meaning: str, *, secret: bool = False) -> T:
    return dataclasses.field(
        default=default, metadata={"kind": kind, "meaning": meaning, "secret": secret}
    )


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Every setting; `Settings.describe()` is the table that the documentation shows.

    Make one with `Settings.load()`; `Settings(nats_url=..., ...)` takes values as they are.
    """

    nats_url: str = _setting(
        "nats://127.0.0.1:4222", NATS, "NATS servers; more than one, separated by commas"
    )
    nats_creds: str | None = _setting(None, PATH, "credentials file (JWT and seed)")
    nats_nkey: str | None = _setting(None, PATH, "file with an nkey seed (extra `nkeys`)")
    nats_user: str | None = _setting(None, TEXT, "user name")
    nats_password: str | None = _setting(None, TEXT, "password of MQINFER_NATS_USER", secret=True)
    nats_token: str | None = _setting(None, TEXT, "token to log in with", secret=True)
    nats_tls_ca: str | None = _setting(
        None, PATH, "certificates (PEM) that the NATS servers' own are checked against"
    )
    nats_tls_cert: str | None = _setting(None, PATH, "client certificate (PEM) for mutual TLS")
    nats_tls_key: str | None = _setting(None, PATH, "key (PEM) of MQINFER_NATS_TLS_CERT")
    nats_domain: str | None = _setting(
        None,
        DOMAIN,
        "domain of the JetStream that keeps the app's streams, where the NATS servers are leaf "
        "nodes of it; the same for all processes of an app",
    )
    nats_inbox_prefix: str = _setting(
        "_INBOX", TEXT, "subject that replies come under, for accounts that may use only their own"
    )
    triton_url: str = _setting(
        "127.0.0.1:8001",
        GRPC,
        "Triton's gRPC endpoint; grpcs:// in front for TLS. Several, separated by commas or under "
        "one name, share the calls",
    )
    triton_tls_ca: str | None = _setting(
        None, PATH, "certificates (PEM) that Triton's own is checked against; implies TLS"
    )
    triton_tls_cert: str | None = _setting(None, PATH, "client certificate (PEM) for mutual TLS")
    triton_tls_key: str | None = _setting(None, PATH, "key (PEM) of MQINFER_TRITON_TLS_CERT")
    triton_headers: str | None = _setting(
        None,
        HEADERS,
        "headers sent to Triton with every call, such as `authorization: Bearer ...`, separated by "
        "commas or one a line",
        secret=True,
    )
    clickhouse_url: str = _setting(
        "http://default@127.0.0.1:8123/default",
        HTTP,
        "ClickHouse's HTTP interface: user, password and database are in the URL; several, "
        "separated by commas, are replicas, of which one is used while it answers",
    )
    clickhouse_tls_ca: str | None = _setting(
        None, PATH, "certificates (PEM) that ClickHouse's own is checked against"
    )
    clickhouse_tls_cert: str | None = _setting(
        None, PATH, "client certificate (PEM) for mutual TLS"
    )
    clickhouse_tls_key: str | None = _setting(
        None, PATH, "key (PEM) of MQINFER_CLICKHOUSE_TLS_CERT"
    )
    clickhouse_cluster: str | None = _setting(
        None,
        CLUSTER,
        "cluster of ClickHouse on whose servers tables are made: as replicas, over its shards",
    )
    clickhouse_quorum: str = _setting(
        "1",
        QUORUM,
        "replicas that have rows before their messages are acknowledged; auto is most of them",
    )
    clickhouse_timeout: float = _setting(
        60.0, SECONDS, "longest that one query or insert may take; an insert is sent again then"
    )
    blobs: str = _setting(
        ".mqinfer/blobs",
        STORE,
        "where blobs are kept: a folder that all workers share, or s3://bucket/prefix or "
        "gs://bucket/prefix (extra `s3`; credentials as for every tool of that cloud, AWS_*), or "
        "nats://bucket (nats:// alone is <app>-blobs)",
    )
    blob_cache: str | None = _setting(
        None,
        CACHE,
        "where copies of blobs from s3://, gs:// or nats:// are kept, for all processes of this "
        "machine, and how much, such as /var/cache/mqinfer:10GB; may be deleted at any moment",
    )
    blob_timeout: float = _setting(
        30.0, SECONDS, "longest that reading or writing one blob may take"
    )
    request_secret: str | None = _setting(
        None,
        TEXT,
        "what the ids of requests with a key are made with, so that nobody can guess them: any "
        "text, the same for all that ask",
        secret=True,
    )
    console_token: str | None = _setting(
        None,
        TEXT,
        "what opens a console that others can reach, and lets people act on it",
        secret=True,
    )
    inline_blob_bytes: int = _setting(
        65536, BYTES, "blobs up to this size ride in the message, larger ones go to the store"
    )
    max_pixels: int = _setting(
        100_000_000, COUNT, "height x width above which a picture is refused before it is decoded"
    )
    max_image_bytes: int = _setting(
        256 * 1024 * 1024, SOME_BYTES, "encoded size above which a picture is refused"
    )
    grace: float = _setting(
        25.0, SECONDS, "how long a stopping worker may take to finish what it has begun"
    )
    stack_password: str | None = _setting(
        None, TEXT, "password that `mqinfer up` has NATS and ClickHouse want", secret=True
    )
    log_level: str = _setting(
        "info", choice("debug", "info", "warning", "error", "critical"), "least level logged"
    )
    log_format: str = _setting(
        "auto", choice("auto", "console", "json"), "auto is console on a terminal, else JSON lines"
    )
    loop: str = _setting(
        "auto",
        choice("asyncio", "uvloop", "auto"),
        "event loop; auto is what was quicker: uvloop for a gateway, if installed, else asyncio",
    )
    inference: str = _setting(
        "auto",
        choice("auto", "triton", "onnx"),
        "what serves the models of `mqinfer up`: Triton, or our own server of its protocol; auto "
        "is Triton wherever it can be had",
    )
    servers: str = _setting(
        "auto",
        choice("auto", "embedded", "path"),
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
            if field.metadata["kind"] is not PATH or value is None:
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
    def clickhouse_servers(self) -> list[str]:
        """The URLs in `clickhouse_url`."""
        return AND_HTTP.split(self.clickhouse_url)

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
            kind: Kind = field.metadata["kind"]
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
    kind: Kind = field.metadata["kind"]
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
