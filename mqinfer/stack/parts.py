"""Parts: NATS, a server of models and ClickHouse, and which program is each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mqinfer.stack.errors import NotInstalled, StackConfigurationError, StackError
from mqinfer.stack.server import Server

S = TypeVar("S", bound=Server)


class Part(Generic[S]):
    """One server of the stack, and the programs that may be it, on the same ports.

    Args:
        candidates: The best first. One that is not installed, is not as mqinfer needs it or does
            not start leaves its place to the next.

    Attributes:
        server: The one that is it: the best, until it turns out that it cannot be.
    """

    def __init__(self, candidates: Sequence[S]) -> None:
        self._candidates = list(candidates)
        self.server = self._candidates[0]

    async def choose(self, say: Callable[[str], None]) -> None:
        """Take the first of the candidates that is here and as mqinfer needs it; starts nothing.

        Args:
            say: Gets a line for each that is here, and is not taken.

        Raises:
            StackConfigurationError: What is wrong with the last of them.
        """
        while True:
            server = self.server = self._candidates[0]
            try:
                # In a thread, as programs are asked for their versions.
                await asyncio.to_thread(server.check)
            except StackConfigurationError as error:
                if len(self._candidates) == 1:
                    raise
                self._pass(str(error), say, quietly=isinstance(error, NotInstalled))
            else:
                return

    async def start(self, timeout: float, say: Callable[[str], None]) -> None:
        """Start it and wait until it is ready; the next candidate instead of one that does not.

        Args:
            timeout: How long each may take, in seconds.
            say: Gets a line for each that is here, and is not taken, and for each crash.

        Raises:
            StackError: Why the last of them does not start.
        """
        while True:
            try:
                await self.server.bring_up(timeout, say)
            except StackError as error:
                if len(self._candidates) == 1:
                    raise
                await self.server.stop()
                self._pass(str(error), say)
                await self.choose(say)
            else:
                return

    def _pass(self, reason: str, say: Callable[[str], None], *, quietly: bool = False) -> None:
        """Go on to the next candidate."""
        passed = self._candidates.pop(0)
        if not quietly:
            instead = self._candidates[0]
            say(f"warning: {passed.label} is not used, but {instead.label}: {reason}")
