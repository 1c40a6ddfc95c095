"""`python -m benchmarks.contenders JOB`: do one job, given and answered as JSON."""

from __future__ import annotations

import asyncio
import importlib
import sys

import msgspec

from benchmarks.contenders import Drained, Job

# Longer than any job takes, so that one whose benchmark was killed does not stay for ever.
_LIMIT = 300.0


async def contend(job: Job) -> Drained:
    module = importlib.import_module(f"benchmarks.contenders.{job.contender}")
    async with asyncio.timeout(_LIMIT):
        drained: Drained = await module.drain(job)
        return drained


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    factory = None
    if job.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        drained = runner.run(contend(job))
    print(msgspec.json.encode(drained).decode())


if __name__ == "__main__":
    main()
