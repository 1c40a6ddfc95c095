"""Seen: open requests as the server gave them to this worker, so that to end one needs no reading.

Those that were seen longest ago are let go where it becomes too much; what is not here is read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mqinfer.requests import places
from mqinfer.requests.kept import root_of

if TYPE_CHECKING:
    from mqinfer.completion.roots import Root
    from mqinfer.requests.state import State

MEMORY: Final = 16 * 1024 * 1024  # bytes of all
_EACH: Final = 500  # bytes that one takes beside its own


class Seen:
    """Keys, values and revisions of open requests, by the roots that they are."""

    def __init__(self) -> None:
        self._states: OrderedDict[Root, tuple[str, bytes, int]] = OrderedDict()
        self._bytes = 0

    def add(self, state: State, value: bytes, revision: int) -> None:
        """A request was given out; one that has ended is known no more."""
        root = root_of(state)
        self.take(root)
        if not state.open:
            return
        self._states[root] = places.key_of(state.id), value, revision
        self._bytes += len(value) + _EACH
        while self._bytes > MEMORY:
            self.take(next(iter(self._states)))

    def take(self, root: Root) -> dict[str, tuple[bytes, int]]:
        """Take out what is known of a request: value and revision by its key; or nothing."""
        found = self._states.pop(root, None)
        if found is None:
            return {}
        key, value, revision = found
        self._bytes -= len(value) + _EACH
        return {key: (value, revision)}

    def __len__(self) -> int:
        """Bytes, about."""
        return self._bytes
