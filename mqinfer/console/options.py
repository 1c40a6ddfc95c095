"""Options: how one console serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mqinfer.errors import ConfigurationError

_SHORT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a console serves.

    Attributes:
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        token: that whoever acts, and on other addresses than loopback whoever looks, has to know;
            "" makes one that ends with the process.
        read_only: nothing can be done, whoever asks.
        tls_cert: certificate chain (PEM); None serves without TLS.
        tls_key: its key (PEM).
        max_connections: that are open at a time; each tab has one.
        grace: seconds that requests under way get when the server stops.

    Raises:
        ConfigurationError: these contradict each other.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    token: str = ""
    read_only: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 500
    grace: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key belong together: give both")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise ConfigurationError(f"{file}: there is no such file")
        if self.token and len(self.token) < _SHORT:
            raise ConfigurationError(
                f"the token has less than {_SHORT} characters, which can be guessed: take a longer "
                "one, such as `openssl rand -hex 16` makes"
            )
        if not self.local and not self.token:
            raise ConfigurationError(
                f"on {self.host} others can reach the console: give it a token, with --token or "
                "MQINFER_CONSOLE_TOKEN"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host.startswith(("127.", "::1", "localhost"))


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `PORT` or `[::1]:PORT` as host and port.

    Raises:
        ConfigurationError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"--http takes HOST:PORT, such as 127.0.0.1:8090, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
