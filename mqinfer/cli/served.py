"""What Triton serves, for the commands that are given versions of models."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.ports import ModelVersion
    from mqinfer.settings import Settings


async def asked_triton(settings: Settings) -> list[ModelVersion]:
    """What Triton has in its repository.

    Raises:
        Unavailable: it does not answer, or does not say.
    """
    from mqinfer import wiring

    async with AsyncExitStack() as stack:
        server = wiring.triton(settings)
        stack.push_async_callback(server.close)
        return await server.versions()
