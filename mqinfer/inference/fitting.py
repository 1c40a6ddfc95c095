"""Fitting: items as their model wants them, those that go together put into one request. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from mqinfer.errors import BadTensor, ModelError
from mqinfer.inference import padding, tensors
from mqinfer.inference.streaming import StreamCall
from mqinfer.ports import ModelInfo, ModelReply

if TYPE_CHECKING:
    from mqinfer.inference.calls import Batch, Call
    from mqinfer.model import Array, Together


class Fitting:
    """What a handle says of how its items go together, applied.

    Args:
        together: what it says.
    """

    def __init__(self, together: Together):
        self._pad = together.pad
        self._most = together.max_batch

    def most(self, info: ModelInfo) -> int:
        """Items that a request may hold."""
        if info.decoupled:
            return 1  # nothing says to which of several items a part belongs
        most = max(info.max_batch_size, 1)
        return min(most, self._most or most)

    def check(self, info: ModelInfo, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One item's inputs as they can be sent.

        Raises:
            BadTensor: they, or the declaration of the handle, do not fit the model.
            ModelError: no call fits the model.
        """
        if info.refusal is not None:
            raise ModelError(info.refusal)
        if self._pad:
            padding.require(info, self._pad)
        return tensors.check(info, inputs)

    def again(self, info: ModelInfo | None, batch: Batch) -> int | None:
        """Check the calls of a request for the metadata that holds now; one may fail.

        Returns:
            How many failed; None where they were made for it.
        """
        if info is None or all(entry.item.info is info for entry in batch):
            return None
        refused = 0
        for entry in batch:
            call = entry.item
            try:
                call.inputs = self.check(info, call.inputs)
            except (BadTensor, ModelError) as error:
                refused += 1
                call.fail(error)
            else:
                call.info = info
                entry.signature = self.signature(call)
        return refused

    def signature(self, call: Call) -> Hashable:
        """What calls must share to be in one request."""
        if isinstance(call, StreamCall):
            return StreamCall
        if self._pad:
            return padding.signature(call.info, call.inputs, self._pad)
        return tensors.signature(call.inputs)

    def fill(self, items: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
        """Items of one signature, equally long; the same object where they are so already."""
        return padding.padded(items, self._pad) if self._pad else items

    def outputs(
        self,
        info: ModelInfo,
        reply: ModelReply,
        items: Sequence[Mapping[str, Array]],
        filled: Sequence[Mapping[str, Array]],
    ) -> list[dict[str, Array]]:
        """The outputs of each item.

        Args:
            info: of the model.
            reply: to the request.
            items: as they were.
            filled: as they were sent.

        Raises:
            ModelError: the reply has not one row an item.
        """
        outputs = tensors.split(info, reply, len(items))
        if filled is not items:
            outputs = padding.cut(info, items, filled, outputs, self._pad)
        return outputs
