"""The study of model classes, in small: its file of rows, and the demo from end to end."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples.taskqueue import facts
from examples.taskqueue.browser import MISSING
from examples.taskqueue.facts import SWAPPED, Facts, judged
from tests.support.plants import left_behind

ROOT = Path(__file__).parents[2]


def test_the_demo_finds_all_as_it_must_be(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "examples.taskqueue.demo", "--rows=2000", f"--dir={folder}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout
    assert "NOT SO" not in done.stdout
    for line in (
        "side by side: setosa",
        "petal_width = asdfg, in Python: EncodeError: ",
        f"what iris raised: RequestRejected: {facts.TOO_LONG}",
        f"what oddity raised: RequestRejected: {SWAPPED}",
        "and its dead letter, for whoever runs it: ",
        "OpenAPI: petal_width is ",
        "JavaScript: Invalid: /input/",
        "results: 2,000 lines, in the order of the file",
        "errors: 2 invalid, each with its field; 1 rejected",
        "JavaScript: job ",
    ):
        assert f"\n{line}" in done.stdout, line
    if shutil.which("chromium"):
        assert "browser: /docs tried out: 200 ['setosa']" in done.stdout
    else:
        assert MISSING in done.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["libraries"] == facts.LIBRARIES
    assert report["job"]["rows"] == 2000
    assert left_behind(folder) == []


def test_a_file_of_rows_is_the_same_each_time(tmp_path: Path) -> None:
    # Here, as scikit-learn takes each of the processes that collect the tests over a second.
    from examples.taskqueue import data
    from examples.taskqueue.iris import SIDES

    first, again = tmp_path / "a.csv", tmp_path / "b.csv"
    written = data.write(first, 4000)
    assert data.write(again, 4000) == written
    assert first.read_bytes() == again.read_bytes()
    rows = list(csv.DictReader(first.read_text().splitlines()))
    assert len(rows) == len(written.species) == 4000
    assert [row["custom_id"] for row in rows] == [f"flower-{n}" for n in range(1, 4001)]
    assert len(written.invalid) == 4
    assert len(written.rejected) == 2
    for number, row in enumerate(rows, start=1):
        assert (row["petal_width"] == "asdfg") == (number in written.invalid)
        if number not in written.invalid:
            assert (float(row["sepal_length"]) > 10) == (number in written.rejected)
            assert all(0.1 <= float(row[side]) <= 30 for side in SIDES)


def test_a_fact_that_does_not_hold_is_told() -> None:
    console = Console(record=True)
    told = Facts(console)
    told.tell(True, "it is so")
    told.tell(False, "it is not")
    assert told.broken == ["it is not"]
    assert "NOT SO: it is not" in console.export_text()


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("iris", {"answers": [{"species": "setosa", "libraries": "numpy 1"}]}),
        ("misspelt", {"error": "Invalid", "message": "", "fields": ["petal_width"]}),
        ("too_long", {"error": "Failed", "message": ""}),
        ("broken", {"error": "Rejected", "message": ""}),
        ("unknown", "Failed"),
        ("events", {"events": [["end", {}]], "status": "succeeded"}),
    ],
)
def test_what_javascript_saw_is_judged(what: str, instead: Any) -> None:
    good: dict[str, Any] = {
        name: {"answers": [{"species": "setosa", "odd": False, "libraries": libraries}]}
        for name, libraries in facts.LIBRARIES.items()
    }
    good |= {
        "twice": [{"id": "a"}, {"id": "a"}],
        "misspelt": {"error": "Invalid", "message": "", "fields": ["petal_width", "sepal_width"]},
        "too_long": {"error": "Rejected", "message": "", "kind": "SepalTooLong"},
        "swapped": {"error": "Rejected", "message": SWAPPED},
        "broken": {"error": "Failed", "message": "", "letter": "17"},
        "events": {
            "events": [["progress", {}], ["answer", {}], ["end", {}]],
            "status": "succeeded",
        },
        "unknown": "Unknown",
    }
    assert all(kept for kept, _ in judged(good))
    assert not all(kept for kept, _ in judged({**good, what: instead}))
