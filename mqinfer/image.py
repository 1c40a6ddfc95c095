"""Pictures: checked from their header, decoded off the event loop, encoded.

Nothing of a file is decoded before its header said how many pixels it holds and its structure
that it is whole. OpenCV is imported when the first picture is decoded.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mqinfer.errors import BadImage
from mqinfer.imageheader import Header, HeaderError, read_header
from mqinfer.jpeg import decode_jpeg
from mqinfer.processors import usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

Depth = Literal["uint8", "uint16"]
_DEEP = 1 << 14  # a picture of 16 bits with nothing above is one of fewer bits, in 16

MAX_PIXELS = 100_000_000
"""Height x width a picture may have unless the settings say otherwise."""
MAX_BYTES = 256 * 1024 * 1024
"""Size an encoded picture may have unless the settings say otherwise."""

_max_pixels = MAX_PIXELS
_max_bytes = MAX_BYTES
_pool: ThreadPoolExecutor | None = None
_cv2: Any = None


def configure(*, max_pixels: int | None = None, max_bytes: int | None = None) -> None:
    """Set the limits of this process, from its settings; None leaves one as it is."""
    global _max_pixels, _max_bytes
    _max_pixels = max_pixels or _max_pixels
    _max_bytes = max_bytes or _max_bytes


def max_image_bytes() -> int:
    """The size that an encoded picture may have in this process."""
    return _max_bytes


def check_image(
    data: bytes, *, name: str, min_side: int = 1, max_pixels: int | None = None
) -> tuple[int, int]:
    """Height and width from the file's header; no pixel is decoded.

    Args:
        data: the file.
        name: what to call it in errors, usually the blob's path.
        min_side: fewer pixels than this in height or width are refused.
        max_pixels: limit for height x width; None takes the process's limit.

    Returns:
        `(height, width)` as stored: an EXIF rotation may swap them.

    Raises:
        BadImage: empty, cut off, too small, too large or of an unknown format.
    """
    header = _checked(data, name, min_side, max_pixels)
    return header.height, header.width


def _checked(data: bytes, name: str, min_side: int, max_pixels: int | None) -> Header:
    limit = _max_pixels if max_pixels is None else max_pixels
    if len(data) > _max_bytes:
        raise BadImage(
            f"the picture {name} has {len(data)} bytes, more than the limit of {_max_bytes}: "
            "raise MQINFER_MAX_IMAGE_BYTES, or store smaller pictures"
        )
    try:
        header = read_header(data)
    except HeaderError as error:
        raise BadImage(f"the picture {name} {error}") from None
    size = f"the picture {name} has {header.width} x {header.height} pixels"
    if header.height * header.width > limit:
        raise BadImage(
            f"{size}, {header.height * header.width:,} in all, more than the limit of {limit:,}: "
            "raise MQINFER_MAX_PIXELS (or the max_pixels of this call), or store smaller pictures"
        )
    if header.damage:
        raise BadImage(f"the picture {name} {header.damage}")
    if min(header.height, header.width) < min_side:
        raise BadImage(f"{size}, but each side must have at least {min_side}")
    return header


def decode(
    data: bytes,
    *,
    name: str = "picture",
    min_side: int = 1,
    max_pixels: int | None = None,
    target: int | None = None,
    size: tuple[int, int] | None = None,
    dtype: Depth = "uint8",
) -> Pixels:
    """The pixels of a PNG, JPEG, WebP, BMP or TIFF file (GIF where OpenCV reads it).

    Grey and palette become RGB, alpha is dropped (the colors are those that are stored), an EXIF
    orientation is applied. 16 bits become 8 by their upper half, unless that would leave next to
    nothing of them: a picture that uses less than a quarter of the 16 bits' range, as one of 10 or
    12 bits in 16 does, is refused with the advice to ask for "uint16".

    Args:
        data: the file.
        name: what to call it in errors, usually the blob's path.
        min_side: fewer pixels than this in height or width are refused.
        max_pixels: limit for height x width, checked from the header; None takes the process's
            limit.
        target: the shortest side that is needed. A JPEG larger than that is decoded at 1/2, 1/4 or
            1/8 of its size, which takes a fraction of the time; never below `target`.
        size: height and width that are wanted, whatever the picture's are: it is shrunk by the mean
            of the area that each pixel stands for (`cv2.INTER_AREA`), or enlarged. A JPEG is
            decoded at a part of its size as far as that is more.
        dtype: "uint16" gives 16 bits as they are stored, and 8 bits multiplied by 257, so that
            white is 65535.

    Returns:
        array `[height, width, 3]` of `dtype`, RGB.

    Raises:
        BadImage: empty, cut off, damaged, too small, too large, of an unknown format, or of 16
            bits that would not survive as 8.
        ValueError: `dtype` is neither, or `size` cannot be.
    """
    if dtype not in ("uint8", "uint16"):
        raise ValueError(f"pixels are 'uint8' or 'uint16', not {dtype!r}")
    if size is not None:
        _require_size(size, target)
    header = _checked(data, name, min_side, max_pixels)
    cv2 = _opencv()
    stored = size  # height and width before it is turned upright
    if size is not None and header.orientation >= 5:
        stored = size[1], size[0]
    factor = _factor(header, stored if target is None else (target, target))
    pixels = None
    if header.format == "JPEG":
        pixels = decode_jpeg(data, header.height, header.width, factor)
    if pixels is None:
        pixels = _decoded(cv2, data, header, factor, name)
    pixels = _of_depth(pixels, dtype, name)
    if stored is not None and pixels.shape[:2] != stored:
        # Before it is turned: that is less to turn.
        pixels = cv2.resize(pixels, stored[::-1], interpolation=cv2.INTER_AREA)
    result: Pixels = _upright(cv2, pixels, header.orientation)
    return result


def _decoded(cv2: Any, data: bytes, header: Header, factor: int, name: str) -> Any:
    """The pixels as OpenCV decodes them, RGB, at 1/`factor` of the size.

    Raises:
        BadImage: it cannot.
        MemoryError: there is none for them.
    """
    import numpy as np

    try:
        pixels = cv2.imdecode(
            np.frombuffer(_straight(data, header), np.uint8), _flags(cv2, header, factor)
        )
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:  # says nothing about the picture: try again
            raise MemoryError(f"no memory to decode the picture {name}") from None
        raise BadImage(f"the picture {name} cannot be decoded: {error.err}") from None
    if pixels is None:
        why = "its data is damaged or of a kind that OpenCV does not read"
        if header.format == "GIF":
            why = "this OpenCV does not support GIF, or it is damaged; convert it to PNG"
        raise BadImage(
            f"the picture {name} is a {header.format} of {header.width} x {header.height} pixels "
            f"that cannot be decoded: {why}"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if header.depth > 8 else pixels


def _require_size(size: tuple[int, int], target: int | None) -> None:
    """Refuse what no picture can be made of.

    Raises:
        ValueError: saying what a size is.
    """
    if target is not None:
        raise ValueError("pixels take target (the least side) or size (both sides), not both")
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"a size is (height, width), two whole numbers above 0, not {size!r}")
    if size[0] * size[1] > _max_pixels:
        raise ValueError(
            f"a size of {size[0]} x {size[1]} has more than the limit of {_max_pixels:,} pixels: "
            "raise MQINFER_MAX_PIXELS"
        )


def _straight(data: bytes, header: Header) -> bytes:
    """The file as OpenCV is to read it.

    libtiff multiplies colors by an alpha that the file calls separate. They are kept as they are
    where it is called part of them.
    """
    at = header.alpha_at
    if at is None:
        return data
    return data[:at] + (b"\1\0" if data[:2] == b"II" else b"\0\1") + data[at + 2 :]


def _of_depth(pixels: Any, dtype: Depth, name: str) -> Any:
    """The pixels as `dtype`.

    Raises:
        BadImage: 8 bits would leave next to nothing of what 16 hold.
    """
    if pixels.dtype == dtype:
        return pixels
    if pixels.dtype not in ("uint8", "uint16"):
        raise BadImage(f"the picture {name} has pixels of {pixels.dtype}: store 8 or 16 bits")
    if dtype == "uint16":
        return pixels.astype(dtype) * 257
    most = int(pixels.max())
    if most < _DEEP and (pixels % 257).any():
        raise BadImage(
            f"the picture {name} has 16 bits a color and uses 0 to {most} of 65535: in 8 bits "
            f'{(most >> 8) + 1} levels would be left; ask for pixels(dtype="uint16")'
        )
    return (pixels >> 8).astype(dtype)


def _factor(header: Header, least: tuple[int, int] | None) -> int:
    """At which part of its size a JPEG is decoded: no smaller than that height and width."""
    if least is not None and header.format == "JPEG":
        for factor in (8, 4, 2):
            if header.height // factor >= least[0] and header.width // factor >= least[1]:
                return factor
    return 1


def _flags(cv2: Any, header: Header, factor: int) -> int:
    flags = int(cv2.IMREAD_COLOR_RGB)
    if header.depth > 8:  # OpenCV 4.11 makes noise of a TIFF of 16 bits that is asked for as RGB
        flags = int(cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    # OpenCV's releases differ in which formats' orientation they apply: ours do not. TIFF is left
    # to libtiff, which knows more ways to store rows.
    if header.format == "TIFF":
        return flags
    if factor > 1:
        flags |= getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{factor}")  # the bit of the factor
    return flags | int(cv2.IMREAD_IGNORE_ORIENTATION)


def _upright(cv2: Any, pixels: Any, orientation: int) -> Any:
    """Undo what EXIF's orientation says: 2 to 4 are flips, 5 to 8 also swap rows and columns."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    if orientation in (2, 6):
        return cv2.flip(pixels, 1)
    if orientation in (3, 7):
        return cv2.flip(pixels, -1)
    return cv2.flip(pixels, 0) if orientation in (4, 8) else pixels


async def decode_off_loop(data: bytes, **options: Any) -> Pixels:
    """`decode` in a thread; at most as many at once as there are processors.

    OpenCV releases the interpreter's lock, so the event loop goes on. The bound also bounds memory:
    each running call takes up to 3 bytes a pixel, or 9 of a picture of 16 bits.

    Args:
        data: as in `decode`.
        options: so for the others.

    Raises:
        BadImage: as `decode`.
    """
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(usable(), thread_name_prefix="mqinfer-image")
    work = partial(decode, data, **options)
    return await asyncio.get_running_loop().run_in_executor(_pool, work)


def encode_png(pixels: Pixels, *, compression: int = 3) -> bytes:
    """A PNG of RGB `[H, W, 3]`, RGBA `[H, W, 4]` or grey `[H, W]` pixels.

    Args:
        pixels: uint8 array.
        compression: 0 (fast, large) to 9 (slow, small).

    Raises:
        ValueError: the array has another dtype or shape.
    """
    cv2 = _opencv()
    return _encode(cv2, ".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, compression])


def encode_jpeg(pixels: Pixels, *, quality: int = 92) -> bytes:
    """A JPEG of RGB `[H, W, 3]` or grey `[H, W]` pixels; an alpha channel is dropped.

    Args:
        pixels: uint8 array.
        quality: 1 to 100.

    Raises:
        ValueError: the array has another dtype or shape.
    """
    cv2 = _opencv()
    return _encode(cv2, ".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(cv2: Any, suffix: str, pixels: Any, options: list[int]) -> bytes:
    shape = tuple(getattr(pixels, "shape", ()))
    channels = 1 if len(shape) == 2 else shape[2] if len(shape) == 3 else 0
    if channels not in (1, 3, 4) or 0 in shape or str(pixels.dtype) != "uint8":
        raise ValueError(
            "a picture is made of uint8 pixels [H, W], [H, W, 3] or [H, W, 4], not of "
            f"{getattr(pixels, 'dtype', type(pixels).__name__)} {list(shape)}"
        )
    if channels == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    elif channels == 4:
        pixels = cv2.cvtColor(
            pixels, cv2.COLOR_RGBA2BGRA if suffix == ".png" else cv2.COLOR_RGBA2BGR
        )
    done, encoded = cv2.imencode(suffix, pixels, options)
    if not done:  # pragma: no cover - OpenCV raises for everything known
        raise ValueError(f"OpenCV cannot write pixels {list(shape)} as {suffix}")
    data: bytes = encoded.tobytes()
    return data


def _opencv() -> Any:
    """The module `cv2`, imported on first use.

    It prints a line on stderr for every picture that it cannot read, in the middle of the logs;
    the error that we raise says the same. `OPENCV_LOG_LEVEL` brings the lines back.
    """
    global _cv2
    if _cv2 is None:
        import cv2

        if "OPENCV_LOG_LEVEL" not in os.environ:
            if hasattr(cv2, "setLogLevel"):  # OpenCV 4
                cv2.setLogLevel(0)
            else:  # OpenCV 5
                logging: Any = getattr(cv2.utils, "logging")  # noqa: B009 - OpenCV 4 has none
                logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _cv2 = cv2
    return _cv2
