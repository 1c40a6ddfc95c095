"""A JPEG is the same pixels, or refused in the same words, with simplejpeg and without it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import jpeg
from mqinfer.errors import BadImage
from mqinfer.image import decode

HEIGHT, WIDTH = 97, 131  # neither is a multiple of anything
FACTOR = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
OPTIONS = {
    "420": (),
    "444": (FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "422": (FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    "440": (FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "411": (FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "poor": (cv2.IMWRITE_JPEG_QUALITY, 20),
}
y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
SCENE = np.dstack([x * 255 // WIDTH, y * 255 // HEIGHT, x * y % 256]).astype(np.uint8)


def written(pixels, options=()):
    done, data = cv2.imencode(".jpg", pixels, options)
    assert done
    return data.tobytes()


FILES = {name: written(SCENE, options) for name, options in OPTIONS.items()}
FILES["grey"] = written(SCENE[..., 0])
TARGETS = (None, 48, 30, 24, 12, 1)


def decoded(data, module, **options):
    """The pixels, or the words of a refusal."""
    before, jpeg._module = jpeg._module, module
    try:
        return decode(data, **options)
    except BadImage as error:
        return str(error)
    finally:
        jpeg._module = before


def require_the_same(data, **options):
    found, wanted = (decoded(data, module, **options) for module in (simplejpeg, None))
    assert type(found) is type(wanted)
    if isinstance(found, str):
        assert found == wanted
    else:
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", FILES)
def test_the_pixels_are_the_same_at_every_size(kind, target):
    # So that it is simplejpeg's.
    assert jpeg.decode_jpeg(FILES[kind], HEIGHT, WIDTH, 1) is not None
    require_the_same(FILES[kind], target=target)
    require_the_same(FILES[kind], size=(20, 30))
    require_the_same(FILES[kind], dtype="uint16")


@given(
    kind=st.sampled_from(sorted(FILES)),
    target=st.sampled_from(TARGETS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.tuples(st.integers(0, 10_000), st.integers(1, 40))),
)
def test_what_is_damaged_is_the_same_too(kind, target, edits, cut):
    data = bytearray(FILES[kind])
    for place, value in edits:
        data[place % len(data)] = value
    if cut is not None:
        place = cut[0] % len(data)
        del data[place : place + cut[1]]
    require_the_same(bytes(data), target=target)


def test_what_simplejpeg_does_not_take_is_left_to_opencv():
    data = FILES["420"]
    middle = len(data) // 2
    broken = data[:middle] + b"\xff\xd0" + data[middle:]
    assert jpeg.decode_jpeg(broken, HEIGHT, WIDTH, 1) is None
    assert jpeg.decode_jpeg(data, HEIGHT + 8, WIDTH, 1) is None  # not the size that was told


def test_it_is_imported_late_and_not_missed_where_it_is_not_installed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(FILES["420"])
    code = """
import sys
from pathlib import Path
from mqinfer.image import decode
assert "simplejpeg" not in sys.modules
if sys.argv[2] == "missing":
    sys.modules["simplejpeg"] = None
assert decode(Path(sys.argv[1]).read_bytes()).shape == (97, 131, 3)
assert bool(sys.modules["simplejpeg"]) == (sys.argv[2] == "there")
"""
    for state in ("there", "missing"):
        command = [sys.executable, "-c", code, str(tmp_path / "a.jpg"), state]
        subprocess.run(command, check=True, timeout=60)
