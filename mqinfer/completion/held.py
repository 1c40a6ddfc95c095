"""Held: what one tracker has seen of roots that are open, so that it need not be read again.

The roots that nothing was heard of for longest are let go where it becomes too much; whatever is
not held is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

MEMORY = 64 * 1024 * 1024  # bytes, of all roots
EACH = 300  # bytes that a root, or a payload, takes beside its own


class Held:
    """Roots by their tokens.

    Attributes:
        known: the values of their keys as this tracker believes them to be, and their revisions.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[bytes, int]] = {}
        self._roots: OrderedDict[str, _Root] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """Bytes, about."""
        return self._bytes

    def add(self, token: str, payloads: Sequence[bytes]) -> None:
        """Hold payloads with records; what comes again may be held twice, which changes nothing."""
        root = self._roots.get(token)
        if root is None:
            root = self._roots[token] = _Root()
            # Most are new. Where another tracker has seen it, that is found out as it is written.
            self.known.setdefault(token, (b"", 0))
        else:
            self._roots.move_to_end(token)
        root.payloads += payloads
        self._grow(root, sum(map(len, payloads)) + EACH * len(payloads))

    def weigh(self, token: str) -> None:
        """What is known of a root has changed."""
        root = self._roots.get(token)
        if root is None:
            self.known.pop(token, None)
            return
        value, _ = self.known.get(token, (b"", 0))
        before, root.value = root.value, EACH + len(value)
        self._grow(root, root.value - before)

    def of(self, token: str) -> Sequence[bytes]:
        """The payloads of a root."""
        root = self._roots.get(token)
        return () if root is None else root.payloads

    def drop(self, token: str) -> None:
        """Nobody asks for it any more."""
        self.known.pop(token, None)
        root = self._roots.pop(token, None)
        if root is not None:
            self._bytes -= root.size

    def _grow(self, root: _Root, size: int) -> None:
        root.size += size
        self._bytes += size
        while self._bytes > MEMORY and self._roots:
            self.drop(next(iter(self._roots)))


class _Root:
    """One of them: its payloads, and the bytes that it takes, those of its key among them."""

    __slots__ = ("payloads", "size", "value")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.size = 0
        self.value = 0
