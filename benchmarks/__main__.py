"""`python -m benchmarks`: measure, show, and keep the figures.

Each benchmark is a module here with `async def measure(options: Options) -> Result`. One that
fails is told and the others go on; then the exit code is 1. A goal that is missed is a result.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks import report
from benchmarks.results import Options, Result
from mqinfer.observe import configure_logging

# What is measured without `--all`: under 25 minutes on 2 cores.
USUAL = (
    *("stage_loop", "ordered", "inference", "sink", "latency", "views", "start"),
    *("joins", "timers", "requests", "jobs"),
)
FURTHER = ("servers", "replay", "scale", "blobs", "cost", "decoders", "streams", "search")
NAMES = USUAL + FURTHER
_LIMIT = 3 * 3600.0  # seconds for one benchmark; search takes half an hour of a fast machine


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure mqinfer.")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        metavar="NAME",
        help=f"this benchmark; repeatable: {', '.join(NAMES)}",
    )
    chosen.add_argument(
        "--all", action="store_true", help=f"every one; else without {', '.join(FURTHER)}"
    )
    parser.add_argument(
        "--rows",
        default="",
        metavar="NAME,...",
        help="in stage_loop, rows whose names begin so, such as mqinfer,hand-written; "
        "in search, sizes: 10k,100k,1m",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the amount of work (default 1: to be quoted)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each row")
    parser.add_argument("--json", type=Path, default=Path(".mqinfer/bench.json"), metavar="PATH")
    parser.add_argument("--markdown", type=Path, default=Path(".mqinfer/bench.md"), metavar="PATH")
    parser.add_argument("--chart", type=Path, default=Path(".mqinfer/bench.png"), metavar="PATH")
    parsed = parser.parse_args(arguments)
    if not 0 < parsed.scale <= 100:
        parser.error("--scale must be more than 0 and at most 100")
    if parsed.repeat < 1:
        parser.error("--repeat must be at least 1")
    return parsed


async def bench(arguments: argparse.Namespace, console: Console) -> int:
    """Measure what was asked for; the exit code."""
    machine, began = report.Machine.this(), time.monotonic()
    console.print(f"[bold]mqinfer benchmarks[/bold] on {machine}")
    results: list[Result] = []
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    chosen = arguments.only or (NAMES if arguments.all else USUAL)
    for name in [name for name in NAMES if name in chosen]:
        started = time.monotonic()
        with progress(console, name) as say:
            try:
                result = await run(name, arguments, say)
            except Exception as error:  # noqa: BLE001 - told, and the others go on
                failed[name] = f"{type(error).__name__}: {error}"
                console.print(escape("".join(traceback.format_exception(error))), style="dim")
            else:
                results.append(result)
        seconds[name] = round(time.monotonic() - started, 1)
        if name not in failed:
            show(console, result)
        facts = {
            "machine": machine,
            "scale": arguments.scale,
            "repeat": arguments.repeat,
            "seconds": seconds,
            "failed": failed,
        }
        # After each, so that what was found stays found if the next one is interrupted.
        report.write_json(arguments.json, facts, results)
        report.write_markdown(arguments.markdown, machine, results)
    drawn = report.draw(arguments.chart, machine, results)
    took = time.monotonic() - began
    console.print(
        f"\n{took / 60:.1f} minutes; figures: {arguments.json}, {arguments.markdown}"
        + (f"; chart: {arguments.chart}" if drawn else "")
    )
    if arguments.scale < 1:
        console.print(f"At scale {arguments.scale:g}: to see that it runs, not to be quoted.")
    for name, why in failed.items():
        console.print(f"[red]failed[/red]  {name}: {escape(why)}")
    return 1 if failed else 0


async def run(name: str, arguments: argparse.Namespace, say: Callable[[str], None]) -> Result:
    """Run one benchmark in a folder of its own.

    Raises:
        Exception: what the benchmark raises.
        TimeoutError: it took too long.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory(
        prefix=f"bench-{name}-", dir=_work(), ignore_cleanup_errors=True
    ) as folder:
        rows = [row.strip().lower() for row in arguments.rows.split(",") if row.strip()]
        options = Options(Path(folder), arguments.scale, arguments.repeat, say, only=rows)
        async with asyncio.timeout(_LIMIT):
            result: Result = await module.measure(options)
            return result


def _work() -> Path:
    """Beside the project, as /tmp may be memory, and what is measured is on disk."""
    work = Path(".cache").absolute()
    work.mkdir(exist_ok=True)
    return work


@contextmanager
def progress(console: Console, name: str) -> Iterator[Callable[[str], None]]:
    """A line that says what goes on; lines, if this is no terminal."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{name}: {text}", highlight=False, markup=False)
        return
    with console.status(f"[bold]{name}[/bold]") as status:
        yield lambda text: status.update(f"[bold]{name}[/bold] {escape(text)}")


def show(console: Console, result: Result) -> None:
    """Print a table, the goals and the notes."""
    console.print()
    console.print(report.table(result))
    for goal in result.goals:
        console.print("  " + report.goal_line(goal), highlight=False)
    for note in result.notes:
        console.print("  " + note, style="dim", highlight=False, markup=False)


def main() -> int:
    """Run the command."""
    arguments = parse()
    configure_logging("warning", "console")
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        return asyncio.run(bench(arguments, console))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
