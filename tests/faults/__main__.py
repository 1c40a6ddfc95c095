"""The long version: `python -m tests.faults --inputs 50000 --faults 100 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from .account import Account
from .harness import Run
from .memory import draw
from .progress import Progress


async def _run(arguments: argparse.Namespace, folder: Path) -> list[Account]:
    accounts = []
    runs = []
    if arguments.faults:
        runs.append((1, arguments.inputs, arguments.faults))
    if arguments.cluster_faults:
        runs.append((3, arguments.cluster_inputs, arguments.cluster_faults))
    for cluster, inputs, faults in runs:
        place = folder / ("single" if cluster == 1 else "cluster")
        place.mkdir(parents=True)
        with Progress(inputs, faults) as progress:
            run = Run(
                place,
                inputs=inputs,
                faults=faults,
                seed=arguments.seed,
                cluster=cluster,
                patience=arguments.patience,
                steady=True,
                progress=progress,
            )
            print(f"seed {arguments.seed}: {run.account.title}, {inputs:,} inputs, {faults} faults")
            account = await run()
        print(f"{account.table()}\n\n{run.memory.table()}\n{run.memory.verdict()}\n", flush=True)
        accounts.append(account)
        if arguments.charts:
            title = f"{run.account.title}, {inputs:,} inputs, {faults} faults"
            path = arguments.charts / f"faults-memory-{place.name}.png"
            draw(path, title, run.memory.samples)
            print(f"memory over time: {path}", flush=True)
    return accounts


def _without_nats(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Drop what the harness's own connection says of servers that it kills itself."""
    if event.get("event") == "nats":
        raise structlog.DropEvent
    return event


def main() -> None:
    """Run with one server, then with a cluster; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--cluster-inputs", type=int, default=5_000)
    parser.add_argument("--cluster-faults", type=int, default=15)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--patience", type=float, default=300.0, help="seconds without progress")
    parser.add_argument("--charts", type=Path, help="folder for charts of the memory (PNG)")
    parser.add_argument("--json", type=Path, help="where the accounts are written")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    arguments = parser.parse_args()
    structlog.configure(processors=[_without_nats, *structlog.get_config()["processors"]])
    with tempfile.TemporaryDirectory(prefix="mqinfer-faults-") as temporary:
        folder = arguments.folder or Path(temporary)
        accounts = asyncio.run(_run(arguments, folder))
    if arguments.json:
        text = ",\n".join(account.json() for account in accounts)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(f"[{text}]\n")
    raise SystemExit(0 if all(account.clean for account in accounts) else 1)


if __name__ == "__main__":
    main()
