"""The suite finds what its tests left behind, whoever is its parent by then."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import subprocess
from tests.support import leftovers

mark = leftovers.mark()
subprocess.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"], check=True)  # an orphan at once
print(leftovers.end(mark, patience=0))
print(leftovers.end(mark, patience=60))
"""


def test_an_orphan_is_found_and_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, second = done.stdout.splitlines()
    assert "sleep 600" in first, done.stderr
    assert second == "[]"
