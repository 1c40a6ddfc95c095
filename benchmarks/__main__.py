"""`python -m benchmarks`: measure, print a table, keep the numbers as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.stage_loop import Row, run

# Goals: of the hand-written best on nats-py's public API, and times FastStream.
OF_HANDWRITTEN, TIMES_FASTSTREAM = 0.85, 9.0


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", choices=["stage_loop"], help="one benchmark")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=180, help="bytes of text in a message")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path(".mqinfer/bench.json"))
    arguments = parser.parse_args()

    rows = [
        Row("handwritten", "asyncio"),
        Row("handwritten", "uvloop"),
        Row("naive", "asyncio"),
        Row("faststream", "asyncio"),
        Row("mqinfer", "asyncio"),
        Row("mqinfer", "uvloop"),
    ]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"stage_loop: {arguments.messages:,} x {arguments.size} B, {machine}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(
            run(
                Path(folder),
                rows,
                messages=arguments.messages,
                size=arguments.size,
                repeat=arguments.repeat,
            )
        )
    by_name = {(row.name, row.loop): row for row in rows}
    table = Table(title=f"stage_loop ({machine})")
    for heading in ("loop", "event loop", "messages/s", "spread", "µs processor", "of the limit"):
        table.add_column(heading, justify="left" if heading in ("loop", "event loop") else "right")
    for row in rows:
        limit = by_name["handwritten", "asyncio" if row.loop == "asyncio" else "uvloop"]
        table.add_row(
            row.name,
            row.loop,
            f"{row.rate:,.0f}",
            f"{min(row.rates):,.0f} to {max(row.rates):,.0f}",
            f"{row.microseconds:.1f}",
            f"{row.rate / limit.rate:.2f}",
        )
    Console().print(table)
    ours = by_name["mqinfer", "asyncio"]
    for what, found, goal in (
        (
            "of the hand-written best",
            ours.rate / by_name["handwritten", "asyncio"].rate,
            OF_HANDWRITTEN,
        ),
        ("x FastStream", ours.rate / by_name["faststream", "asyncio"].rate, TIMES_FASTSTREAM),
    ):
        verdict = "met" if found >= goal else "missed"
        print(f"{found:.2f} {what} (goal {goal}): {verdict}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps(
            {
                "machine": machine,
                "messages": arguments.messages,
                "rows": [
                    {"name": r.name, "loop": r.loop, "rates": r.rates, "cpu_us": r.cpu}
                    for r in rows
                ],
            },
            indent=2,
        )
    )
    print(f"numbers: {arguments.json}")


if __name__ == "__main__":
    main()
