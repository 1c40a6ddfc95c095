"""Names that go with the next release: what stands behind those that it may not import itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# `mqinfer.connect`, which puts itself here for `App.connect`.
connector: Callable[..., Any] | None = None
