"""A NATS cluster of three and workers on hosts of their own, while links are cut and heal."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.cluster import leader

from .app import Counted, Double, Number, Step, app
from .network import Host, Network, why_no_hosts
from .processes import cluster, connected, worker

NO_HOSTS = why_no_hosts()
pytestmark = pytest.mark.skipif(NO_HOSTS is not None, reason=NO_HOSTS or "")

PORTION, POSITIONS = 120, 6


class Account:
    """What was published, and what came of it."""

    def __init__(self, harness: Harness):
        self._harness = harness
        self.published = 0

    async def publish(self) -> None:
        """The next portion of both types."""
        numbers = range(self.published, self.published + PORTION)
        await self._harness.publish(*(Number(number) for number in numbers))
        await self._harness.publish(*(Step(f"p{n % POSITIONS}", n) for n in numbers))
        self.published += PORTION

    async def answered(self) -> None:
        """Wait until all of it is answered."""

        async def all_answered() -> bool:
            try:
                lags = [await self._harness.lag(name) for name in ("count", "double")]
                if any(lags):
                    return False
                # What is not yet copied into its partition is no lag of a consumer.
                answers = [await self._harness.messages(kind) for kind in (Counted, Double)]
            except MqinferError:
                return False  # an election, or cut off
            return all(len(found) >= self.published for found in answers)

        await until(all_answered, "an answer for each", timeout=120)

    async def check(self) -> None:
        """Nothing is lost, nothing is twice, in order where there is one, and nothing is dead.

        Raises:
            MqinferError: it cannot be told now.
        """
        doubles = [one.number for one in await self._harness.messages(Double)]
        assert sorted(doubles) == [2 * number for number in range(self.published)]
        counted: dict[str, list[Counted]] = defaultdict(list)
        for one in await self._harness.messages(Counted):
            counted[one.position].append(one)
        for position in range(POSITIONS):
            steps = counted[f"p{position}"]
            numbers = range(position, self.published, POSITIONS)
            assert [step.number for step in steps] == list(numbers)
            assert [step.count for step in steps] == list(range(1, len(numbers) + 1))
        assert await self._harness.dead() == []

    async def whole(self) -> bool:
        """Check it, if it can be told now."""
        try:
            await self.check()
        except MqinferError:
            return False  # an election
        return True

    async def whole_while_replicas_return(self) -> bool:
        """Check it; whether all replicas have by now what the leader has."""
        broker = self._harness.services.broker
        assert isinstance(broker, JetStream)
        if not await self.whole():
            return False
        try:
            info = await broker.stream_info("hosts")
        except MqinferError:
            return False
        assert info is not None
        return all(one["current"] for one in info["cluster"]["replicas"])


def test_links_that_are_cut_half_open_slow_and_lossy(tmp_path: Path) -> None:
    servers = ("n1", "n2", "n3")
    with (
        Network((*servers, "w1", "w2", "client")) as net,
        cluster([net[name] for name in servers], tmp_path) as urls,
    ):
        settings = Settings.load({}, nats_url=urls, blobs=str(tmp_path / "blobs"), grace=10.0)
        workers = [worker(net[n], "tests.hosts.app:app", settings, tmp_path) for n in ("w1", "w2")]
        with workers[0], workers[1]:
            net["client"].run(_story(net, settings))
            for each in workers:
                assert each.stop() == 0, each.log.read_text()[-3000:]


async def _story(net: Network, settings: Settings) -> None:
    async def fault(what: Callable[[], None], *hosts: Host) -> None:
        publishing = asyncio.create_task(account.publish())
        what()
        await publishing
        await account.answered()  # by others, where these are cut off
        for host in hosts:
            host.healed()
        await account.publish()
        await account.answered()

    def both_slow() -> None:
        w1.slow()
        w2.slow()

    await connected(settings)
    w1, w2 = net["w1"], net["w2"]
    async with Harness(app, settings) as harness:
        account = Account(harness)
        await account.publish()
        await account.answered()
        await fault(w1.deaf, w1)
        await fault(w2.mute, w2)
        await fault(both_slow, w1, w2)
        first = net[await leader(harness, "hosts")]
        await fault(first.cut)
        first.healed()
        # It tells what it had when it was cut off, until it follows another leader.
        await until(account.whole_while_replicas_return, "all replicas", timeout=120)
        await account.publish()
        await account.answered()
        await until(account.whole, "the account", timeout=60)
