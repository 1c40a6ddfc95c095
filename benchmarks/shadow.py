"""What a shadow costs what is live: processor seconds and time, without one and with one.

    python -m benchmarks.shadow --messages 20000 --share 0.1

One worker with a model of Python functions, and a real nats-server and ClickHouse. The processor's
seconds are of publisher and worker (with the fake model in it), until the last live message is
answered, and until the shadow, which stands back meanwhile, is through as well. Other work on the
machine changes the time, and those little.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from mqinfer import App, Message, Row, wiring
from mqinfer.observe import configure_logging
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings
from mqinfer.testing import FakeModels, Harness, until


class Number(Message, subject="number"):
    value: int


def grading(name: str) -> App:
    """One stage, which asks a model and writes a row."""

    class Graded(Row, frozen=True, table=name, order_by="value"):
        value: int
        grade: int

    app = App(name)
    grader = app.model("grader", version="1")

    @app.stage(models=[grader])
    async def grade(number: Number) -> Graded:
        answer = await grader(x=np.array([number.value]))
        return Graded(number.value, int(answer["y"][0]))

    return app


def models() -> FakeModels:
    def same(x: Any) -> Any:
        return {"y": x}

    return FakeModels({"grader:1": same, "grader:2": same})


class Unaware(Worker):
    """One that does not look which shadows there are, as before there were any."""

    def _beside(self, *_: object) -> Any:
        return nullcontext()


async def once(
    name: str, settings: Settings, messages: int, share: float | None
) -> tuple[float, float, float]:
    """Processor seconds of the worker, and seconds, for publishing and answering all.

    Then processor seconds with all that the shadow has to do.

    Args:
        name: of the app.
        settings: of the servers.
        messages: how many.
        share: of the shadow; 0 is none, None is a worker that does not look for any.
    """
    app = grading(name)
    async with Harness(app, settings) as harness:
        shadows = wiring.shadows(app, harness.services.broker)  # type: ignore[arg-type]
        worker = (Unaware if share is None else Worker)(app, settings=settings)
        consumer = ""
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            await until(lambda: worker.engine is not None and not worker.not_ready())
            if share:
                run = await shadows.begin("grader", "2", share, late=3600.0)
                consumer = f"run-{run.name}-grade"
                working = worker._keeper._working  # type: ignore[union-attr]
                await until(lambda: any(one and one.complete for one in working.values()))
            cpu, began = time.process_time(), time.perf_counter()
            await harness.publish(*(Number(value) for value in range(messages)))

            async def answered() -> bool:
                await asyncio.sleep(0.2)
                return await harness.lag("grade") == 0

            async def through() -> bool:
                await asyncio.sleep(0.2)
                state = await harness.services.broker.consumer_state(app.name, consumer)
                return state is not None and state.lag == 0

            await until(answered, "the live answers", 600.0)
            used, seconds = time.process_time() - cpu, time.perf_counter() - began
            if consumer:
                await until(through, "the shadow's answers", 600.0)
            everything = time.process_time() - cpu
            worker.stop()
        return used, seconds, everything


async def measure(messages: int, share: float, rounds: int) -> None:
    """Print medians of both, taken in turns."""
    found: dict[float | None, list[tuple[float, float, float]]] = {None: [], 0.0: [], share: []}
    with tempfile.TemporaryDirectory() as folder, models():
        options = StackSettings(dir=Path(folder), nats_port=0, triton=False, clickhouse_port=0)
        async with Stack(options) as stack:
            settings = Settings.load(
                {},
                nats_url=stack.nats_url,
                clickhouse_url=stack.clickhouse_url,
                blobs=f"{folder}/blobs",
            )
            await once("warm", settings, messages, share)
            for number in range(rounds):
                for one, list_ in found.items():
                    name = f"m{number}_{'none' if one is None else int(100 * one)}"
                    list_.append(await once(name, settings, messages, one))
    for one, times in found.items():
        cpu, seconds, everything = (statistics.median(part) for part in zip(*times, strict=True))
        title = "does not look" if one is None else f"share {one:g}"
        print(
            f"{title}: {1e6 * cpu / messages:.0f} us of a processor and "
            f"{1e6 * seconds / messages:.0f} us a message, "
            f"{1e6 * everything / messages:.0f} us of a processor until the shadow is through "
            f"(medians of {rounds})"
        )


def main() -> None:
    """Measure, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    configure_logging("error")
    asyncio.run(measure(chosen.messages, chosen.share, chosen.rounds))


if __name__ == "__main__":
    main()
