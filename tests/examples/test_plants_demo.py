"""The demo in small: it ends with its report, and a death ends it with the log; nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.plants.analysis import Agreement, Study
from examples.plants.app import app
from examples.plants.flying import Run
from examples.plants.local import clear
from mqinfer.stack import Stack, StackError, StackSettings
from tests.support.plants import left_behind, piped, running, until_line

ROOT = Path(__file__).parents[2]


# What is around every demo, with one worker: the demos' own work is as much again to start.
AROUND = """
import asyncio, sys
from pathlib import Path
from rich.console import Console
from examples.plants.local import APP, clear, pipeline, run_to_exit, say_where, while_alive

async def demo(folder):
    clear(folder)
    (folder / "models").mkdir()
    async with pipeline(folder, folder / "models", APP, {"reports": ["report"]}) as running:
        say_where(running, Console(soft_wrap=True))
        await while_alive(running, asyncio.sleep(3600))

sys.exit(run_to_exit(demo(Path(sys.argv[1]))))
"""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One that does nothing once everything runs."""
    with piped("-c", AROUND, str(tmp_path / "demo")) as process:
        yield process


def test_it_reports_and_leaves_nothing(tmp_path: Path) -> None:
    options = ("--positions=2", "--days=2")
    with running("demo", *options, folder=tmp_path / "demo") as demo:
        out, _ = demo.communicate(timeout=900)
    # So few leaves may miss a promise about the models, and that alone.
    broken = re.findall(r"^failed: (.*)$", out, re.MULTILINE)
    assert demo.returncode == (1 if broken else 0), out
    assert all(re.match(r"(precision|recall|exact|within_one) is", text) for text in broken), out
    assert "Traceback" not in out
    folder = tmp_path / "demo"
    report = json.loads((folder / "report.json").read_text())
    assert report["photographs"] == 4
    assert report["grades"] == 5 * report["leaves_found"] > 0
    assert report["rows_after_first"] == report["rows_after_second"]
    assert report["dead_letters"] == 0
    assert report["rows_after_first"].keys() == {*app.rows} - {"reminder", "daily_effect"}
    assert (report["reports"], report["alarms"], report["mornings"]) == (4, [], 2)
    assert report["reminders"]["last"] == 2
    for line in ("reports: 4 of 4", "alarms: 0", "daily analysis: 2", "cache: ", "reminders: 2"):
        assert f"\n{line}" in out
    assert (folder / "watch.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "healing.png").read_bytes().startswith(b"\x89PNG")
    assert left_behind(folder) == []


def test_ctrl_c_stops_everything(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """SIGTERM ends the other demo, whose signals are taken by the same lines."""
    until_line(demo, "worker reports")
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, out
    assert left_behind(tmp_path / "demo") == []


def test_a_death_ends_it_with_the_log(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    found = until_line(demo, r"worker reports: process (\d+)")
    os.kill(int(found[1]), signal.SIGKILL)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, out
    assert "error: worker reports was ended by SIGKILL; the end of" in out
    assert "started" in out  # the log's tail
    assert "Traceback" not in out
    assert left_behind(tmp_path / "demo") == []


def test_every_broken_promise_is_named_with_its_figure() -> None:
    from examples.plants.demo import broken_promises

    rows = {"disease_grade": (500, 1), "leaf_found": (100, 2)}
    good = Study([], [], [Agreement("rust", 500, ["grade_rust 1"], 0.85, 0.98)], 100, 100, 95)
    run = Run(photographs=10, leaves=100, grades=500, seconds=1.0, expected=0.5)
    assert broken_promises(run, good, rows, rows, dead=0) == []

    bad = Study([], [], [Agreement("rust", 500, ["grade_rust 1"], 0.84, 0.97)], 100, 110, 94)
    more = {"disease_grade": (505, 3), "leaf_found": (100, 2)}
    short = Run(photographs=10, leaves=100, grades=499, seconds=1.0, expected=0.5)
    assert broken_promises(short, bad, rows, more, dead=2) == [
        "499 grades of 100 leaves, not 5 each",
        "precision is 0.940, less than 0.95",
        "recall is 0.855, less than 0.95",
        "exact is 0.840, less than 0.85",
        "within_one is 0.970, less than 0.98",
        "the second run changed disease_grade: 500 rows, then 505",
        "2 dead letters",
    ]
    nothing = Study([], [], [], 0, 0, 0)
    assert len(broken_promises(Run(0, 0, 0, 1.0, 0.5), nothing, rows, rows, dead=0)) == 5


async def test_only_a_folder_of_its_own_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StackError, match="choose another with --dir"):
        clear(tmp_path)
    assert (tmp_path / "thesis.txt").exists()

    folder = tmp_path / "stack"
    settings = StackSettings.free_ports(folder, triton=False, clickhouse=False)
    async with Stack(settings):
        with pytest.raises(StackError, match="is in use"):
            clear(folder)
    assert (folder / "nats").is_dir()
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["lock"]
