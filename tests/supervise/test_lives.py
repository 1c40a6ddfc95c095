"""When a process that died is started again, and how its end is told."""

import os
import signal
import subprocess
import sys

import pytest

from mqinfer.supervise.guard import end_with
from mqinfer.supervise.lives import Lives, ended_by


def test_pauses_grow_from_crash_to_crash_up_to_a_bound() -> None:
    lives, now, pauses = Lives(), 1000.0, []
    assert lives.due(now)
    for _ in range(9):
        lives.begin(now)
        assert not lives.due(now + 1e9)  # one is there
        now += 1.0
        pauses.append(lives.crash(now))
        assert not lives.due(now + pauses[-1] - 0.01)
        now += pauses[-1]
        assert lives.due(now)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert lives.crashes == 9


def test_one_that_lived_long_begins_anew() -> None:
    lives = Lives()
    for began in (0.0, 1.0, 2.0):
        lives.begin(began)
        lives.crash(began + 0.5)
    assert lives.crashes == 3
    lives.begin(10.0)
    assert lives.crash(3600.0) == 0.5
    assert lives.crashes == 1


def test_none_follows_the_last_one() -> None:
    lives = Lives()
    lives.begin(0.0)
    lives.crash(1.0)
    lives.end()
    assert not lives.due(1e9)


@pytest.mark.parametrize(
    ("code", "by"),
    [
        (-signal.SIGKILL, "SIGKILL"),
        (-signal.SIGSEGV, "SIGSEGV"),
        (0, None),
        (3, None),
        (-999, None),
    ],
)
def test_how_it_ended(code: int, by: str | None) -> None:
    assert ended_by(code) == by


def test_a_child_whose_parent_is_gone_ends_at_once() -> None:
    gone = os.getpid()  # of the child below it is a grandparent, and no parent
    code = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', "
        f"'from {end_with.__module__} import end_with; end_with({gone}); print(1)'"
        "], stdout=sys.stderr).returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"")
