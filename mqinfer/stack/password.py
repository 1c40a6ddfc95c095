"""The password that the stack's servers want on a machine that others use, too."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from mqinfer.stack.errors import StackConfigurationError

# It stands in URLs and in NATS's configuration, where everything else means something.
_TEXT = re.compile(r"[A-Za-z0-9._~-]{8,128}")
USER = "mqinfer"


def resolve(password: str | None, folder: Path) -> str:
    """Give the password in use; empty for none.

    Args:
        password: None for none, a text, or an empty one: then that of the last start, or a new one.
        folder: Where one that was made up is kept, readable by its owner only; to be there.

    Raises:
        StackConfigurationError: It has characters that do not belong into URLs, or is too short.
    """
    if password is None:
        return ""
    if password:
        if not _TEXT.fullmatch(password):
            raise StackConfigurationError(
                "the stack's password must be 8 to 128 letters, digits and any of . _ ~ -"
            )
        return password
    file = folder / "password"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        made = secrets.token_urlsafe(18)
        write_private(file, made + "\n")
        return made


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first moment on."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
