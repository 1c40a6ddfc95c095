"""Options: how one gateway serves; what several of them share is in the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mqinfer.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a gateway serves.

    Attributes:
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        keys: file of the tenants' hashed keys; None lets everybody ask.
        origins: of pages that may use this server, such as https://example.org.
        site: folder of pages to serve beside the API, without a key; None serves none.
        tls_cert: certificate chain (PEM); None serves without TLS.
        tls_key: its key (PEM).
        max_body: bytes of a JSON body.
        max_upload: bytes of a body with files.
        max_wait: seconds that a client may wait for an answer.
        max_backlog: messages that may be open behind an endpoint; None is no limit.
        fetch_from: hosts that files may be fetched from.
        private: whether private addresses may be fetched from, over http too.
        max_connections: that are open at a time.
        grace: seconds that requests under way get when the server stops.

    Raises:
        ConfigurationError: these contradict each other.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    site: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body: int = 1024 * 1024
    max_upload: int = 64 * 1024 * 1024
    max_wait: float = 60.0
    max_backlog: int | None = 10_000
    fetch_from: tuple[str, ...] = ()
    private: bool = False
    max_connections: int = 20_000
    grace: float = 25.0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key belong together: give both")
        for file in (self.tls_cert, self.tls_key, self.keys):
            if file is not None and not file.is_file():
                raise ConfigurationError(f"{file}: there is no such file")
        if self.site is not None and not self.site.is_dir():
            raise ConfigurationError(f"--site {self.site}: there is no such folder")
        for origin in self.origins:
            scheme, mark, host = origin.partition("://")
            if scheme not in ("http", "https") or not mark or not host or "/" in host:
                raise ConfigurationError(
                    f"--cors-origin {origin!r} is no origin: write it as https://example.org"
                )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host.startswith(("127.", "::1", "localhost"))
