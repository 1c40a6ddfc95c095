"""decoders: what mqinfer decodes JPEGs with, beside what else could be used, on the same pictures.

Processor time, one thread, in turns. Each picture is decoded whole, and again to no less than a
model's 224 x 224, for which every decoder has its own way (a JPEG at a half, a quarter or an
eighth). Those that are not installed are left out; `make bench` does not need them.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import lite0
from benchmarks.results import Figure, Options, Result, Row
from mqinfer import jpeg
from mqinfer.image import decode, encode_jpeg

Pixels = npt.NDArray[np.uint8]
# The pixels of a JPEG, as RGB, whole or at one of so many parts of its size.
Decoder = Callable[[bytes, int], Pixels]

NEEDED = 224
# Name, height, width, and how many decodings of each picture are one sample.
KINDS = (("128x96", 96, 128, 200), ("640x480", 480, 640, 30), ("4000x3000", 3000, 4000, 2))
DISTINCT, ROUNDS = 4, 5


async def measure(options: Options) -> Result:
    """Every decoder on every kind of picture."""
    return await asyncio.to_thread(_measure, options)


def _measure(options: Options) -> Result:
    decoders, notes = _decoders()
    figures: dict[str, dict[str, Figure]] = {name: {} for name in decoders}
    differs = dict.fromkeys(decoders, 0)
    sizes = []
    for kind, height, width, times in KINDS:
        files = [encode_jpeg(one, quality=90) for one in _photographs(height, width)]
        sizes.append(f"{kind}: {sum(map(len, files)) / len(files) / 1e3:,.0f} kB")
        for part in (1, _part(height, width)):
            if part == 1 and f"{kind}, ms" in figures["mqinfer"]:
                continue  # too small for less than the whole
            column = f"{kind}, ms" if part == 1 else f"{kind} at 1/{part}, ms"
            options.say(column)
            reference = [decoders["mqinfer"](file, part) for file in files]
            for name, decoder in decoders.items():
                found = max(
                    _difference(decoder(file, part), pixels)
                    for file, pixels in zip(files, reference, strict=True)
                )
                differs[name] = max(differs[name], found)
            samples = _times(decoders, files, part, options.amount(times, least=1))
            for name, taken in samples.items():
                figures[name][column] = Figure(tuple(taken), "ms")
    for name, found in differs.items():
        figures[name]["differs by at most"] = Figure((found,), "of 255")
    return Result(
        "decoders",
        f"JPEGs of photographs, quality 90, to RGB; {DISTINCT} of each size, {ROUNDS} rounds",
        [Row(name, row) for name, row in figures.items()],
        [],
        [
            f"Processor time of one thread. {'; '.join(sizes)}.",
            "mqinfer checks a file's structure first, and takes simplejpeg where it is installed.",
            *notes,
        ],
    )


def _photographs(height: int, width: int) -> list[Pixels]:
    """Photographs; the large ones are enlarged, with the noise that a camera would add."""
    shown = lite0.photographs(DISTINCT, min(height, 480), min(width, 640))
    if height <= 480:
        return shown
    random = np.random.default_rng(0)
    noise = random.normal(0, 4, (height, width, 3)).astype(np.float32)
    large = (cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in shown)
    return [np.clip(one + noise, 0, 255).astype(np.uint8) for one in large]


def _part(height: int, width: int) -> int:
    """At which part of its size a picture is enough for the model."""
    return next((one for one in (8, 4, 2) if min(height, width) // one >= NEEDED), 1)


def _times(
    decoders: dict[str, Decoder], files: list[bytes], part: int, times: int
) -> dict[str, list[float]]:
    """Milliseconds of processor a picture, of each decoder, a sample a round."""
    found: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(ROUNDS):
        for name, decoder in decoders.items():
            began = time.process_time()
            for _ in range(times):
                for file in files:
                    decoder(file, part)
            found[name].append(1e3 * (time.process_time() - began) / times / len(files))
    return found


def _difference(found: Pixels, wanted: Pixels) -> int:
    """The most that two pictures of the same thing differ by.

    Raises:
        RuntimeError: they are not of one size.
    """
    if found.shape != wanted.shape:
        raise RuntimeError(f"pixels {found.shape} instead of {wanted.shape}")
    return int(np.abs(found.astype(np.int16) - wanted).max())


def _decoders() -> tuple[dict[str, Decoder], list[str]]:
    """By name, and what is left out."""
    cv2.setNumThreads(1)
    found: dict[str, Decoder] = {
        "mqinfer": _mqinfer,
        "mqinfer without simplejpeg": _plain,
        "OpenCV alone": _opencv,
    }
    notes = []
    for name, module, make in (
        ("simplejpeg", "simplejpeg", _simplejpeg),
        ("PyTurboJPEG", "turbojpeg", _turbojpeg),
        ("pyvips", "pyvips", _pyvips),
    ):
        try:
            os.environ.setdefault("VIPS_CONCURRENCY", "1")
            found[name] = make(importlib.import_module(module))
        except (ImportError, OSError, RuntimeError) as error:
            notes.append(f"left out, {name}: {str(error).splitlines()[0]}")
    return found, notes


def _mqinfer(data: bytes, part: int) -> Pixels:
    return decode(data, target=None if part == 1 else NEEDED)


def _plain(data: bytes, part: int) -> Pixels:
    module, jpeg._module = jpeg._module, None
    try:
        return _mqinfer(data, part)
    finally:
        jpeg._module = module


def _opencv(data: bytes, part: int) -> Pixels:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if part > 1:
        flags |= getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{part}")  # the bit of the part
    pixels: Pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return pixels


def _simplejpeg(module: Any) -> Decoder:
    def run(data: bytes, part: int) -> Pixels:
        least = 0 if part == 1 else NEEDED
        pixels: Pixels = module.decode_jpeg(
            data, "RGB", min_height=least, min_width=least, min_factor=1
        )
        return pixels

    return run


def _turbojpeg(module: Any) -> Decoder:
    library = module.TurboJPEG(os.environ.get("TURBOJPEG"))

    def run(data: bytes, part: int) -> Pixels:
        pixels: Pixels = library.decode(
            data, pixel_format=module.TJPF_RGB, scaling_factor=(1, part)
        )
        return pixels

    return run


def _pyvips(module: Any) -> Decoder:
    def run(data: bytes, part: int) -> Pixels:
        image = module.Image.jpegload_buffer(
            data, shrink=part, access="sequential", fail_on="warning"
        )
        pixels: Pixels = image.numpy()
        return pixels

    return run
