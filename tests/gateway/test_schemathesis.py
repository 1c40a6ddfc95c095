"""schemathesis finds nothing: the gateway does what its OpenAPI document says, and no more.

More of it by hand: `python -m tests.gateway.fuzzed --examples 1000`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mqinfer.settings import Settings
from tests.gateway.fuzzed import fuzz


async def test_schemathesis_finds_nothing(nats: Settings, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", exc_type=ImportError)
    code, said = await fuzz(nats, 2, 1, tmp_path)
    assert code == 0, said
