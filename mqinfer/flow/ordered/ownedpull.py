"""OwnedPull: the pulls of all partitions that one worker owns, as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.flow.ordered.partition import Partition


class OwnedPull:
    """A `Pull` of many.

    Args:
        owned: gives the partitions that are owned now.
        ask: asks for what each of them wants.
        closing: whether nothing is to be asked for any more.
        end: ends them.
    """

    def __init__(
        self,
        owned: Callable[[], Sequence[Partition]],
        ask: Callable[[], None],
        closing: Callable[[], bool],
        end: Callable[[], Awaitable[None]],
    ):
        self._owned = owned
        self._ask = ask
        self._closing = closing
        self._end = end

    def request(self, messages: int, max_bytes: int) -> None:
        """Ask for what every partition wants."""
        del messages, max_bytes  # their sums
        self._ask()

    @property
    def paused(self) -> bool:
        """Whether nothing can be asked for."""
        return self._closing()

    @property
    def requests(self) -> int:
        """Requests that are open."""
        return sum(one.pull.requests for one in self._owned() if one.pull is not None)

    async def close(self) -> None:
        """Stop taking messages; those that still arrive are given to `on_message`."""
        await self._end()

    def __repr__(self) -> str:
        return f"OwnedPull({len(self._owned())} partitions)"
