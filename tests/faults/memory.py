"""Memory: what every process of a run holds over time, and whether one grows without end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

INTERVAL = 2.0  # seconds
# Less tells nothing: a process that has just begun still fills its caches.
_LIFE = 120.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


class Sample(NamedTuple):
    """What a process held at one moment.

    Attributes:
        at: seconds since the run began.
        pid: of the process; another one is another life.
        mib: resident, in MiB, with the processes below it.
    """

    at: float
    pid: int
    mib: float


class Life(NamedTuple):
    """The longest life of a place; memory in MiB.

    Attributes:
        processes: that the place had.
        seconds: of the longest life.
        start, middle, most, end: of that life: at first, median, at most, at last.
        growth: the median of the last fifth of it, less that of the second; None if it was short.
    """

    processes: int
    seconds: float
    start: float
    middle: float
    most: float
    end: float
    growth: float | None


class Memory:
    """Samples the memory of processes.

    Args:
        processes: gives those that live now: their ids by what they are called.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int | None]]):
        self.samples: dict[str, list[Sample]] = {}
        self._processes = processes
        self._began = time.monotonic()

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.take()
            await asyncio.sleep(INTERVAL)

    def take(self) -> None:
        """Sample now."""
        at = time.monotonic() - self._began
        children = _children()
        for name, pid in self._processes().items():
            if pid is not None and (size := _resident(pid)):
                size += sum(_resident(child) for child in _under(pid, children))
                self.samples.setdefault(name, []).append(Sample(at, pid, size / _MIB))

    def lives(self) -> dict[str, Life]:
        """The longest life of each place."""
        return {name: life_of(samples) for name, samples in self.samples.items()}

    def verdict(self) -> str:
        """Which of our places that lived long enough to tell grew most, in one line.

        A server that stores what comes is expected to grow.
        """
        lives = {
            name: life
            for name, life in self.lives().items()
            if life.growth is not None and _is_ours(name)
        }
        if not lives:
            return f"no worker lived for {_LIFE:.0f} s: nothing can be said of growth"
        name, life = max(lives.items(), key=lambda item: item[1].growth or 0.0)
        growth = life.growth or 0.0
        return (
            f"most growth after warming up: {name}, {growth:+.1f} MiB "
            f"({growth / life.middle:+.1%}) in {life.seconds:.0f} s"
        )

    def table(self) -> str:
        """For a person."""
        heads = ("MiB resident", "lives", "longest, s", "start", "median", "max", "end", "growth")
        rows = [heads]
        for name, life in sorted(self.lives().items()):
            growth = "too short" if life.growth is None else f"{life.growth:+.1f}"
            sizes = [f"{size:.0f}" for size in life[1:6]]
            rows.append((name, str(life.processes), *sizes, growth))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def life_of(samples: list[Sample]) -> Life:
    """The longest life among the samples of a place."""
    by_pid: dict[int, list[Sample]] = {}
    for sample in samples:
        by_pid.setdefault(sample.pid, []).append(sample)
    longest = max(by_pid.values(), key=lambda life: life[-1].at - life[0].at)
    sizes = [sample.mib for sample in longest]
    seconds = longest[-1].at - longest[0].at
    fifth = len(sizes) // 5
    growth = None
    if seconds >= _LIFE and fifth:
        growth = median(sizes[-fifth:]) - median(sizes[fifth : 2 * fifth])
    return Life(len(by_pid), seconds, sizes[0], median(sizes), max(sizes), sizes[-1], growth)


def draw(path: Path, title: str, samples: Mapping[str, list[Sample]]) -> None:
    """Draw a chart of the memory over time: a panel for workers, one for servers.

    Args:
        path: of the PNG.
        title: of the run.
        samples: by what the processes are called.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(2, 1, sharex=True)
    ours = {name for name in samples if _is_ours(name)}
    for panel, heading, names in (
        (panels[0], "workers and producer", sorted(ours)),
        (panels[1], "servers", sorted(samples.keys() - ours)),
    ):
        for name in names:
            times, sizes = zip(*_with_gaps(samples[name]), strict=True)
            width = 2.0 if "steady" in name else 1.0
            panel.plot(times, sizes, linewidth=width, label=name)
        panel.set_title(f"{heading}, MiB resident", loc="left", fontweight="bold")
        panel.set_ylim(bottom=0)
        panel.grid(color="#e6e6e6", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        if names:
            panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    panels[1].set_xlabel("seconds; a line is interrupted where the process is another one")
    drawing.suptitle(f"Memory under faults: {title}", fontsize=13, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130, facecolor="white")


def _with_gaps(samples: list[Sample]) -> Iterator[tuple[float, float]]:
    before = samples[0].pid
    for sample in samples:
        if sample.pid != before:
            yield sample.at, float("nan")
            before = sample.pid
        yield sample.at, sample.mib


def _is_ours(name: str) -> bool:
    return name.startswith(("worker ", "producer"))


def below(pid: int) -> list[int]:
    """The processes below a process."""
    return list(_under(pid, _children()))


def _under(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    for child in children.get(pid, ()):
        yield child
        yield from _under(child, children)


def _children() -> dict[int, list[int]]:
    """The children of every process of the machine."""
    found: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        # The name, in brackets, may hold anything.
        parent = int(stat.rpartition(")")[2].split()[1])
        found.setdefault(parent, []).append(int(entry.name))
    return found


def _resident(pid: int) -> int:
    """Bytes; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
