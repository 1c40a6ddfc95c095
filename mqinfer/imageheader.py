"""What the header of a picture file says, read without decoding a pixel.

Decoders find out late, or never, that a file is cut off or that it will fill the memory. These
parsers walk the structure of a file (chunks, segments, strips), which takes microseconds, and tell
its size, its orientation and whether all that the structure announces is there. Pillow, measured
in docs/performance.md, checks less of that and is no faster.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

# No encoder writes this many scans; each costs a pass over all pixels, so a few kilobytes of
# empty scans would keep a processor busy for minutes.
_MAX_SCANS = 200
# Inside JPEG's compressed data 0xFF is followed by 0 (stuffing), a restart, or more fill.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# More strips or tiles than any writer makes; a list of them must not fill the memory.
_MAX_STRIPS = 1_000_000


class Header(NamedTuple):
    """What a file says of itself; height and width as stored, before `orientation` is applied.

    Attributes:
        depth: bits of one color of one pixel.
        alpha_at: the byte where a TIFF says that its colors are not multiplied by their alpha.
    """

    format: str
    height: int
    width: int
    orientation: int = 1
    damage: str = ""  # what is wrong with the data, where the size is known all the same
    depth: int = 8
    alpha_at: int | None = None


class HeaderError(ValueError):
    """The file cannot be a whole picture; the text continues "the picture ..."."""


def read_header(data: bytes) -> Header:
    """The header of a PNG, JPEG, WebP, BMP, GIF or TIFF file.

    Raises:
        HeaderError: empty, unknown, damaged or cut off.
    """
    if not data:
        raise HeaderError("is empty (0 bytes)")
    for known, start, magic, parse in _FORMATS:
        if magic.match(data):
            try:
                header = parse(data)
            except (struct.error, OverflowError):  # a place beyond the end, or beyond any end
                raise _cut(known, data) from None
            if header.height < 1 or header.width < 1:
                raise HeaderError(f"is a {known} of {header.width} x {header.height} pixels")
            return header
        if len(data) < 8 and data[:2] == start:
            raise _cut(known, data)
    for foreign, magic in _FOREIGN:
        if magic.match(data):
            raise HeaderError(f"is a {foreign}, which is not supported: convert it to JPEG or PNG")
    raise HeaderError(
        f"is no picture in a known format (PNG, JPEG, WebP, BMP, TIFF, GIF): it has {len(data)} "
        f"bytes and starts with {data[:16]!r}"
    )


def _cut(known: str, data: bytes, needed: int | None = None) -> HeaderError:
    least = f" of at least {needed}" if needed else ""
    return HeaderError(f"is a {known} that is cut off: it ends after {len(data)}{least} bytes")


def _png(data: bytes) -> Header:
    place, packed, header, orientation = 8, 0, None, 1
    while True:
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + size
        if end > len(data):
            raise _cut("PNG", data, end)
        body = memoryview(data)[place + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
            name = kind.decode("latin-1")
            raise HeaderError(f"is a damaged PNG: the checksum of its {name!r} chunk is wrong")
        if header is None:
            if kind != b"IHDR" or size != 13:
                raise HeaderError("is a damaged PNG: it does not begin with its header")
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += size
        elif kind == b"eXIf":
            orientation = _exif(bytes(body))
        elif kind == b"IEND":
            break
        place = end
    width, height, depth, color = header[:4]
    # Deflate never packs better than 1032 to 1: what is announced must be able to be in there.
    row = (width * depth * _PNG_CHANNELS.get(color, 1) + 7) // 8
    damage = ""
    if packed * 1032 < row * height:
        damage = f"is a damaged PNG: {packed} bytes of data cannot hold {width} x {height} pixels"
    return Header("PNG", height, width, orientation, damage, depth)


def _jpeg(data: bytes) -> Header:
    place, scans, orientation = 2, 0, 1
    header: tuple[int, int] | None = None
    while True:
        found = _JPEG_MARKER.search(data, place)
        if found is None:
            raise _cut("JPEG", data)
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (size,) = struct.unpack_from(">H", data, place)
        if size < 2:
            raise HeaderError("is a damaged JPEG: one of its segments has no length")
        if marker in _JPEG_SIZES and header is None:
            high, wide = struct.unpack_from(">HH", data, place + 3)
            header = high, wide
        elif marker == 0xE1 and data[place + 2 : place + 8] == b"Exif\0\0":
            orientation = _exif(data[place + 8 : place + size])
        elif marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                raise HeaderError(f"is a JPEG of more than {_MAX_SCANS} scans, which none needs")
        place += size
    if header is None or not scans:
        raise HeaderError("is a damaged JPEG: it holds no picture data")
    return Header("JPEG", *header, orientation)


def _webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise _cut("WebP", data, size + 8)
    header, orientation, pixels = None, 1, False
    place, end = 12, size + 8
    while place + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, place)
        body = place + 8
        if kind == b"VP8X":
            first, second = struct.unpack_from("<II", data, body + 4)
            wide = (first & 0xFFFFFF) + 1
            high = ((second << 8 | first >> 24) & 0xFFFFFF) + 1
            header = high, wide
        elif kind == b"VP8 ":
            wide, high = struct.unpack_from("<HH", data, body + 6)
            header, pixels = header or (high & 0x3FFF, wide & 0x3FFF), True
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            header, pixels = header or ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), True
        elif kind == b"ANMF":
            pixels = True
        elif kind == b"EXIF":
            orientation = _exif(data[body : body + length].removeprefix(b"Exif\0\0"))
        place = body + length + (length & 1)
    if place - (place & 1) > end + 1:
        raise _cut("WebP", data, place)
    if header is None or not pixels:
        raise HeaderError("is a damaged WebP: it holds no picture data")
    return Header("WebP", *header, orientation)


def _bmp(data: bytes) -> Header:
    offset, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: the rows go from top to bottom
    end = offset + (width * bits + 31) // 32 * 4 * height
    # Run-length packed pictures (1, 2) end where they end; the decoder sees to those.
    if packing not in (1, 2) and end > len(data):
        raise _cut("BMP", data, end)
    return Header("BMP", height, width)


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = 0
    while True:
        (kind,) = struct.unpack_from("B", data, place)
        if kind == 0x3B:
            break
        if kind == 0x2C:
            (flags,) = struct.unpack_from("B", data, place + 9)
            place += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            frames += 1
        elif kind == 0x21:
            place += 2
        else:
            raise HeaderError(f"is a damaged GIF: byte {place} begins no block")
        while True:
            (length,) = struct.unpack_from("B", data, place)
            place += 1 + length
            if not length:
                break
    if not frames:
        raise HeaderError("is a damaged GIF: it holds no picture data")
    return Header("GIF", height, width)


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word = 8 if big else 4
    tags = dict(_tiff_tags(data, order, big))
    for kind, count, place in tags.values():
        length = _TIFF_SIZES.get(kind, 1) * count
        start = struct.unpack_from(order + "QI"[word == 4], data, place)[0] if length > word else 0
        if start + length > len(data):
            raise _cut("TIFF", data, start + length)
    # After the last entry comes the place of the next picture, 0 when there is none.
    if tags and max(place for _, _, place in tags.values()) + 2 * word > len(data):
        raise _cut("TIFF", data)

    def values(tag: int) -> list[int]:
        kind, count, place = tags.get(tag, (0, 0, 0))
        letter = _TIFF_TYPES.get(kind)
        if letter is None:
            return []
        if count > _MAX_STRIPS:
            raise HeaderError(f"is a damaged TIFF: tag {tag} has {count} values")
        if _TIFF_SIZES[kind] * count > word:  # too large for the entry: a place in the file
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        return list(struct.unpack_from(f"{order}{count}{letter}", data, place))

    width, height = (values(tag)[:1] or [0] for tag in (256, 257))
    for starts, lengths in ((273, 279), (324, 325)):
        for start, length in zip(values(starts), values(lengths), strict=False):
            if start + length > len(data):
                raise _cut("TIFF", data, start + length)
    # libtiff sets aside a whole tile or strip at once, however small the picture is.
    tile = (values(323)[:1] or [0])[0], (values(322)[:1] or [0])[0]
    damage = ""
    if 3 in values(339) or values(262) in ([32844], [32845]):  # or LogLuv, which stands for them
        damage = (
            "is a TIFF of floating-point numbers, of which nothing says what is white: store it "
            "with 8 or 16 bits"
        )
    depth = (values(258)[:1] or [1])[0]
    alpha_at = tags[338][2] if values(338) == [2] else None
    return Header(
        "TIFF", max(height[0], tile[0]), max(width[0], tile[1]), 1, damage, depth, alpha_at
    )


def _tiff_tags(data: bytes, order: str, big: bool) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Tag, then type, count and the place of its value field, of the first picture."""
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    place += 8 if big else 2
    size = 20 if big else 12
    if place + count * size > len(data):
        raise _cut("TIFF", data, place + count * size)
    for entry in range(place, place + count * size, size):
        tag, kind, many = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        yield tag, (kind, many, entry + (12 if big else 8))


def _exif(data: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block, 1 if there is none; never fails."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order = "<" if data[:2] == b"II" else ">"
    try:
        for tag, (kind, _, place) in _tiff_tags(data, order, big=False):
            if tag == 0x0112 and kind == 3:
                (value,) = struct.unpack_from(order + "H", data, place)
                return value if 1 <= value <= 8 else 1
    except (struct.error, OverflowError, HeaderError):
        pass
    return 1


_FORMATS: tuple[tuple[str, bytes, re.Pattern[bytes], Callable[[bytes], Header]], ...] = (
    ("PNG", b"\x89P", re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    ("JPEG", b"\xff\xd8", re.compile(rb"\xff\xd8\xff"), _jpeg),
    ("WebP", b"RI", re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    ("BMP", b"BM", re.compile(rb"BM"), _bmp),
    ("GIF", b"GI", re.compile(rb"GIF8[79]a"), _gif),
    ("TIFF", b"II", re.compile(rb"II[*+]\0"), _tiff),
    ("TIFF", b"MM", re.compile(rb"MM\0[*+]"), _tiff),
)
# What is told by name, since it is usual and no decoder of ours reads it.
_FOREIGN: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("HEIC", re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL)),
    ("AVIF", re.compile(rb"....ftypavi", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XL", re.compile(rb"\0\0\0\x0cJXL |\xff\x0a")),
    ("Photoshop file", re.compile(rb"8BPS")),
    ("PDF", re.compile(rb"%PDF-")),
    ("SVG", re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<svg")),
)
