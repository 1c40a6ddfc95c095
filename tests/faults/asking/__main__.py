"""The long version: `python -m tests.faults.asking --requests 20000 --jobs 20 --faults 100`."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from tests.faults.progress import Progress

from .account import Account
from .run import Run


async def _run(arguments: argparse.Namespace, folder: Path) -> Account:
    with Progress(arguments.requests, arguments.faults, "requests") as progress:
        run = Run(
            folder,
            requests=arguments.requests,
            jobs=arguments.jobs,
            rows=arguments.rows,
            faults=arguments.faults,
            seed=arguments.seed,
            cluster=arguments.cluster,
            kinds=arguments.kind,
            patience=arguments.patience,
            progress=progress,
        )
        title = f"{run.account.title}, {arguments.requests:,} requests, {arguments.jobs} jobs"
        print(f"seed {arguments.seed}: {title}, {arguments.faults} faults", flush=True)
        return await run()


def _without_nats(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Drop what the harness's own connection says of servers that it kills itself."""
    if event.get("event") == "nats":
        raise structlog.DropEvent
    return event


def main() -> None:
    """Run it; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.asking", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300, help="of each job")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--cluster", type=int, default=1, help="nats-servers: 1 or 3")
    parser.add_argument("--kind", action="append", help="of faults; default: all")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--patience", type=float, default=180.0, help="seconds without progress")
    parser.add_argument("--json", type=Path, help="where the account is written")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    arguments = parser.parse_args()
    structlog.configure(processors=[_without_nats, *structlog.get_config()["processors"]])
    with tempfile.TemporaryDirectory(prefix="mqinfer-asking-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        account = asyncio.run(_run(arguments, folder))
        print(account.table(), flush=True)
        for path in sorted(folder.glob("offender-*.txt"))[:3]:
            print(f"\n--- {path.name}\n{path.read_text()}", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(f"{account.json()}\n")
    raise SystemExit(0 if account.clean else 1)


if __name__ == "__main__":
    main()
