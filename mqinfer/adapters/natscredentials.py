"""Credentials: the options of a NATS connection that say who connects, and their files checked."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.settings import Settings

# Line by line, as nats-py reads it.
_CREDS = re.compile(
    r"BEGIN NATS USER JWT[^\n]*\n\S+\r?\n.*BEGIN USER NKEY SEED[^\n]*\n(\S+)\r?\n", re.DOTALL
)


def credentials(settings: Settings) -> dict[str, Any]:
    """What of nats-py's options says who connects.

    Raises:
        ConfigurationError: a file of credentials or certificates cannot be used.
    """
    plain = {
        "user": settings.nats_user,
        "password": settings.nats_password,
        "token": settings.nats_token,
    }
    options: dict[str, Any] = {name: value for name, value in plain.items() if value}
    for name, path in (
        ("user_credentials", settings.nats_creds),
        ("nkeys_seed", settings.nats_nkey),
    ):
        if path:
            if not Path(path).is_file():
                raise ConfigurationError(f"NATS credentials: {path} is not a file")
            try:
                import nkeys  # noqa: F401
            except ImportError:
                raise ConfigurationError(
                    "NATS creds and nkeys need one more package: pip install 'mqinfer[nkeys]'"
                ) from None
            _check_keys(path, creds=name == "user_credentials")
            options[name] = path
    if settings.nats_inbox_prefix:
        options["inbox_prefix"] = settings.nats_inbox_prefix
    if settings.nats_tls_ca or settings.nats_tls_cert:
        options["tls"] = _tls(settings.nats_tls_ca, settings.nats_tls_cert, settings.nats_tls_key)
    return options


def _check_keys(path: str, *, creds: bool) -> None:
    """Refuse a file without keys; nats-py would look for them for ever.

    Raises:
        ConfigurationError: naming the file, and nothing of what is in it.
    """
    import nkeys

    variable = f"MQINFER_NATS_{'CREDS' if creds else 'NKEY'}={path!r}"
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{variable} cannot be read: {type(problem).__name__}") from None
    seed = text.strip()
    if creds:
        found = _CREDS.search(text)
        if found is None:
            raise ConfigurationError(
                f"{variable} is no credentials file: it needs a block BEGIN NATS USER JWT and a "
                "block BEGIN USER NKEY SEED"
            )
        seed = found.group(1)
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:  # noqa: BLE001 - whatever it is, its text may hold the seed
        raise ConfigurationError(f"{variable} holds no valid seed of an nkey (SU...)") from None


def _tls(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(f"NATS TLS files: {problem}") from None
    return context
