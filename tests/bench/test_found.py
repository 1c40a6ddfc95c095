"""What bounds a pipeline, by what was measured; and the folder of a run that was killed."""

import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mqinfer.bench.found import Measured, verdict
from mqinfer.bench.machine import own_folder
from mqinfer.bench.windows import FINE, quantile
from mqinfer.counts import Histogram

ROOT = str(Path(__file__).parents[2])


def stage(name="grade", **values):
    return Measured(name, **{"rate": 100.0, "each": 5.0, "handled": 1000, "loop": 0.2, **values})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"loop": 0.95, "own": 0.8},
            "The processor bounds it: 9.5 ms a message, most of it its own",
        ),
        ({"loop": 0.95, "own": 0.1}, "most of it mqinfer's part"),
        ({"loop": 0.3, "threads": 1.5}, r"most of it threads .* More processes"),
        ({"loop": 0.9, "own": 0.8, "machine": 0.99}, "All cores are busy.*more machines"),
        ({"models": 0.8, "model": "m", "batch": 2.0, "max_batch": 32}, r"80% .* 2.0 items.*fill"),
        ({"models": 0.8, "model": "m", "batch": 30.0, "max_batch": 32}, "a second Triton"),
        ({"models": 0.8, "model": "m", "machine": 0.95}, "a GPU or a machine of its own"),
        ({"publishing": 0.7}, "to store outputs"),
        ({"other": 0.8}, "neither a model nor the stream.*concurrency="),
        ({"waiting": 0.9}, "waits for messages"),
        ({"code": 0.4}, "No single thing"),
    ],
)
def test_the_sentence_says_what_bounds_it_and_what_to_do(values, says):
    found = verdict([stage(**values), stage("other", rate=10_000.0)], 15.0, 2)
    assert "grade bounds the pipeline: alone it follows 20 messages from outside a second" in found
    assert "all stages in one process 15" in found
    assert re.search(says, found), found


def test_figures_that_contradict_each_other_are_told():
    assert "measure again" in verdict([stage()], 100.0, 2)
    assert "measure again" not in verdict([stage()], 20.0, 2)


def test_a_sink_may_bound_it():
    assert "ClickHouse takes no more" in verdict([stage("sink-grade", inserting=0.9)], 0.0, 2)


def test_the_one_that_follows_the_fewest_messages_from_outside_bounds_it():
    quick, slow = stage("quick", rate=50.0, each=0.1), stage("slow", rate=100.0, each=50.0)
    assert verdict([quick, slow], 0.0, 2).startswith("slow bounds")
    assert verdict([quick, slow, stage("idle", each=0.0)], 0.0, 2).startswith("slow bounds")


def test_nothing_handled_says_why():
    dead = Measured("crop", each=1.0, dead=5, reason="BadImage: empty")
    assert "crop failed with BadImage: empty" in verdict([dead], 0.0, 2)
    assert "--messages or --sample" in verdict([Measured("crop")], 0.0, 2)


def test_quantiles_are_read_from_the_counts():
    values = [random.Random(1).expovariate(100) for _ in range(10_000)]
    histogram = Histogram(FINE, unit=1e9)
    for value in values:
        histogram.observe(value * 1e9)
    values.sort()
    for share in (0.5, 0.99):
        assert quantile(histogram, share) == pytest.approx(values[int(10_000 * share)], rel=0.06)
    assert quantile(Histogram(FINE), 0.5) is None


def test_a_folder_that_a_killed_run_left_goes_and_one_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = (
        "import os, signal; from mqinfer.bench.machine import own_folder\n"
        "with own_folder() as folder: (folder / 'x').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environ = {**os.environ, "PYTHONPATH": ROOT, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environ, timeout=60)
    (left,) = tmp_path.iterdir()
    assert (left / "x").exists()
    (tmp_path / "mqinfer-other").mkdir()
    with own_folder() as first:
        assert not left.exists()
        with own_folder() as second:
            assert first.exists()
            assert second.exists()
        assert not second.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mqinfer-other"]
