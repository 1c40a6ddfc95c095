"""Masking: addresses as they may be shown, without the secrets in them. Pure."""

from __future__ import annotations

import re

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
