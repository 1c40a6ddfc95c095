"""The producer process: publishes inputs under ids of its own, as far as it is allowed to.

It may be killed at any time: the next one begins again at the last number before which all were
acknowledged, and what it publishes twice is stored once.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import mqinfer
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.cli.options import configure_logs
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings

from .counters import Counters
from .pipeline import Source, app, source_id

WINDOW = 200


async def _run(counters: Counters, inputs: int) -> None:
    async with mqinfer.connect(app) as client:

        async def publish(number: int) -> None:
            while True:
                try:
                    await client.publish(Source(number), id=source_id(number), timeout=5.0)
                except MqinferError as error:
                    print(f"input {number} again: {error}", flush=True)
                    await asyncio.sleep(0.2)
                else:
                    return

        start = counters.get("published")
        while start < inputs:
            end = min(start + WINDOW, counters.get("limit"), inputs)
            if end <= start:
                await asyncio.sleep(0.02)
                continue
            async with asyncio.TaskGroup() as group:
                for number in range(start, end):
                    group.create_task(publish(number))
            start = end
            counters.set("published", start)


def main() -> None:
    """Publish until all inputs are acknowledged."""
    bind_to_supervisor()
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--slot", help="whose process it is")
    arguments = parser.parse_args()
    configure_logs(Settings.load())
    asyncio.run(_run(Counters(arguments.folder / "producer.counters"), arguments.inputs))


if __name__ == "__main__":
    main()
