"""Photographs: cut-outs of a package's ImageNet pictures, by day and as the world changes.

Nothing of them is committed: the package is downloaded at first use, opened as an archive, and
neither installed nor imported. Each photograph is cut many times (another place, another size,
mirrored, lighter or darker), as one thing is photographed again and again.

    python -m examples.mlwatch.photographs        make them ahead of time, and say where they are
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from examples.madeonce import made_once
from examples.plants.materials import MaterialsError, tell_where
from examples.requests import lite0

Array = npt.NDArray[Any]
World = Literal["day", "night", "jpeg", "new-label"]
WORLDS: tuple[World, ...] = get_args(World)
"""As it was, and as it may change."""

PACKAGE = "foolbox==3.3.4"
CACHE = Path(".cache/mlwatch")
SIDE = 320  # pixels of a photograph as it comes; the model looks at fewer
QUALITY = 90
EACH = 24  # cut-outs of each original

# By the class that ImageNet has it in, the most frequent first.
KNOWN = (
    "06_609",  # jeep
    "16_251",  # dalmatian
    "04_949",  # strawberry
    "15_99",  # goose
    "01_559",  # folding chair
    "14_129",  # spoonbill
    "00_243",  # bull mastiff
    "09_455",  # bottle cap
    "17_22",  # bald eagle
    "11_630",  # slip-on shoe
    "12_741",  # prayer rug
    "08_915",  # yurt
    "13_471",  # cannon
    "05_853",  # thatched roof
    "10_541",  # drum
    "02_438",  # beaker
)
PROBE = "03_990"  # a buckeye, which comes only when somebody looks how long it takes
NEW = ("18_317", "19_305")  # a leafhopper, a dung beetle: no insect was ever there before


def originals(cache: Path = CACHE) -> Path:
    """The folder of the photographs as the package has them.

    Raises:
        MaterialsError: they could not be downloaded.
    """
    return made_once(cache / "originals-v1", _unpacked)


def _unpacked(work: Path) -> Path:
    folder = work / "made"
    folder.mkdir()
    with lite0.download(PACKAGE, work) as wheel:
        for name in (*KNOWN, PROBE, *NEW):
            data = wheel.read(f"foolbox/data/imagenet_{name}.jpg")
            (folder / f"{name}.jpg").write_bytes(data)
    return folder


def folder(worlds: Sequence[World], each: int = EACH, cache: Path = CACHE) -> Path:
    """The folder of the photographs: the blob store whose paths are published.

    Args:
        worlds: whose photographs are to be in it.
        each: cut-outs of each original.
        cache: where they are kept.

    Raises:
        MaterialsError: the originals could not be downloaded.
    """
    found = (cache / f"photographs-v1-{each}").absolute()
    source = originals(cache)
    for world in worlds:

        def make(work: Path, world: World = world) -> Path:
            (work / world).mkdir()
            for name, data in cut_outs(world, each, source):
                (work / name).write_bytes(data)
            return work / world

        made_once(found / world, make)
    return found


def cut_outs(world: World, each: int, source: Path) -> Iterator[tuple[str, bytes]]:
    """Photographs of a world: path and JPEG; the same each time.

    Args:
        world: as it was, or as it has changed.
        each: cut-outs of each original.
        source: folder of the originals.
    """
    for name in things(world):
        original = cv2.imread(str(source / f"{name}.jpg"))
        if original is None:
            raise MaterialsError(f"{source}/{name}.jpg cannot be read: remove {source}")
        for number in range(each):
            random = np.random.default_rng([int(name.replace("_", "")), number])
            yield path(world, name, number), _jpeg(_seen(original, random), world, random)


def things(world: World) -> tuple[str, ...]:
    """What is photographed in a world."""
    return NEW if world == "new-label" else (*KNOWN, PROBE) if world == "day" else KNOWN


def path(world: World, name: str, number: int) -> str:
    """Where a photograph lies in the blob store."""
    return f"{world}/{name}-{number:03}.jpg"


def _seen(original: Array, random: np.random.Generator) -> Array:
    """Another look at the same thing: uint8 `[SIDE, SIDE, 3]`, BGR."""
    height, width = original.shape[:2]
    side = int(min(height, width) * random.uniform(0.7, 1.0))
    top, left = random.integers(height - side + 1), random.integers(width - side + 1)
    part = original[top : top + side, left : left + side]
    if random.random() < 0.5:
        part = part[:, ::-1]
    lit = cv2.convertScaleAbs(np.ascontiguousarray(part), alpha=random.uniform(0.85, 1.15))
    found: Array = cv2.resize(lit, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return found


def _jpeg(pixels: Array, world: World, random: np.random.Generator) -> bytes:
    quality = QUALITY
    if world == "night":
        pixels = _at_night(pixels, random)
    elif world == "jpeg":
        # Somebody saves traffic: half the size, and hardly any bits.
        small = (SIDE // 2, SIDE // 2)
        pixels, quality = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), 10
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _at_night(pixels: Array, random: np.random.Generator) -> Array:
    """Little light, little colour but blue, and the sensor's noise."""
    light = pixels.astype(np.float32)
    grey = light.mean(axis=2, keepdims=True)
    dim = (0.4 * light + 0.6 * grey) * np.array([1.15, 0.9, 0.8], np.float32)
    noise = random.normal(0, 7, grey.shape)
    dark: Array = np.clip(dim * random.uniform(0.1, 0.2) + noise, 0, 255).astype(np.uint8)
    return dark


def squares(count: int, source: Path, seed: int) -> Array:
    """Pictures as the model is given them, by day: uint8 `[count, 224, 224, 3]`, RGB."""
    random = np.random.default_rng(seed)
    files = [cv2.imread(str(source / f"{name}.jpg")) for name in (*KNOWN, PROBE, *NEW)]
    size = (lite0.SIDE, lite0.SIDE)
    found = []
    for number in range(count):
        seen = _seen(files[number % len(files)], random)
        found.append(cv2.resize(seen, size, interpolation=cv2.INTER_AREA)[:, :, ::-1])
    return np.stack(found)


def main() -> int:
    """Make the photographs and say where they are."""
    return tell_where(lambda: folder(WORLDS))


if __name__ == "__main__":
    sys.exit(main())
