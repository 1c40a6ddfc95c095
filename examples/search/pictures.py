"""The collection: some 3,700 pictures of the same things by two hands, out of two npm packages.

Noto Emoji (Apache-2) and Twemoji (CC-BY 4.0), 64 x 64 pixels each, on white. That the same thing
was drawn twice is the truth by which a search is measured: who asks with one hand's picture wants
the other's. They are fetched with `npm pack` at first use, and kept in `.cache/search`; nothing of
a package is installed, run or committed.

    python -m examples.search.pictures        fetch them ahead of time, and say where they are
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from examples.madeonce import made_once
from examples.plants.materials import MaterialsError, tell_where

Array = npt.NDArray[Any]

CACHE = Path(".cache/search")
FORMAT = "pictures-v1"
_VERSION = "16.0.0"
HANDS = {"noto": "google", "twemoji": "twitter"}
"""Name of a hand -> how its package is called."""
KINDS = ("recompressed", "resized", "cropped", "shifted")
"""How copies are made."""


def folder(cache: Path = CACHE) -> Path:
    """The folder, with one of each hand in it: `noto/smile.png` and `twemoji/smile.png` are alike.

    Raises:
        MaterialsError: npm is not there, or the packages could not be fetched.
    """
    return made_once(cache / FORMAT, _make)


def things(collection: Path) -> list[str]:
    """What both hands have drawn, in the order of names."""
    drawn = [{file.name for file in (collection / hand).iterdir()} for hand in HANDS]
    return sorted(set.intersection(*drawn))


def _make(work: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise MaterialsError(
            "the pictures come out of two packages of npm, which is not on the PATH: install "
            "Node.js, or put folders `noto` and `twemoji` of pictures with the same names into "
            f"{CACHE / FORMAT}"
        )
    made = work / "made"
    for hand, package in HANDS.items():
        name = f"emoji-datasource-{package}@{_VERSION}"
        command = [npm, "pack", name, "--silent", f"--pack-destination={work}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
        archive = work / f"emoji-datasource-{package}-{_VERSION}.tgz"
        if done.returncode or not archive.exists():
            said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise MaterialsError(f"`{' '.join(command[1:3])}` failed: {said[-1]}")
        _unpack(archive, package, made / hand)
    return made


def _unpack(archive: Path, package: str, target: Path) -> None:
    """Write the pictures of an archive, under the names of what they show."""
    target.mkdir(parents=True)
    inside = f"package/img/{package}/64/"
    with tarfile.open(archive) as tar:
        files = {one.name: one for one in tar.getmembers() if one.isfile()}
        for thing in json.load(_opened(tar, files["package/emoji.json"])):
            member = files.get(inside + thing["image"])
            if member is not None and thing[f"has_img_{package}"]:
                drawn = on_white(_opened(tar, member).read())
                cv2.imwrite(str(target / f"{thing['short_name']}.png"), drawn)


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None
    return file


def on_white(data: bytes) -> Array:
    """A picture without transparency: uint8 `[height, width, 3]`, BGR."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.ndim != 3 or read.shape[2] != 4:
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert plain is not None
        return plain
    alpha = read[:, :, 3:].astype(np.float32) / 255
    made: Array = np.round(read[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return made


def copied(data: bytes, kind: str) -> bytes:
    """A near-duplicate, as people make them without meaning to.

    Args:
        data: a picture.
        kind: one of `KINDS`.
    """
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    height, width = read.shape[:2]
    down, right = max(1, round(0.02 * height)), max(1, round(0.02 * width))
    if kind == "resized":
        smaller = cv2.resize(read, (width * 3 // 4, height * 3 // 4), interpolation=cv2.INTER_AREA)
        return _png(smaller)
    if kind == "cropped":
        return _png(read[down:-down, right:-right])
    if kind == "shifted":
        moved = np.full_like(read, 255)
        moved[:, right:] = read[:, :-right]
        return _png(moved)
    return cv2.imencode(".jpg", read, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _png(picture: Array) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def main() -> int:
    """Fetch the pictures and say where they are."""
    return tell_where(folder)


if __name__ == "__main__":
    sys.exit(main())
