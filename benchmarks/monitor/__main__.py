"""`python -m benchmarks.monitor`: the study, as tables and a chart; `make monitor-study`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.monitor.study import changed, stable
from benchmarks.monitor.worlds import WORLDS
from mqinfer.monitor.detector import Budget
from mqinfer.monitor.distance import wilson

BECOMES = (0.15, 0.20, 0.30)


def main() -> int:
    """Measure, print and keep; 1 if the budget of false alarms is exceeded beyond chance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=1000, help="stable months of each world")
    parser.add_argument("--days", type=float, default=30, help="of a month")
    parser.add_argument("--changes", type=int, default=200, help="months with a change, of each")
    parser.add_argument("--most", type=int, default=60_000, help="rows that a change is waited for")
    names = [world.name for world in WORLDS]
    parser.add_argument("--world", choices=names, action="append", help="one of them; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to keep what was measured")
    parser.add_argument("--chart", type=Path, help="where to draw it (PNG)")
    options = parser.parse_args()
    budget = Budget(days=options.days)
    found: dict[str, Any] = {"months": options.months, "days": options.days, "worlds": {}}
    good = True
    for world in WORLDS:
        if world.name not in (options.world or names):
            continue
        began = time.process_time()
        with _bar(f"{world.name}: stable", options.months) as done:
            alarms = stable(world, options.months, options.days, budget, options.seed, done).alarms
        rows = {}
        with _bar(f"{world.name}: changed", len(BECOMES)) as done:
            for share in BECOMES:
                rows[f"{share:.2f}"] = changed(
                    world, share, options.changes, options.most, budget, options.seed
                ).rows
                done(1)
        told: dict[str, Any] = {"told": world.told, "rules": {}}
        found["worlds"][world.name] = told
        for name, counts in alarms.items():
            told["rules"][name] = {
                "months_with_alarm": int((counts > 0).sum()),
                "alarms_a_month": float(counts.mean()),
                "rows": {share: _spread(one[name]) for share, one in rows.items()},
            }
        mine = told["rules"]["mqinfer"]["months_with_alarm"]
        good = good and float(wilson(mine, options.months)[0]) <= budget.chance
        _print(world.name, told, options.months, time.process_time() - began)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.chart:
        from benchmarks.monitor.chart import draw

        draw(options.chart, found)
    return 0 if good else 1


@contextlib.contextmanager
def _bar(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """How far it is: a bar on a terminal, a line for every twentieth elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(name, total=total)
            yield lambda more: progress.advance(task, more)
        return
    so_far, told = 0.0, 0

    def line(more: float) -> None:
        nonlocal so_far, told
        so_far += more
        if (part := int(20 * so_far / total + 1e-6)) > told:
            told = part
            print(f"{name}: {5 * part} %", file=sys.stderr, flush=True)

    yield line


def _spread(rows: Any) -> list[float | None]:
    """The median and the 90th percentile; None where so many were never seen."""
    return [
        float(one) if np.isfinite(one) else None
        for one in (np.quantile(rows, part, method="higher") for part in (0.5, 0.9))
    ]


def _print(name: str, told: dict[str, Any], months: int, seconds: float) -> None:
    print(f"\n{name}: {told['told']} ({seconds:.0f} s of a processor)")
    heads = "".join(f"{f'0.10 -> {share:.2f}':>20}" for share in BECOMES)
    print(f"{'rule':22}{'months with alarm':>20}{'alarms a month':>16}{heads}")
    for rule, facts in told["rules"].items():
        share = f"{facts['months_with_alarm']} of {months}"
        line = f"{rule:22}{share:>20}{facts['alarms_a_month']:>16.2f}"
        for median, most in facts["rows"].values():
            line += f"{f'{_rows(median)} ({_rows(most)})':>20}"
        print(line, flush=True)


def _rows(rows: float | None) -> str:
    return "never" if rows is None else f"{rows:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
