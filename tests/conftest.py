"""Fixtures that several files share: real servers on random ports, in folders of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from mqinfer.settings import Settings
from mqinfer.testing import nats_only


@pytest_asyncio.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a nats-server that this test has for itself."""
    async with nats_only(tmp_path / "stack") as settings:
        yield settings
