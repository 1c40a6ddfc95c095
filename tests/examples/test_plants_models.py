"""The models of the repository, in process, on leaves and places they were not trained on."""

from pathlib import Path

import numpy as np
import pytest

from examples.plants.lesions import DISEASES
from examples.plants.training.evaluate import FIRST_SEED, Report, evaluate, match, sessions

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "triton_models"
SCENES = 50
"""Fewer than the README's figures are measured on; other seeds than those."""


@pytest.fixture(scope="module")
def report() -> Report:
    seeds = range(FIRST_SEED + 5000, FIRST_SEED + 5000 + SCENES)
    return evaluate(seeds, REPOSITORY, materials=ROOT / ".cache" / "plants-materials")


def test_the_detector_finds_leaves_it_has_not_seen(report: Report) -> None:
    assert report.true > 400
    assert report.precision >= 0.95
    assert report.recall >= 0.95


def test_the_graders_agree_with_the_truth(report: Report) -> None:
    assert report.mean_within("1", 0) >= 0.85
    assert report.mean_within("1", 1) >= 0.98


@pytest.mark.parametrize("disease", DISEASES)
def test_every_grader_is_of_use(report: Report, disease: str) -> None:
    assert report.within((f"grade_{disease}", "1"), 0) >= 0.75
    assert report.within((f"grade_{disease}", "1"), 1) >= 0.95


def test_the_second_version_is_better(report: Report) -> None:
    first, second = (report.within(("grade_rust", version), 0) for version in "12")
    assert second >= first + 0.01


def test_every_model_takes_batches_and_answers_each_item_alone() -> None:
    rng = np.random.default_rng(0)
    for (name, _), model in sessions(REPOSITORY).items():
        shape = (480, 640, 3) if name == "leaf_detector" else (96, 96, 3)
        images = rng.integers(0, 255, (3, *shape), dtype=np.uint8)
        names = [output.name for output in model.get_outputs()]
        together = model.run(names, {"image": images})
        for index, image in enumerate(images):
            for one, all_of_them in zip(
                model.run(names, {"image": image[None]}), together, strict=True
            ):
                np.testing.assert_allclose(one[0], all_of_them[index], rtol=1e-2, atol=1e-3)


def test_detector_output_is_sorted_and_inside_the_picture() -> None:
    detector = sessions(REPOSITORY)["leaf_detector", "1"]
    image = np.random.default_rng(1).integers(0, 255, (1, 480, 640, 3), dtype=np.uint8)
    boxes, scores = detector.run(["boxes", "scores"], {"image": image})
    assert boxes.shape == (1, 32, 4)
    assert scores.shape == (1, 32)
    assert boxes.dtype == scores.dtype == np.float32
    assert (np.diff(scores[0]) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (boxes >= 0).all()
    assert (boxes <= [640, 480, 640, 480]).all()


def test_probabilities_sum_to_one() -> None:
    crops = np.random.default_rng(2).integers(0, 255, (4, 96, 96, 3), dtype=np.uint8)
    for (name, _), model in sessions(REPOSITORY).items():
        if name.startswith("grade_"):
            (probabilities,) = model.run(["probabilities"], {"image": crops})
            assert probabilities.shape == (4, 4)
            np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)


def test_the_repository_holds_models_only() -> None:
    expected = {"leaf_detector": {"1"}} | {f"grade_{name}": {"1"} for name in DISEASES}
    expected["grade_rust"] = {"1", "2"}
    found = {
        folder.name: {version.name for version in folder.iterdir() if version.is_dir()}
        for folder in REPOSITORY.iterdir()
        if folder.is_dir()
    }
    assert found == expected
    assert all((REPOSITORY / name / "config.pbtxt").is_file() for name in expected)
    assert sum(path.stat().st_size for path in REPOSITORY.rglob("*.onnx")) < 6e6


def test_matching_counts_a_leaf_once() -> None:
    class Leaf:
        def __init__(self, box: tuple[float, ...]) -> None:
            self.box = box

    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    assert match(boxes, [Leaf((0, 0, 10, 10)), Leaf((80, 80, 90, 90))]) == {0: 0}
