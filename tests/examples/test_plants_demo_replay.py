"""The demo of a model upgrade in small: what it promises holds, and a signal leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.plants.versions import Versions
from tests.support.plants import left_behind, running, until_line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """With so many leaves; of live photographs few, which cost more than the replay."""
    options = (f"--leaves={request.param}", "--pace=0.5")
    with running("demo_replay", *options, folder=tmp_path / "demo") as process:
        yield process


@pytest.mark.parametrize("demo", [50], indirect=True)
def test_a_model_is_replaced(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    out, _ = demo.communicate(timeout=900)
    assert demo.returncode == 0, out
    assert "Traceback" not in out
    folder = tmp_path / "demo"
    report = json.loads((folder / "report.json").read_text())
    total = report["replayed"]
    assert total >= report["leaves_found"] >= 50
    assert report["live, during replay"]["photographs"] > 0
    assert report["rust_rows"].keys() == {"live, version 1", "rust2, version 2"}
    assert report["rust_rows"]["rust2, version 2"] == total
    assert report["compare"]["matched"] == total
    assert report["compare"]["only_new"] == report["compare"]["only_old"] == 0
    truth = report["truth"]
    assert truth["version_2"]["exact"] > truth["version_1"]["exact"]
    assert report["report"]["after"]["exact"] > report["report"]["before"]["exact"]
    assert report["shown_by_version"]["2"] == total
    assert report["last_graded_by"] == [["2"]]
    assert report["dead_letters"] == 0
    assert (folder / "versions.png").read_bytes().startswith(b"\x89PNG")
    assert 0 < report["compare"]["agree"] < total
    page = (folder / "compare.html").read_text()
    assert "rust2" in page
    assert '<img src="data:image/png;base64,' in page  # the leaves, whose rows have no picture
    assert left_behind(folder) == []


@pytest.mark.parametrize("demo", [1], indirect=True)
def test_a_signal_in_the_replay_stops_everything(
    demo: subprocess.Popen[str], tmp_path: Path
) -> None:
    until_line(demo, "mqinfer replay")
    demo.send_signal(signal.SIGTERM)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, out
    assert "Traceback" not in out
    assert left_behind(tmp_path / "demo") == []


def test_figures_follow_from_the_counted_grades() -> None:
    # (truth, version 1, version 2): one agrees, two are mended, one is spoilt, one wrong in both.
    found = Versions({(0, 0, 0): 10, (1, 2, 1): 6, (2, 0, 2): 2, (3, 3, 2): 1, (1, 0, 2): 1})
    assert found.leaves == 20
    assert (found.within(1, 0), found.within(2, 0)) == (11 / 20, 18 / 20)
    assert (found.within(1, 1), found.within(2, 1)) == (18 / 20, 1.0)
    assert (found.mended, found.spoilt, found.changed) == (8, 1, 10)
    assert found.sureness == pytest.approx(7 / 3)
    assert found.matrix(1, 2) == [[10, 0, 3, 0], [0, 0, 0, 0], [0, 6, 0, 0], [0, 0, 1, 0]]
    assert Versions({}).sureness == 0.0
