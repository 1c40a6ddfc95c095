"""For all tests of the console: what dies here by the hundred is not drawn with its frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[object]]:
    """What is logged."""
    with structlog.testing.capture_logs() as found:
        yield found
