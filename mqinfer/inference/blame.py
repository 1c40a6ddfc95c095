"""Blame: finds the item that brings the server or the model down, among those that got no answer.

Keeps promise 4: they go again in smaller requests, with no other beside, until one is alone. One
that gets no answer again and again, while there were signs of life between, is at fault.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mqinfer.errors import ModelError, Unavailable
from mqinfer.inference.calls import Batch, Call, Losses, ServerLost

if TYPE_CHECKING:
    from mqinfer.model import Array

# Items whose answer broke off, and which are known when they come again.
_KNOWN = 256


class Blame:
    """Who may be at fault of the losses of one model.

    Args:
        model: its name.
        signs_of_life: of server and model: another value than before says that they lived since.
        clock: monotonic seconds.
    """

    def __init__(self, model: str, signs_of_life: Callable[[], object], clock: Callable[[], float]):
        self._model = model
        self._signs_of_life = signs_of_life
        self._clock = clock
        # By content, since an item whose answer broke off comes again as another call.
        self._known: OrderedDict[bytes, Losses] = OrderedDict()

    def lost(self, batch: Batch, error: Unavailable) -> bool:
        """A request got no answer; whether its only item was at fault, and has this answer."""
        if batch[0].item.innocent:
            return False
        for entry in batch:
            entry.batch_limit = max(1, len(batch) // 2)
        return len(batch) == 1 and self._alone(batch[0].item, error)

    def recall(self, call: Call) -> None:
        """An item comes whose like may have been lost."""
        if self._known:
            call.losses = self._known.get(_content(call.inputs))

    def answered(self, call: Call) -> None:
        """An item that `recall` was asked about was answered to the end."""
        if self._known:
            self._known.pop(_content(call.inputs), None)

    def _alone(self, call: Call, error: Unavailable) -> bool:
        losses = call.losses = call.losses or Losses()
        if call.given:
            self._known[_content(call.inputs)] = losses
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        others = error.signs_of_life if isinstance(error, ServerLost) else 0
        at_fault = losses.again((self._signs_of_life(), others), self._clock())
        if at_fault:
            call.fail(
                ModelError(
                    f"model {self._model}: {losses.count} times no answer came while this item was "
                    f"alone in its request, and the server was ready again; the last time: {error}"
                )
            )
        return at_fault


def _content(inputs: Mapping[str, Array]) -> bytes:
    """The same for the same item."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in inputs.items():
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        # The bytes of an array of objects are addresses.
        found.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return found.digest()
