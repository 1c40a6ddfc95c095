"""A server that crashes as it starts is started again; one that says what is wrong is not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from mqinfer.stack.errors import StackError
from mqinfer.stack.parts import Part
from mqinfer.stack.server import Server

# Ends as its first argument says in each of its first lives, then serves: a file says so.
PROGRAM = """
import os, pathlib, signal, sys, time
end, lives, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
before = len(list(folder.glob("life*")))
(folder / f"life{before}").touch()
print(f"life {before}", file=sys.stderr, flush=True)
if before < lives:
    if end.isdecimal():
        sys.exit(int(end))
    os.kill(os.getpid(), signal.Signals[end])
(folder / "ready").touch()
time.sleep(600)
"""


class Program(Server):
    """Ends in so many lives before it serves.

    Args:
        folder: for its files.
        end: a signal's name, or an exit code.
        lives: that end so.
    """

    name = "Program"

    def __init__(self, folder: Path, end: str, lives: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "log")
        self.folder = folder
        self.end = end
        self.lives = lives

    def prepare(self) -> None:
        (self.folder / "ready").unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-c", PROGRAM, self.end, str(self.lives), str(self.folder)]

    async def probe(self) -> bool:
        return (self.folder / "ready").exists()

    @property
    def begun(self) -> int:
        """Lives that began."""
        return len(list(self.folder.glob("life*")))


@pytest.mark.parametrize("end", ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"])
@pytest.mark.parametrize("lives", [0, 1, 2])
async def test_one_that_crashes_as_it_starts_is_started_again(
    tmp_path: Path, end: str, lives: int
) -> None:
    server, said = Program(tmp_path, end, lives), list[str]()
    try:
        await server.bring_up(60, said.append)
        assert server.running
        assert not server.died
        assert server.begun == lives + 1
        assert said == lives * [
            f"warning: Program was ended by {end} as it started, and is started again; its log is "
            f"{tmp_path / 'log'}"
        ]
    finally:
        await server.stop()


async def test_one_that_crashes_each_time_is_told_with_its_log(tmp_path: Path) -> None:
    server, said = Program(tmp_path, "SIGABRT", 9), list[str]()
    with pytest.raises(StackError, match=r"(?s)Program was ended by SIGABRT; the end of .*life 2"):
        await server.bring_up(60, said.append)
    assert (server.begun, len(said)) == (3, 2)
    await server.stop()


@pytest.mark.parametrize("end", ["1", "3", "SIGKILL", "SIGTERM"])
async def test_one_that_ends_itself_or_is_ended_is_not(tmp_path: Path, end: str) -> None:
    server, said = Program(tmp_path, end, 9), list[str]()
    with pytest.raises(StackError, match=f"(ended by|with exit code) {end}"):
        await server.bring_up(60, said.append)
    assert (server.begun, said) == (1, [])
    await server.stop()


async def test_one_that_is_slow_is_not_started_again(tmp_path: Path) -> None:
    class Slow(Program):
        async def probe(self) -> bool:
            return False

    server = Slow(tmp_path, "SIGABRT", 0)
    try:
        with pytest.raises(StackError, match=r"Program was not ready within 0\.1 s"):
            await server.bring_up(0.1)
        assert server.running
    finally:
        await server.stop()
    assert server.begun <= 1


async def test_cancelled_between_its_crashes_it_leaves_nothing(tmp_path: Path) -> None:
    server = Program(tmp_path, "SIGABRT", 1)
    crashed = asyncio.Event()
    task = asyncio.create_task(server.bring_up(60, lambda _line: crashed.set()))
    async with asyncio.timeout(60):
        await crashed.wait()
    family = [
        process
        for process in psutil.Process().children(recursive=True)
        if str(tmp_path) in " ".join(process.cmdline())
    ]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.stop()
    _, left = await asyncio.to_thread(psutil.wait_procs, family, 60)
    assert left == []
    assert not server.running


@pytest.mark.parametrize(("lives", "stays"), [(1, True), (9, False)])
async def test_a_crash_leaves_no_place_to_another_program_but_a_third_does(
    tmp_path: Path, lives: int, stays: bool
) -> None:
    best, next_best = Program(tmp_path / "a", "SIGABRT", lives), Program(tmp_path / "b", "1", 0)
    part, said = Part([best, next_best]), list[str]()
    instead = "warning: the embedded Program is not used, but the embedded"
    try:
        await part.start(60, said.append)
        assert part.server is (best if stays else next_best)
        assert best.begun == (2 if stays else 3)
        assert (next_best.begun == 0) is stays
        assert len(said) == (1 if stays else 3)
        assert said[-1].startswith(instead) is not stays
    finally:
        await part.server.stop()
