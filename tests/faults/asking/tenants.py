"""Tenants: two whose clients ask in turn, with a key each, and one who has jobs done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mqinfer.gateway.tenants import hashed

SECRET = "of the faults"
TENANTS = ("north", "south")
POSTS = "posts"  # has jobs done by HTTP
_KEYS = {name: f"mq_the_key_of_{name}" for name in (*TENANTS, POSTS)}


def tenant_of(number: int) -> str:
    """Whose a client is."""
    return TENANTS[number % len(TENANTS)]


def other_than(tenant: str) -> str:
    """Somebody else."""
    return TENANTS[1 - TENANTS.index(tenant)]


def key_of(tenant: str) -> Mapping[str, str]:
    """The header by which gateways know a tenant."""
    return {"authorization": f"Bearer {_KEYS[tenant]}"}


def write(file: Path) -> Path:
    """The file that gateways read."""
    text = "".join(f'[{name}]\nkeys = ["{hashed(key)}"]\n' for name, key in _KEYS.items())
    file.write_text(text)
    return file
