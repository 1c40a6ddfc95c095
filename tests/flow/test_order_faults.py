"""Order by key through deaths, stalls, workers that join and a server that is killed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings
from mqinfer.testing import Harness, until
from tests.flow.test_ordered import Fleet, all_answered, numbers, produce
from tests.support import ordered_app


async def test_order_by_key_through_everything(tmp_path: Path) -> None:
    chosen = StackSettings(dir=tmp_path, nats_port=0, triton=False, clickhouse=False)
    keys = [f"p{index}" for index in range(24)]
    async with Stack(chosen) as stack:
        settings = Settings.load({}, nats_url=stack.nats_url, blobs=str(tmp_path / "blobs"))
        fleet = Fleet(settings, tmp_path / "handled")
        async with Harness(ordered_app.app, settings) as harness:
            enough = asyncio.Event()
            for _ in range(2):
                await fleet.start()
            producer = asyncio.create_task(produce(harness, keys, enough))
            try:
                first, second = fleet.workers
                await fleet.busy(first)
                first.kill()
                await fleet.start()  # one that joins
                await fleet.busy(second)
                await fleet.stand_still(second)
                await fleet.start()
                await fleet.busy(fleet.workers[2])
                enough.set()
                count = await producer  # the others took over all that it had
                second.send_signal(signal.SIGCONT)
                assert_no_repeat_comes_late(fleet, keys)

                # More than is answered before the server is killed.
                backlog = [
                    ordered_app.Leaf(key, number)
                    for number in range(count, count + 30)
                    for key in keys
                ]
                await harness.publish(*backlog)
                count += 30
                seen = len(fleet.lines())
                await until(lambda: len(fleet.lines()) > seen + 50, "work on the backlog")
                assert stack.nats is not None
                stack.nats.kill()
                await stack.nats.wait()
                await stack.nats.start()
                await stack.nats.wait_ready()
                fleet.workers[3].kill()
                await until(lambda: harness.services.broker.blocked is None, "a connection")
                await all_answered(harness, count * len(keys), count * len(keys))
            finally:
                producer.cancel()
                codes = await fleet.stop()
            assert codes[:4] == [-signal.SIGKILL, 0, 0, -signal.SIGKILL]
            expected = {key: list(range(count)) for key in keys}
            assert numbers(await harness.messages(ordered_app.Step)) == expected
            assert await harness.dead() == []
            for key, begun in fleet.begun().items():  # a killed server forgets what was settled
                assert list(dict.fromkeys(begun)) == expected[key]


def assert_no_repeat_comes_late(fleet: Fleet, keys: list[str]) -> None:
    """While the server lives: again after a failure or a death, but never after a later one."""
    begun = fleet.begun()
    for key in keys:
        assert begun[key] == sorted(begun[key])
