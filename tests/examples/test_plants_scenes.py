"""The scene generator: the same from the same seed, exact in its truth, apart by split."""

import threading
from pathlib import Path

import numpy as np
import pytest

from examples.plants import materials as materials_module
from examples.plants.crops import CROP_SIZE, crop_leaf, fit_photo, unfit_boxes
from examples.plants.leaves import FAMILIES, make_leaf
from examples.plants.lesions import (
    BANDS,
    DISEASES,
    MOST_PAINTED,
    fits_a_band,
    grade_of,
    paint,
)
from examples.plants.materials import (
    BACKGROUNDS,
    LEAVES,
    Materials,
    MaterialsError,
    Split,
    ensure_materials,
)
from examples.plants.scenes import scene
from examples.plants.season import Season, season

CACHE = Path(__file__).parents[2] / ".cache" / "plants-materials"
SPLITS: tuple[Split, ...] = ("train", "test")


@pytest.fixture(scope="module")
def materials() -> Materials:
    return ensure_materials(CACHE)


def test_the_same_seed_makes_the_same_pixels_and_truth(materials: Materials) -> None:
    first, second = scene(5, "test", materials), scene(5, "test", materials)
    np.testing.assert_array_equal(first.photo, second.photo)
    assert first.leaves == second.leaves
    assert not np.array_equal(first.photo, scene(6, "test", materials).photo)


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_are_exact_and_inside_the_picture(materials: Materials, split: Split) -> None:
    counts = []
    for seed in range(6):
        made = scene(seed, split, materials)
        assert made.photo.shape == (480, 640, 3)
        assert made.photo.dtype == np.uint8
        counts.append(len(made.leaves))
        for index, leaf in enumerate(made.leaves):
            x0, y0, x1, y1 = leaf.box
            assert 0 <= x0 < x1 <= 640
            assert 0 <= y0 < y1 <= 480
            rows, columns = np.nonzero(made.instances == index + 1)
            # A leaf may lie under another one, so what is seen of it is never outside its box.
            assert columns.min() >= x0
            assert columns.max() < x1
            assert rows.min() >= y0
            assert rows.max() < y1
    assert max(counts) <= 20
    assert len(set(counts)) > 3


def test_the_topmost_leaf_fills_its_box(materials: Materials) -> None:
    made = scene(7, "train", materials)
    rows, columns = np.nonzero(made.instances == len(made.leaves))
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert seen == made.leaves[-1].box


@pytest.mark.parametrize("split", SPLITS)
def test_grades_follow_from_the_painted_area(materials: Materials, split: Split) -> None:
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        severities = {name: float(rng.random()) for name in DISEASES if rng.random() < 0.4}
        leaf = make_leaf(seed, split, materials)
        _, labels, fractions = paint(leaf, seed, severities)
        area = (leaf.alpha > 0.5).sum()
        for index, disease in enumerate(DISEASES):
            assert fractions[disease] == (labels == index + 1).sum() / area
            assert fits_a_band(disease, fractions[disease])
            low, high = BANDS[disease][grade_of(disease, fractions[disease])]
            assert low <= fractions[disease] <= high
            seen.add((disease, grade_of(disease, fractions[disease])))
        assert sum(fractions.values()) <= MOST_PAINTED + 0.02
        assert not labels[leaf.alpha <= 0.5].any()
    assert len(seen) == 20  # every grade of every disease occurs


def test_a_healthy_leaf_is_left_as_it_is(materials: Materials) -> None:
    leaf = make_leaf(3, "train", materials)
    rgb, labels, fractions = paint(leaf, 3, {})
    np.testing.assert_array_equal(rgb, leaf.rgb)
    assert not labels.any()
    assert set(fractions.values()) == {0.0}


def test_grades_on_the_photograph_agree_with_what_is_seen(materials: Materials) -> None:
    agreed = total = 0
    for seed in range(8):
        made = scene(seed, "test", materials)
        for index, leaf in enumerate(made.leaves):
            here = made.instances == index + 1
            for number, disease in enumerate(DISEASES):
                seen = (here & (made.lesions == number + 1)).sum() / here.sum()
                agreed += grade_of(disease, seen) == leaf.grades[disease]
                total += 1
    assert agreed / total > 0.97


def test_the_splits_share_nothing(materials: Materials) -> None:
    assert not set(LEAVES["train"]) & set(LEAVES["test"])
    assert not set(FAMILIES["train"]) & set(FAMILIES["test"])
    paths = {split: {p for ps in BACKGROUNDS[split].values() for p in ps} for split in SPLITS}
    assert not paths["train"] & paths["test"]
    assert not set(materials.names["train"]) & set(materials.names["test"])
    bytes_of = {
        split: {p.tobytes() for p in materials.leaves[split] + materials.backgrounds[split]}
        for split in SPLITS
    }
    assert not bytes_of["train"] & bytes_of["test"]


def test_a_season_keeps_positions_and_heals_faster_in_the_active_area(
    materials: Materials,
) -> None:
    whole = Season(positions=6, days=10, seed=3, split="test", materials=materials)
    first = [whole.shot(position, 0) for position in range(6)]
    last = [whole.shot(position, 9) for position in range(6)]
    assert [shot.area for shot in first] == ["control", "active"] * 3
    assert len({shot.position_id for shot in first}) == 6

    def mean(shots: list, area: str) -> float:
        found = [
            g for s in shots if s.area == area for leaf in s.leaves for g in leaf.grades.values()
        ]
        return float(np.mean(found))

    for before, after in zip(first, last, strict=True):
        assert before.position_id == after.position_id
        assert (after.date - before.date).days == 9
        assert len(before.leaves) == len(after.leaves) <= 20
        for one, other in zip(before.leaves, after.leaves, strict=True):
            moved = np.abs(np.array(one.box) - np.array(other.box))
            assert moved.max() < 40
    healed = {area: mean(first, area) - mean(last, area) for area in ("control", "active")}
    assert healed["active"] > healed["control"] + 0.3
    assert healed["control"] > 0


def test_a_season_yields_day_by_day_what_its_shots_are(materials: Materials) -> None:
    whole = Season(positions=3, days=2, seed=8, split="test", materials=materials)
    shots = list(season(3, 2, 8, materials=materials))
    assert len(shots) == len(whole) == 6
    assert [shot.date for shot in shots] == sorted(shot.date for shot in shots)
    np.testing.assert_array_equal(shots[4].photo, whole.shot(1, 1).photo)
    assert shots[4].leaves == whole.shot(1, 1).leaves


@pytest.mark.parametrize("positions", [4, 13])
def test_a_season_has_more_than_ten_leaves_a_photo(materials: Materials, positions: int) -> None:
    whole = Season(positions, days=1, seed=1, split="test", materials=materials)
    assert np.mean([len(shot.leaves) for shot in whole]) >= 10.5


def test_crop_is_square_and_keeps_the_aspect() -> None:
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[100:150, 200:300] = 255
    crop = crop_leaf(photo, (200, 100, 300, 150))
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    assert crop.dtype == np.uint8
    white = crop[..., 0] > 200
    rows, columns = np.nonzero(white)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert width / height == pytest.approx(2, rel=0.1)
    assert (crop[0] == 114).all()  # grey where there is no leaf


@pytest.mark.parametrize("box", [(-40, -40, 30, 30), (600, 440, 700, 500), (5, 5, 6, 6)])
def test_crop_at_the_edge_and_of_a_tiny_box(box: tuple[int, ...]) -> None:
    photo = np.full((480, 640, 3), 9, np.uint8)
    assert crop_leaf(photo, box).shape == (CROP_SIZE, CROP_SIZE, 3)


@pytest.mark.parametrize("box", [(50, 50, 40, 60), (700, 500, 800, 600)])
def test_crop_of_nothing_is_grey(box: tuple[int, ...]) -> None:
    photo = np.full((480, 640, 3), 9, np.uint8)
    if box[0] > 640:
        assert (crop_leaf(photo, box) == 114).all()
    else:
        assert crop_leaf(photo, box).shape == (CROP_SIZE, CROP_SIZE, 3)


@pytest.mark.parametrize("shape", [(480, 640), (960, 1280), (300, 300), (50, 2000), (1, 1)])
def test_boxes_come_back_from_the_detectors_frame(shape: tuple[int, int]) -> None:
    photo = np.zeros((*shape, 3), np.uint8)
    frame, fit = fit_photo(photo)
    assert frame.shape == (480, 640, 3)
    height, width = shape
    whole = np.array([[0, 0, width, height]], np.float32)
    offset = np.array([fit.left, fit.top] * 2, np.float32)
    np.testing.assert_allclose(
        unfit_boxes(whole * fit.scale + offset, fit, photo.shape), whole, atol=1e-2
    )
    outside = unfit_boxes(np.array([[-50, -50, 900, 900]], np.float32), fit, photo.shape)
    assert (outside >= 0).all()
    assert (outside[:, 2:] <= [[width, height]]).all()


def test_two_callers_prepare_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(work: Path, target: Path) -> None:
        built.append(work)
        target.mkdir()

    monkeypatch.setattr(materials_module, "_build", build)
    threads = [
        threading.Thread(target=materials_module._prepared, args=(tmp_path,)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [materials_module.FORMAT]


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materials_module, "PACKAGES", {"pyleafarea": "0.0.0.dev0"})
    with pytest.raises(MaterialsError, match=r"pyleafarea==0\.0\.0\.dev0.*network"):
        ensure_materials(tmp_path)
    assert not (tmp_path / materials_module.FORMAT).exists()
