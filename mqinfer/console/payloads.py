"""Payloads: what is stored, as text that a page can show. Pure.

It is somebody's input and may be anything: it becomes text, of a bounded length, which a template
escapes; and nothing else.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

MOST: Final = 20_000  # characters that are shown
_STRING: Final = 400  # characters of a text in it
_HEAD: Final = 1024  # bytes of what is no text


def text(payload: bytes, content_type: str | None) -> str:
    """A payload as a person reads it."""
    found = _structured(payload, content_type)
    if found is not None:
        shown = json.dumps(shorter(found), indent=2, ensure_ascii=False, default=_other)
    else:
        try:
            shown = payload.decode()
        except UnicodeDecodeError:
            shown = _hexadecimal(payload)
    # Control characters, and those that turn the direction of writing, are shown by their names.
    return "".join(
        char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in shown[:MOST]
    )


def shorter(value: Any) -> Any:
    """The same, where long texts are cut short."""
    if isinstance(value, str) and len(value) > _STRING:
        return f"{value[: _STRING // 4]}… ({len(value):,} characters)"
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, dict):
        return {str(key): shorter(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shorter(one) for one in value]
    return value


def _structured(payload: bytes, content_type: str | None) -> Any:
    decode = msgspec.msgpack.decode if "msgpack" in (content_type or "") else msgspec.json.decode
    try:
        return decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _other(value: Any) -> str:
    return str(value)


def _hexadecimal(payload: bytes) -> str:
    head = payload[:_HEAD]
    lines = [
        f"{at:06x}  {head[at : at + 16].hex(' '):<47}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in head[at : at + 16])
        for at in range(0, len(head), 16)
    ]
    more = f"\n… {len(payload):,} bytes in all" if len(payload) > _HEAD else ""
    return "\n".join(lines) + more
