"""A large replay beside live work: `python -m tests.faults.replay --messages 100000`.

Killed with SIGKILL three times and joined by a second worker, while live messages keep coming.
What must hold: one row of the run for each input, the live view as it was, every live message
answered once, and the live latency hardly worse than without the replay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import nats
from msgspec import Struct
from msgspec import json as msgjson

from mqinfer import connect
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.client import Client
from mqinfer.errors import MqinferError
from mqinfer.rowpacks.unpack import raw_rows
from mqinfer.rowpacks.which import pack_subject
from mqinfer.settings import Settings

from .processes import ROOT, until
from .replayed import Item, Score, app, value_of
from .servers import Servers

APP = "tests.faults.replayed:app"
RUN = "again"
KILLS = 3
# The first number of the live messages that come beside the replay.
PROBES_FROM = 10_000_000
_LOOK = 1.0  # seconds; a look is work for ClickHouse, which live messages would wait for


class Facts(Struct, kw_only=True):
    """What a replay did; times in seconds, latencies in milliseconds."""

    messages: int
    kills: int
    workers: int
    seconds: float
    run_rows: int
    run_inputs: int
    wrong: int
    probes: int
    probes_answered: int
    live_same: bool
    p50_without: float
    p99_without: float
    p50_during: float
    p99_during: float

    @property
    def ratio(self) -> float:
        """Of the 99th percentiles of the live latency."""
        return self.p99_during / self.p99_without

    def broken(self) -> list[str]:
        """What does not hold, the latency aside: that one depends on the machine."""
        found = []
        if not self.run_rows == self.run_inputs == self.messages:
            found.append(f"{self.run_rows} rows of {self.run_inputs} inputs")
        if self.wrong:
            found.append(f"{self.wrong} rows with a wrong value")
        if self.probes_answered != self.probes:
            found.append(f"{self.probes_answered} answers to {self.probes} live messages")
        if not self.live_same:
            found.append("the live view changed")
        return found


class Probes:
    """Live messages at a steady pace, and how long each took until its answer was published.

    The latency counts from the moment that a message was due, so that a late sender hides nothing.

    Args:
        client: publishes them.
        pace: messages a second.
    """

    def __init__(self, client: Client, pace: float):
        self._client = client
        self._pace = pace
        self._due: dict[int, float] = {}
        self.latencies: dict[int, float] = {}
        self.sent = 0
        self._wanted = False

    async def answered(self, message: nats.aio.msg.Msg) -> None:
        """A pack of answers went by."""
        now = time.perf_counter()
        for row in raw_rows(message.data):
            number = json.loads(row)["number"]
            due = self._due.get(number)
            if due is not None and number not in self.latencies:
                self.latencies[number] = 1000 * (now - due)

    async def run(self) -> None:
        """Send until `stop`."""
        self._wanted = True
        start, due = self.sent, time.perf_counter()
        began = due
        async with asyncio.TaskGroup() as group:
            while self._wanted:
                await asyncio.sleep(due - time.perf_counter())
                number = PROBES_FROM + self.sent
                self.sent += 1
                self._due[number] = due
                group.create_task(self._client.publish(Item(number), id=f"probe-{number}"))
                due = began + (self.sent - start) / self._pace

    async def during(self, work: Coroutine[Any, Any, None]) -> list[float]:
        """The latencies while `work` goes on, in order of size."""
        first = self.sent
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run())
            try:
                await work
            finally:
                self._wanted = False
        numbers = range(PROBES_FROM + first, PROBES_FROM + self.sent)
        await until(lambda: all(number in self.latencies for number in numbers), timeout=240)
        return sorted(self.latencies[number] for number in numbers)


def percentile(ordered: list[float], share: float) -> float:
    """Of ordered values, the one below which `share` of them lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.asynccontextmanager
async def mqinfer(
    name: str, *arguments: str, folder: Path, environ: dict[str, str], module: str = "mqinfer"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line in a process; killed at the end if it still runs."""
    with (folder / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            cwd=ROOT,
            env=os.environ | environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Replay:
    """One replay from the start of its servers to its facts.

    Args:
        folder: for everything it writes.
        messages: that are replayed.
        quiet: seconds for which the live latency is taken before and after.
        options: of `mqinfer replay`.
        pace: of the live messages beside it, a second.
        module: that runs a command; see `tests.support.eager`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        messages: int,
        quiet: float,
        options: tuple[str, ...],
        pace: float = 50.0,
        module: str = "mqinfer",
    ):
        self._folder = folder
        self._pace = pace
        self._module = module
        self._messages = messages
        self._quiet = quiet
        self._options = options
        self._environ: dict[str, str] = {}
        self._clickhouse: ClickHouse
        self._workers = 0

    async def __call__(self) -> Facts:
        """Run it."""
        async with contextlib.AsyncExitStack() as stack:
            servers = await stack.enter_async_context(Servers(self._folder))
            self._environ = servers.environ()
            settings = servers.settings()
            self._clickhouse = ClickHouse(settings.clickhouse_url)
            stack.push_async_callback(self._clickhouse.close)
            client = await stack.enter_async_context(connect(app, settings))
            await self._publish(client)
            await stack.enter_async_context(self._mqinfer("live", "worker", APP))
            await self._rows("", self._messages)
            return await self._beside(client, settings)

    async def _beside(self, client: Client, settings: Settings) -> Facts:
        connection = await nats.connect(settings.nats_url)
        probes = Probes(client, self._pace)
        await connection.subscribe(pack_subject(app, Score), cb=probes.answered)
        try:
            await probes.during(asyncio.sleep(2))  # whatever is loaded at first use
            before = await probes.during(asyncio.sleep(self._quiet))
            live = await self._live()
            began = time.monotonic()
            during = await probes.during(self._replay())
            seconds = time.monotonic() - began
            after = await probes.during(asyncio.sleep(self._quiet))
            await self._rows("", self._messages + probes.sent)
            same = await self._live() == live
        finally:
            await connection.close()
        run = await self._run_rows()
        without = sorted(before + after)
        return Facts(
            messages=self._messages,
            kills=KILLS,
            workers=self._workers,
            seconds=seconds,
            run_rows=run["rows"],
            run_inputs=run["inputs"],
            wrong=run["wrong"],
            probes=probes.sent,
            probes_answered=await self._count(f"_run = '' AND number >= {PROBES_FROM}"),
            live_same=same,
            p50_without=percentile(without, 0.5),
            p99_without=percentile(without, 0.99),
            p50_during=percentile(during, 0.5),
            p99_during=percentile(during, 0.99),
        )

    async def _publish(self, client: Client) -> None:
        for start in range(0, self._messages, 5000):
            numbers = range(start, min(start + 5000, self._messages))
            await client.publish_all(
                [Item(number) for number in numbers], ids=[f"in-{number}" for number in numbers]
            )

    async def _replay(self) -> None:
        """Start it, kill whoever works on it three times, and let two workers end it."""
        replay = (
            "replay", APP, "--stage=score", "--from-seq=1", f"--to-seq={self._messages}",
            f"--run={RUN}", *self._options, "--json",
        )  # fmt: skip
        join = ("worker", APP, f"--run={RUN}")
        for kill in range(KILLS):
            async with self._mqinfer(f"run-{kill}", *(join if kill else replay)) as process:
                # The rows of a run may be counted while it goes on: nobody else sees them.
                await self._rows(RUN, self._messages * (kill + 1) // (KILLS + 2), process)
                process.send_signal(signal.SIGKILL)
        async with self._mqinfer("last", *join) as one, self._mqinfer("joined", *join) as two:
            codes = await asyncio.gather(one.wait(), two.wait())
        if any(codes):
            raise AssertionError(f"the last workers of the run ended with {codes}; see their logs")

    def _mqinfer(
        self, name: str, *arguments: str
    ) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        self._workers += "run" in name or name in ("last", "joined")
        return mqinfer(
            name, *arguments, folder=self._folder, environ=self._environ, module=self._module
        )

    async def _rows(
        self, run: str, least: int, process: asyncio.subprocess.Process | None = None
    ) -> None:
        """Wait until there are so many rows of a run (`""`: live)."""
        async with asyncio.timeout(600):
            # How far a run is need not be exact; FINAL would cost what is measured beside it.
            while await self._count(f"_run = '{run}'", exact=process is None) < least:
                if process is not None and process.returncode is not None:
                    raise AssertionError(f"a worker of the run ended with {process.returncode}")
                await asyncio.sleep(_LOOK)

    async def _count(self, where: str, *, exact: bool = True) -> int:
        final = "FINAL" if exact else ""
        try:
            (row,) = await self._clickhouse.query(
                f"SELECT count() AS n FROM score__storage {final} WHERE {where}"
            )
        except MqinferError:  # the table is not there yet
            return 0
        return int(row["n"])

    async def _live(self) -> dict[str, Any]:
        """The live view's fingerprint, without the messages that keep coming."""
        (row,) = await self._clickhouse.query(
            "SELECT count() AS rows, groupBitXor(cityHash64(*)) AS hash FROM "
            "(SELECT number, value, _id, _run, _published, _models FROM score "
            f"WHERE number < {PROBES_FROM})"
        )
        return row

    async def _run_rows(self) -> dict[str, int]:
        (row,) = await self._clickhouse.query(
            "SELECT count() AS rows, uniqExact(number) AS inputs, "
            f"countIf(value != 2 * (number % 1000) + {value_of(0, RUN)}) AS wrong "
            f"FROM score__storage FINAL WHERE _run = '{RUN}'"
        )
        return row


def main() -> None:
    """Run it, print the facts; exit code 1 if one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.replay", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds before and after")
    parser.add_argument("--rate", type=float, help="of the run, messages a second and process")
    parser.add_argument("--share", type=float, help="of the Triton slots, for the run")
    parser.add_argument("--ratio", type=float, default=1.5, help="of the p99 that is accepted")
    parser.add_argument("--json", type=Path, help="where the facts are written")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    arguments = parser.parse_args()
    options = tuple(
        f"--{name}={value}"
        for name in ("rate", "share")
        if (value := getattr(arguments, name)) is not None
    )
    with tempfile.TemporaryDirectory(prefix="mqinfer-replay-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        facts = asyncio.run(
            Replay(folder, messages=arguments.messages, quiet=arguments.quiet, options=options)()
        )
    broken = facts.broken()
    if facts.ratio > arguments.ratio:
        broken.append(f"the live p99 is {facts.ratio:.2f} times that without the replay")
    print(
        f"{facts.messages:,} messages replayed in {facts.seconds:.0f} s by {facts.workers} "
        f"workers, {facts.kills} of them killed: {facts.run_rows:,} rows of "
        f"{facts.run_inputs:,} inputs\n"
        f"live view the same: {facts.live_same}; {facts.probes_answered:,} answers to "
        f"{facts.probes:,} live messages\n"
        f"live latency without the replay: p50 {facts.p50_without:.1f} ms, "
        f"p99 {facts.p99_without:.1f} ms; during: p50 {facts.p50_during:.1f} ms, "
        f"p99 {facts.p99_during:.1f} ms ({facts.ratio:.2f} times)"
    )
    for what in broken:
        print(f"broken: {what}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(msgjson.encode(facts))
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
