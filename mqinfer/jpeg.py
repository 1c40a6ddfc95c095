"""JPEGs by simplejpeg, where it is installed: as OpenCV decodes them, in less time.

OpenCV's Python interface makes one copy of each picture more, on fresh memory. Both have
libjpeg-turbo inside, and set it the same way, so that the pixels are the same, bit for bit. What
simplejpeg does not take at once (damaged, CMYK, a size of another kind) is left to OpenCV, which
alone decides what is refused: a worker that has simplejpeg gives what one without it gives.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNKNOWN = object()
_module: Any = _UNKNOWN


def decode_jpeg(data: bytes, height: int, width: int, factor: int) -> NDArray[np.uint8] | None:
    """The pixels at 1/`factor` of the size, as RGB; None where OpenCV is to be asked.

    Args:
        data: the file, whose header was checked.
        height: that it says.
        width: that it says.
        factor: 1, 2, 4 or 8.

    Raises:
        MemoryError: there is none for the pixels.
    """
    global _module
    if _module is _UNKNOWN:
        try:
            _module = importlib.import_module("simplejpeg")
        except ImportError:
            _module = None
    if _module is None:
        return None
    # As libjpeg rounds. It takes the smallest of its sizes that is no less: this very one.
    high, wide = -(-height // factor), -(-width // factor)
    try:
        pixels: NDArray[np.uint8] = _module.decode_jpeg(
            data, "RGB", min_height=high, min_width=wide, min_factor=1
        )
    except ValueError:
        return None
    return pixels if pixels.shape == (high, wide, 3) else None
