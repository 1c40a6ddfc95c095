"""Pictures: every format and mode, every way to be broken. Pillow is not needed: what OpenCV
cannot write is written by hand."""

import asyncio
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer import image
from mqinfer.blob import Blob
from mqinfer.errors import BadImage
from mqinfer.image import (
    check_image,
    decode,
    decode_off_loop,
    encode_jpeg,
    encode_png,
)


def scene(height=96, width=128):
    """A smooth picture whose corners have different colours."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack(
        [x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)]
    ).astype(np.uint8)


def written(suffix, pixels=None, *options):
    pixels = scene() if pixels is None else pixels
    done, data = cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)
    assert done
    return data.tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, raw, *, depth=8, color=2, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", raw)
        + chunk(b"IEND", b"")
    )


def exif(orientation, order="<"):
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )


def with_exif(data, block):
    """`data` (PNG or JPEG) with an EXIF block."""
    if data.startswith(b"\x89PNG"):
        return data[:33] + chunk(b"eXIf", block) + data[33:]
    body = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def webp_extended(data, block):
    """A simple WebP as an extended one with an EXIF chunk."""
    frame = data[12:]
    head = struct.pack("<4sIB3s", b"VP8X", 10, 8, b"\0\0\0")
    head += struct.pack("<I", 127)[:3] + struct.pack("<I", 95)[:3]
    body = b"WEBP" + head + frame + struct.pack("<4sI", b"EXIF", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


FILES = {
    "png": written(".png"),
    "jpeg": written(".jpg"),
    "progressive": written(".jpg", None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": written(".jpg", None, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "webp": written(".webp", None, cv2.IMWRITE_WEBP_QUALITY, 80),
    "webp lossless": written(".webp", None, cv2.IMWRITE_WEBP_QUALITY, 101),
    "bmp": written(".bmp"),
    "tiff": written(".tiff"),
    "tiff raw": written(".tiff", None, cv2.IMWRITE_TIFF_COMPRESSION, 1),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_is_read(kind):
    assert check_image(FILES[kind], name="a") == (96, 128)
    pixels = decode(FILES[kind], name="a")
    assert pixels.dtype == np.uint8
    assert pixels.shape == (96, 128, 3)
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - scene()).mean() < 6


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_off_anywhere_is_refused(kind):
    data = FILES[kind]
    step = max(1, len(data) // 300)
    for length in {*range(0, len(data), step), *range(max(0, len(data) - 20), len(data))}:
        with pytest.raises(BadImage, match=r"p1/x\.img") as refused:
            check_image(data[:length], name="p1/x.img")
        assert len(str(refused.value)) < 250


def test_what_follows_the_picture_does_not_matter():
    for kind in ("png", "jpeg", "progressive", "webp", "bmp"):
        assert decode(FILES[kind] + b"\0" * 100).shape == (96, 128, 3)


def test_a_cut_off_file_says_so():
    with pytest.raises(BadImage, match=r"the picture p1/a\.png is a PNG that is cut off: it ends"):
        decode(FILES["png"][:-20], name="p1/a.png")
    with pytest.raises(BadImage, match="is a JPEG that is cut off: it ends after"):
        decode(FILES["jpeg"][:-2])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", r"x is empty \(0 bytes\)"),
        (b"hello world", "is no picture in a known format .* starts with b'hello world'"),
        (b'{"a": 1}', "known format"),
        (b"\x89P", "PNG that is cut off"),
        (b"\xff\xd8", "JPEG that is cut off"),
        (b"\xff\xd8\xff\xd9", "holds no picture data"),
        (b"\xff\xd8\xff\xe0\0\0", "no length"),
        (b"BM", "BMP that is cut off"),
        (b"GIF89a", "GIF that is cut off"),
        (b"II*\0", "TIFF that is cut off"),
        (b"RIFF\x04\0\0\0WEBP", "holds no picture data"),
        (png(0, 5, zlib.compress(b"")), "is a PNG of 0 x 5 pixels"),
        (png(100, 100, zlib.compress(b"")), "8 bytes of data cannot hold 100 x 100"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "does not begin with its header"),
    ],
)
def test_broken_files_say_what_is_wrong(data, text):
    with pytest.raises(BadImage, match=text):
        check_image(data, name="x")


def test_a_damaged_png_is_found_by_its_checksum():
    data = bytearray(FILES["png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(BadImage, match="the checksum of its 'IDAT' chunk is wrong"):
        check_image(bytes(data), name="x")


def test_what_only_the_decoder_notices_is_refused_too(capfd):
    data = bytearray(FILES["webp lossless"])
    data[40:] = bytes(len(data) - 40)
    with pytest.raises(BadImage, match=r"is a WebP of 128 x 96 pixels that cannot be decoded"):
        decode(bytes(data))
    assert capfd.readouterr().err == ""  # OpenCV's own line does not disturb the logs


def test_20_000_by_20_000_is_refused_from_the_header():
    packer = zlib.compressobj(9)
    row = bytes(1 + 20_000 // 8)
    raw = b"".join(packer.compress(row) for _ in range(20_000)) + packer.flush()
    data = png(20_000, 20_000, raw, depth=1, color=0)
    with pytest.raises(BadImage) as refused:
        decode(data, name="p1/big.png")
    assert str(refused.value) == (
        "the picture p1/big.png has 20000 x 20000 pixels, 400,000,000 in all, more than the limit "
        "of 100,000,000: raise MQINFER_MAX_PIXELS (or the max_pixels of this call), or store "
        "smaller pictures"
    )
    # A header without the data: the limit is what the reader is told, too.
    with pytest.raises(BadImage, match="more than the limit of 100,000,000"):
        decode(png(20_000, 20_000, zlib.compress(b"")))


def big_header(kind):
    side = 60_000
    if kind == "jpeg":
        at = FILES["jpeg"].index(b"\xff\xc0") + 5
        return FILES["jpeg"][:at] + struct.pack(">HH", side, side) + FILES["jpeg"][at + 4 :]
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b",12345678\0\x02\0;"
    if kind == "webp":
        data = bytearray(webp_extended(FILES["webp"], b""))
        data[24:30] = struct.pack("<I", side)[:3] * 2
        return bytes(data)
    tags = [(256, 4, 1, side), (257, 4, 1, side)]
    if kind == "tiff tile":
        tags = [(256, 4, 1, 8), (257, 4, 1, 8), (322, 4, 1, side), (323, 4, 1, side)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize("kind", ["jpeg", "gif", "webp", "tiff", "tiff tile"])
def test_bombs_of_every_format_are_refused_from_the_header(kind):
    with pytest.raises(BadImage, match=r"has 6000. x 6000. pixels.*more than the limit"):
        check_image(big_header(kind), name="x")


def test_a_jpeg_of_endless_scans_is_refused():
    data = FILES["progressive"]
    scan = data[data.index(b"\xff\xda") : data.index(b"\xff\xda") + 40]
    with pytest.raises(BadImage, match="more than 200 scans"):
        check_image(data[:-2] + scan * 300 + b"\xff\xd9", name="x")


def test_limits_of_a_call_and_of_the_process(monkeypatch):
    with pytest.raises(BadImage, match="12,288 in all, more than the limit of 12,287"):
        decode(FILES["png"], max_pixels=12_287)
    assert decode(FILES["png"], max_pixels=12_288) is not None
    with pytest.raises(BadImage, match="128 x 96 pixels, but each side must have at least 97"):
        decode(FILES["png"], min_side=97)
    monkeypatch.setattr(image, "_max_pixels", image.MAX_PIXELS)
    monkeypatch.setattr(image, "_max_bytes", image.MAX_BYTES)
    image.configure(max_pixels=100)
    image.configure(max_bytes=10_000_000)
    with pytest.raises(BadImage, match="limit of 100:"):
        decode(FILES["png"])
    image.configure(max_bytes=50)
    assert image.max_image_bytes() == 50
    with pytest.raises(BadImage, match="limit of 50: raise MQINFER_MAX_IMAGE_BYTES"):
        decode(FILES["png"])


def test_one_pixel_is_a_picture_unless_more_is_asked_for():
    data = encode_png(np.full((1, 1, 3), 7, np.uint8))
    assert decode(data).tolist() == [[[7, 7, 7]]]
    with pytest.raises(BadImage, match="1 x 1 pixels, but each side must have at least 8"):
        decode(data, min_side=8)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_become_8(suffix):
    deep = scene().astype(np.uint16) * 257
    assert np.abs(decode(written(suffix, deep)).astype(int) - scene()).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_whole_when_asked_for_and_never_crushed(suffix):
    deep = (np.arange(96 * 128).reshape(96, 128) % 4096).astype(np.uint16)
    data = written(suffix, deep)
    assert np.array_equal(decode(data, dtype="uint16"), np.dstack([deep] * 3))
    with pytest.raises(BadImage, match=r'uses 0 to 4095 .* 16 levels .* pixels\(dtype="uint16"\)'):
        decode(data)
    assert np.array_equal(decode(written(suffix), dtype="uint16"), scene().astype(int) * 257)
    dark = (scene() // 16).astype(np.uint16) * 257  # 8 bits in 16: nothing is lost
    assert np.array_equal(decode(written(suffix, dark)), scene() // 16)
    assert not decode(written(suffix, deep * 0)).any()
    with pytest.raises(ValueError, match="'uint8' or 'uint16', not 'float32'"):
        decode(data, dtype="float32")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_colors_of_a_tiff_are_not_multiplied_by_its_alpha(order, kind):
    rgba = bytes([200, 100, 50, 0, 200, 100, 50, 128])
    tags = [(256, 3, 2), (257, 3, 1), (259, 3, 1), (262, 3, 2), (273, 4, 0), (277, 3, 4)]
    tags += [(278, 3, 1), (279, 4, 8), (338, 3, kind)]
    end = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags = sorted([*((t, k, 1, end + 8 if t == 273 else v) for t, k, v in tags), (258, 3, 4, end)])
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, form, count, value in tags:
        short = form == 3 and count == 1
        data += struct.pack(order + ("HHIHxx" if short else "HHII"), tag, form, count, value)
    data += struct.pack(order + "I4H", 0, 8, 8, 8, 8) + rgba
    assert decode(data).tolist() == [[[200, 100, 50]] * 2]


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_TIFF_COMPRESSION, 1)], ids=["LogLuv", "raw"])
def test_a_tiff_of_floats_is_refused(options):
    with pytest.raises(BadImage, match="floating-point numbers"):
        decode(written(".tiff", (scene() / 255).astype(np.float32), *options))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)),
        ("HEIC", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(500)),
        ("AVIF", b"\0\0\0\x1cftypavif" + bytes(500)),
        ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(500)),
        ("JPEG XL", b"\xff\x0a" + bytes(500)),
        ("SVG", b'<?xml version="1.0"?>\n<svg xmlns="x"/>'),
        ("PDF", b"%PDF-1.7"),
    ],
)
def test_formats_that_are_not_read_are_named(name, data):
    with pytest.raises(BadImage, match=f"is a {name}, which is not supported: convert it to JPEG"):
        decode(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_grey_becomes_rgb(suffix):
    grey = scene()[..., 0]
    pixels = decode(written(suffix, grey))
    assert pixels.shape == (96, 128, 3)
    assert np.abs(pixels.astype(int) - grey[..., None]).mean() < 4


def test_alpha_is_dropped():
    rgba = np.dstack([scene(), np.zeros((96, 128), np.uint8)])
    assert np.array_equal(decode(encode_png(rgba)), scene())


def test_palette_and_one_bit():
    colors = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
    data = png(2, 1, zlib.compress(b"\0\0\1"), color=3, extra=colors)
    assert decode(data).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    data = png(2, 1, zlib.compress(b"\0\x40"), depth=1, color=0)
    assert decode(data).tolist() == [[[0, 0, 0], [255, 255, 255]]]


UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_exif_orientation_is_applied(kind, orientation, order):
    wrap = webp_extended if kind == "webp" else with_exif
    pixels = decode(wrap(FILES[kind], exif(orientation, order)))
    assert np.array_equal(pixels, UPRIGHT[orientation](decode(FILES[kind])))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("block", [b"", b"II*\0", b"garbage!" * 4, exif(0), exif(9), exif(6)[:12]])
def test_broken_exif_is_no_reason_to_refuse(block):
    assert decode(with_exif(FILES["jpeg"], block)).shape == (96, 128, 3)


@pytest.mark.parametrize("size", [(24, 32), (40, 30), (1, 1), (96, 128), (120, 200)])
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_size_is_what_one_gets_upright(kind, orientation, size):
    wrap = webp_extended if kind == "webp" else with_exif
    data = wrap(FILES[kind], exif(orientation))
    pixels = decode(data, size=size)
    assert pixels.shape == (*size, 3)
    assert (pixels.dtype, pixels.flags.c_contiguous) == (np.uint8, True)
    upright = decode(data)
    wanted = cv2.resize(upright, size[::-1], interpolation=cv2.INTER_AREA)
    # A JPEG is decoded smaller first, and what is turned is rounded the other way round.
    assert np.abs(pixels.astype(int) - wanted).max() <= (6 if kind == "jpeg" else 1)


def test_a_jpeg_of_a_size_is_decoded_no_smaller_on_either_side():
    data = encode_jpeg(scene(960, 1280))
    for size, decoded in (((224, 224), 240), ((100, 300), 240), ((241, 241), 480), ((60, 90), 120)):
        smaller = decode(data, target=decoded)
        assert smaller.shape[0] == decoded
        shrunk = cv2.resize(smaller, size[::-1], interpolation=cv2.INTER_AREA)
        assert np.array_equal(decode(data, size=size), shrunk)
    # Turned: its height is 1280.
    assert decode(with_exif(data, exif(6)), size=(320, 100)).shape == (320, 100, 3)


def test_a_picture_is_shrunk_before_it_is_turned():
    data = with_exif(encode_png(scene(960, 1280)), exif(6))
    decode(data, size=(50, 50))
    tracemalloc.start()
    try:
        decode(data, size=(50, 50))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.2 * 960 * 1280 * 3  # the pixels once, and what becomes of them


def test_a_size_of_16_bits():
    deep = written(".png", scene().astype(np.uint16) * 257)
    assert decode(deep, size=(10, 20), dtype="uint16").dtype == np.uint16
    assert decode(deep, size=(10, 20)).shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": (0, 5)}, "whole numbers above 0"),
        ({"size": (5, 5, 3)}, "(height, width)"),
        ({"size": (5.0, 5)}, "whole numbers above 0"),
        ({"size": (20_000, 20_000)}, "MQINFER_MAX_PIXELS"),
        ({"size": (5, 5), "target": 5}, "not both"),
    ],
)
def test_a_size_that_cannot_be_is_refused(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        decode(FILES["jpeg"], **options)


def test_a_jpeg_is_decoded_smaller_when_less_is_needed():
    data = encode_jpeg(scene(960, 1280))
    assert decode(data, target=121).shape == (240, 320, 3)
    assert decode(data, target=120).shape == (120, 160, 3)
    assert decode(data, target=480).shape == (480, 640, 3)
    assert decode(data, target=481).shape == (960, 1280, 3)
    assert decode(with_exif(data, exif(6)), target=480).shape == (640, 480, 3)
    assert decode(FILES["png"], target=1).shape == (96, 128, 3)  # gains nothing there


def test_png_round_trip_is_exact_and_jpeg_close():
    assert np.array_equal(decode(encode_png(scene())), scene())
    assert np.array_equal(decode(encode_png(scene()[..., 1]))[..., 0], scene()[..., 1])
    assert np.array_equal(decode(encode_png(scene()[:, ::2])), scene()[:, ::2])  # a view
    assert np.abs(decode(encode_jpeg(scene())).astype(int) - scene()).mean() < 2
    assert len(encode_jpeg(scene(), quality=10)) < len(encode_jpeg(scene(), quality=95))
    assert encode_jpeg(np.dstack([scene(), scene()[..., 0]])).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2, 3), np.float32), np.zeros(3, np.uint8), np.zeros((2, 2, 2), np.uint8),
     np.zeros((0, 2, 3), np.uint8), "text"],
)  # fmt: skip
def test_encoding_something_else_says_what_is_wanted(wrong):
    with pytest.raises(ValueError, match="made of uint8 pixels"):
        encode_png(wrong)


async def test_the_loop_goes_on_while_a_picture_is_decoded(monkeypatch):
    started, go_on = threading.Event(), threading.Event()

    def slow(data, **options):
        started.set()
        assert go_on.wait(120)
        return decode(data, **options)

    monkeypatch.setattr(image, "decode", slow)
    work = asyncio.create_task(decode_off_loop(FILES["png"], name="a"))
    assert await asyncio.to_thread(started.wait, 30)
    assert not work.done()
    go_on.set()
    assert (await work).shape == (96, 128, 3)


async def test_a_blob_gives_pixels_and_names_itself():
    assert (await Blob(FILES["jpeg"]).pixels()).shape == (96, 128, 3)
    assert (await Blob(FILES["jpeg"]).pixels(target=24)).shape == (24, 32, 3)
    assert (await Blob(FILES["jpeg"]).pixels(size=(20, 20))).shape == (20, 20, 3)
    with pytest.raises(BadImage, match=r"the picture p1/x\.png is empty"):
        await Blob(b"", path="p1/x.png").pixels()
    with pytest.raises(BadImage, match="the picture inline image has 128 x 96"):
        await Blob(FILES["png"]).pixels(min_side=1000)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    st.integers(0, 60),
)
def test_any_damage_is_a_picture_or_a_bad_image(kind, edits, cut):
    data = bytearray(FILES[kind])
    for place, value in edits:
        data[min(int(place * len(data)), len(data) - 1)] = value
    try:
        pixels = decode(bytes(data[: len(data) - cut]), max_pixels=1_000_000)
    except BadImage:
        return
    assert pixels.ndim == 3


@settings(max_examples=100)
@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP", b"BM", b"GIF89a",
         b"II*\0", b"MM\0+", b"II+\0"]
    ),
    st.binary(max_size=120),
)  # fmt: skip
def test_any_bytes_are_a_header_or_a_bad_image(start, rest):
    try:
        height, width = check_image(start + rest, name="x")
    except BadImage:
        return
    assert height >= 1
    assert width >= 1


def test_opencv_and_numpy_are_imported_late():
    code = "import mqinfer.image, sys; sys.exit('cv2' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
