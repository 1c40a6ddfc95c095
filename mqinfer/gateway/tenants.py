"""Tenants: who may ask, by keys of which only hashes are known here.

The file is TOML, and is read again when it changes, so that keys come and go without a restart:

    [acme]
    keys = ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]

Keys are random and long (`new_key`), so that one hash without a salt is enough: there is nothing to
guess.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import structlog

from mqinfer.blob import checked_path
from mqinfer.errors import BlobPathError, ConfigurationError

log = structlog.get_logger("mqinfer.gateway")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LOOK = 1.0  # seconds between looks at the file


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody who may ask.

    Attributes:
        name: "" where nobody has to say who they are.
        prefix: of the paths of blobs that are theirs, with a slash at its end.
    """

    name: str
    prefix: str


ANYBODY = Tenant("", "uploads/")


def new_key() -> tuple[str, str]:
    """A key, and what the file holds of it."""
    key = f"mq_{secrets.token_urlsafe(32)}"
    return key, hashed(key)


def hashed(key: str) -> str:
    """What the file holds of a key."""
    return f"sha256:{sha256(key.encode()).hexdigest()}"


class Tenants:
    """Those in a file; without one everybody is `ANYBODY`.

    Args:
        file: of hashes.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.monotonic):
        self._file = file
        self._clock = clock
        self._looked = clock()
        self._stamp = self._stat()
        self._known: list[tuple[str, Tenant]] = [] if file is None else read(file)

    @property
    def needed(self) -> bool:
        """Whether one has to say who one is."""
        return self._file is not None

    def of(self, key: str | None) -> Tenant | None:
        """Whose a key is; None where it is nobody's.

        Args:
            key: as it was sent; None where none was.
        """
        if self._file is None:
            return ANYBODY
        self._refresh()
        given, found = hashed(key or ""), None
        for known, tenant in self._known:
            if hmac.compare_digest(known, given):
                found = tenant
        return None if key is None else found

    def _refresh(self) -> None:
        if self._file is None or (now := self._clock()) < self._looked + _LOOK:
            return
        self._looked = now
        if (stamp := self._stat()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read(self._file)
        except ConfigurationError as error:
            log.warning("the keys stay as they were", reason=str(error))
        else:
            log.info("the keys were read again", tenants=len({one.name for _, one in self._known}))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def read(file: Path) -> list[tuple[str, Tenant]]:
    """The hashes in a file, with whose they are.

    Raises:
        ConfigurationError: it cannot be read, or what is wrong in it.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read the keys in {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"the keys in {file} are no TOML: {error}") from None
    found: dict[str, Tenant] = {}
    for name, table in tables.items():
        tenant = _tenant(file, name, table)
        for one in table["keys"]:
            if not isinstance(one, str) or not _HASH.fullmatch(one):
                raise ConfigurationError(
                    f"{file}: a key of {name} is no `sha256:<64 hexadecimal digits>`: make one "
                    "with `mqinfer gateway --new-key`"
                )
            if found.setdefault(one, tenant) is not tenant:
                raise ConfigurationError(f"{file}: {name} and {found[one].name} share a key")
    prefixes = sorted({(one.prefix, one.name) for one in found.values()})
    for (outer, one), (inner, other) in pairwise(prefixes):
        if inner.startswith(outer):
            raise ConfigurationError(f"{file}: the files of {other} lie among those of {one}")
    return list(found.items())


def _tenant(file: Path, name: str, table: object) -> Tenant:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{file}: [{name}] is no name: letters, digits, - and _")
    if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
        raise ConfigurationError(f"{file}: [{name}] needs `keys`, a list of hashes")
    if unknown := set(table) - {"keys", "prefix"}:
        raise ConfigurationError(f"{file}: [{name}] has no setting {', '.join(sorted(unknown))}")
    prefix = table.get("prefix", f"tenants/{name}")
    try:
        if not isinstance(prefix, str):
            raise BlobPathError("a prefix is text")  # noqa: TRY301
        return Tenant(name, checked_path(prefix.rstrip("/")) + "/")
    except BlobPathError as error:
        raise ConfigurationError(f"{file}: the prefix of [{name}]: {error}") from None
