"""Training data: composed scenes of the ``train`` split, written once to a cache folder.

Run ``python -m examples.plants.training.data``; it needs numpy and OpenCV only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import cv2
import numpy as np

from examples.plants.crops import CROP_SIZE, crop_leaf, place_crop
from examples.plants.lesions import DISEASES
from examples.plants.materials import DEFAULT_CACHE, ensure_materials
from examples.plants.scenes import MAX_LEAVES, scene

CACHE = Path(".cache/plants-training")
SCENES = 2400
MAP = CROP_SIZE // 4


def make(seeds: list[int], path: Path) -> None:
    """Compose scenes and write one archive of what both trainings need.

    Per scene: the photograph at half its size and the boxes. Per leaf: a crop around a box that
    is off as a detector's would be, and how much of every 4x4 pixels of it is this leaf, and
    each disease's lesions on this leaf.
    """
    cv2.setNumThreads(1)
    materials = ensure_materials(DEFAULT_CACHE)
    photos, boxes, crops, maps, grades = [], [], [], [], []
    for seed in seeds:
        made = scene(seed, "train", materials)
        rng = np.random.default_rng([seed, 99])
        photos.append(cv2.resize(made.photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        padded = np.zeros((MAX_LEAVES, 4), np.float32)
        for index, leaf in enumerate(made.leaves):
            box = np.array(leaf.box, np.float32)
            padded[index] = box
            size = np.tile(box[2:] - box[:2], 2)
            off = box + np.clip(rng.normal(0, 0.035, 4), -0.1, 0.1) * size
            here = made.instances == index + 1
            layers = [here] + [here & (made.lesions == i + 1) for i in range(len(DISEASES))]
            squares = [np.zeros((CROP_SIZE, CROP_SIZE, 3), np.float32) for _ in range(2)]
            for half, square in enumerate(squares):  # OpenCV scales at most four channels
                some = np.dstack(layers[3 * half : 3 * half + 3]).astype(np.float32)
                place_crop(some, off, square)
            target = np.dstack(squares)
            target = target.reshape(MAP, 4, MAP, 4, -1).mean((1, 3))
            crops.append(crop_leaf(made.photo, off))
            maps.append(np.round(target.transpose(2, 0, 1) * 255).astype(np.uint8))
            grades.append([leaf.grades[name] for name in DISEASES])
        boxes.append(padded)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        photos=np.stack(photos),
        boxes=np.stack(boxes),
        crops=np.stack(crops),
        maps=np.stack(maps),
        grades=np.array(grades, np.int64),
    )


def load(folder: Path = CACHE) -> dict[str, np.ndarray]:
    """Read all archives of a folder, joined."""
    parts = [np.load(path) for path in sorted(folder.glob("part-*.npz"))]
    if not parts:
        raise SystemExit(f"no training data in {folder}; run python -m {__spec__.name} first")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}


def main() -> None:
    """Write the training data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CACHE)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    ensure_materials(DEFAULT_CACHE)
    began = time.monotonic()
    last = options.first + options.scenes
    tasks = [
        (list(range(start, min(start + 200, last))), options.folder / f"part-{start:06d}.npz")
        for start in range(options.first, last, 200)
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        pool.starmap(make, tasks, chunksize=1)
    print(f"{options.scenes} scenes in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
