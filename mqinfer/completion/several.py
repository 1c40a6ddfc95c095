"""Several: those who wait for roots in different ways, as one to the tracker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.completion.assemble import Tale
    from mqinfer.completion.progress import Progress
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.completion.tracker import Waiting


class Several:
    """See `completion.tracker.Waiting`; each type of root is waited for in one way.

    Args:
        ways: that roots are waited for.
    """

    def __init__(self, ways: Sequence[Waiting]):
        self._ways = ways
        self._by_name: dict[str, Waiting] = {}

    def names(self, kind: str) -> Sequence[str]:
        """Those who wait for the roots of a type."""
        for way in self._ways:
            if names := way.names(kind):
                self._by_name.update(dict.fromkeys(names, way))
                return names
        return ()

    def wanted(self, name: str) -> Collection[str]:
        """The subjects of the outputs that one of them asks for."""
        return self._by_name[name].wanted(name)

    def heeds_first(self, name: str) -> bool:
        """Whether of all that one of them is told of a root only the first counts."""
        return self._by_name[name].heeds_first(name)

    def advance(self, name: str, root: Root, records: Sequence[Record], known: Progress) -> None:
        """Something below a root is settled, and not all."""
        self._by_name[name].advance(name, root, records, known)

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        """Tell one of them."""
        await self._by_name[name].tell(name, root, told)
