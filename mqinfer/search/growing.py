"""Growing: arrays to which one thread appends while others read what was there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 1024


class Growing:
    """An array that grows at its end, by values or by rows.

    What `upto` gave stays as it is, whatever is appended: room for more is made in another array.

    Args:
        dtype: of the elements.
        begin: what it begins with.
        width: of a row; 0 where elements are values.
    """

    def __init__(
        self, dtype: Any, begin: Sequence[Any] | NDArray[Any] | None = None, width: int = 0
    ):
        first = np.asarray(() if begin is None else begin, dtype=dtype)
        shape = (0, width) if width else (0,)
        self._array: NDArray[Any] = first if first.size else np.empty(shape, dtype)
        self.count = len(self._array)

    def add(self, value: Any) -> None:
        """Append one."""
        if self.count == len(self._array):
            room = max(_FIRST, len(self._array) * 3 // 2)
            larger = np.empty((room, *self._array.shape[1:]), self._array.dtype)
            larger[: self.count] = self._array
            self._array = larger
        self._array[self.count] = value
        self.count += 1

    def upto(self, count: int) -> NDArray[Any]:
        """The first `count`, without a copy."""
        return self._array[:count]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(self._array.nbytes)
