"""Measure the models of the repository on scenes they were not trained on.

Run ``python -m examples.plants.training.evaluate``; it needs numpy, OpenCV and onnxruntime. The
scenes are of the ``test`` split: other leaves, other families of drawn leaves, other places.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from examples.plants.crops import SCORE_THRESHOLD, crop_leaf
from examples.plants.lesions import DISEASES
from examples.plants.materials import DEFAULT_CACHE, ensure_materials
from examples.plants.scenes import LeafTruth, scene

REPOSITORY = Path("triton_models")
FIRST_SEED = 1_000_000
IOU = 0.5


@dataclass
class Report:
    """What was counted.

    Attributes:
        scenes: Photographs looked at.
        found: Boxes over the threshold.
        true: Leaves there were.
        matched: Boxes that are a leaf, each leaf counted once.
        grades: Of each grader (name, version): pairs of predicted and true grade.
        milliseconds: Of each model (name, version): per item, on one core.
    """

    scenes: int = 0
    found: int = 0
    true: int = 0
    matched: int = 0
    grades: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    milliseconds: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        """Part of the boxes that are leaves."""
        return self.matched / max(1, self.found)

    @property
    def recall(self) -> float:
        """Part of the leaves that were found."""
        return self.matched / max(1, self.true)

    def within(self, model: tuple[str, str], distance: int) -> float:
        """Part of a grader's answers at most this many grades off."""
        pairs = np.array(self.grades[model])
        return float((np.abs(pairs[:, 0] - pairs[:, 1]) <= distance).mean())

    def mean_within(self, version: str, distance: int) -> float:
        """Mean of `within` over the five diseases."""
        shares = [self.within((f"grade_{name}", version), distance) for name in DISEASES]
        return float(np.mean(shares))


def match(boxes: np.ndarray, leaves: Sequence[LeafTruth]) -> dict[int, int]:
    """Match boxes, best first, each to the free leaf it overlaps most, from IoU 0.5 on.

    Args:
        boxes: float32 [n, 4] in pixels, best first.
        leaves: The truth.

    Returns:
        Of each matched box, the index of its leaf.
    """
    matched: dict[int, int] = {}
    for index, box in enumerate(boxes):
        best, best_iou = -1, IOU
        for number, leaf in enumerate(leaves):
            if number in matched.values():
                continue
            overlap = iou(box, leaf.box)
            if overlap >= best_iou:
                best, best_iou = number, overlap
        if best >= 0:
            matched[index] = best
    return matched


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(shared / (both - shared))


def sessions(repository: Path = REPOSITORY) -> dict[tuple[str, str], onnxruntime.InferenceSession]:
    """Open every model of the repository on one core: (name, version) to session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return {
        (path.parent.parent.name, path.parent.name): onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        for path in sorted(repository.glob("*/*/model.onnx"))
    }


def evaluate(
    seeds: Iterable[int],
    repository: Path = REPOSITORY,
    threshold: float = SCORE_THRESHOLD,
    materials: Path = DEFAULT_CACHE,
) -> Report:
    """Find, cut and grade the leaves of scenes, as the stages do, and compare with the truth."""
    models = sessions(repository)
    detector = models.pop(("leaf_detector", "1"))
    pictures = ensure_materials(materials)
    report = Report(grades={name: [] for name in models})
    spent = dict.fromkeys([("leaf_detector", "1"), *models], 0.0)
    items = dict.fromkeys(spent, 0)
    for seed in seeds:
        made = scene(seed, "test", pictures)
        began = time.perf_counter()
        boxes, scores = detector.run(["boxes", "scores"], {"image": made.photo[None]})
        spent["leaf_detector", "1"] += time.perf_counter() - began
        items["leaf_detector", "1"] += 1
        boxes = boxes[0][scores[0] >= threshold]
        matched = match(boxes, made.leaves)
        report.scenes += 1
        report.found += len(boxes)
        report.true += len(made.leaves)
        report.matched += len(matched)
        if not matched:
            continue
        crops = np.stack([crop_leaf(made.photo, boxes[index]) for index in matched])
        for name, grader in models.items():
            began = time.perf_counter()
            answers = grader.run(["probabilities"], {"image": crops})[0].argmax(1)
            spent[name] += time.perf_counter() - began
            items[name] += len(crops)
            disease = name[0].removeprefix("grade_")
            for answer, number in zip(answers, matched.values(), strict=True):
                report.grades[name].append((int(answer), made.leaves[number].grades[disease]))
    report.milliseconds = {name: 1e3 * spent[name] / max(1, items[name]) for name in spent}
    return report


def main() -> None:
    """Print a table of what was measured."""
    parser = argparse.ArgumentParser(description="Measure the models on held-out scenes.")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first scene")
    parser.add_argument("--threshold", type=float, default=SCORE_THRESHOLD)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.scenes)
    report = evaluate(seeds, options.repository, options.threshold)
    print(
        f"{report.scenes} held-out scenes, {report.true} leaves, {report.found} found at score "
        f">= {options.threshold}: precision {report.precision:.4f}, recall {report.recall:.4f} "
        f"at IoU {IOU}"
    )
    print(f"{'model':<16}{'version':>8}{'exact':>9}{'within 1':>10}{'ms/item':>9}")
    for name, version in sorted(report.milliseconds):
        model = (name, version)
        shares = "" if model not in report.grades else f"{report.within(model, 0):9.4f}"
        shares += "" if model not in report.grades else f"{report.within(model, 1):10.4f}"
        print(f"{name:<16}{version:>8}{shares:>19}{report.milliseconds[model]:9.2f}")
    if report.grades:
        means = f"{report.mean_within('1', 0):9.4f}{report.mean_within('1', 1):10.4f}"
        print(f"{'mean of five':<16}{'1':>8}{means}")


if __name__ == "__main__":
    main()
