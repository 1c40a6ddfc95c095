"""A better model arrives: replay what it would have said, compare, promote, let it answer live.

    python -m examples.plants.demo_replay

`make demo-replay` runs it. A season is graded by version 1 of `grade_rust`. Then version 2 is
loaded, and all leaves go through it again while the drones keep flying. Both versions are held
against the truth, the run is promoted, the report changes, and version 2 goes live. Every step is a
command that one could type. It keeps what it promises or ends with exit code 1 and the name of what
it did not keep.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import itertools
import math
import shutil
import sys
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client as ClickHouse
from rich.console import Console

import mqinfer
from examples.plants import fleet
from examples.plants.analysis import study
from examples.plants.app import app
from examples.plants.chart import draw_versions
from examples.plants.commands import Commands, Replay
from examples.plants.drones import Drones, made, next_days
from examples.plants.flying import ANSWERS, contents, fly_and_wait
from examples.plants.local import (
    APP,
    MODELS,
    WORKERS,
    Pipeline,
    all_done,
    clear,
    conclude,
    dead_letters,
    load_version,
    machine,
    pipeline,
    run_to_exit,
    say_where,
    while_alive,
)
from examples.plants.progress import Bar, follow
from examples.plants.season import Season
from examples.plants.versions import (
    SURE,
    Versions,
    answered,
    change_table,
    report,
    shown,
    truth_table,
    versions,
)
from stages.plants.queries import GRADED

RUN, MODEL, DISEASE = "rust2", "grade_rust", "rust"
DAYS = 11
FEWEST = 12.0  # leaves found on a photograph, on average: a little less than there are
QUIET = 20  # live photographs before the replay, to know how long grades take without it
LAST = 5  # photographs that version 2 grades at the end
SWITCH = 20  # photographs until which a worker must have noticed the alias

console = Console(highlight=False, soft_wrap=True)


@dataclass
class Story:
    """The steps, on a pipeline that runs; each leaves its figures and the promises it broke."""

    running: Pipeline
    season: Season
    pace: float
    share: float
    database: ClickHouse
    mqinfer: Commands
    figures: dict[str, Any]
    broken: list[str]

    def promise(self, kept: bool, otherwise: str) -> None:
        """Note a promise that is not kept."""
        if not kept:
            self.broken.append(otherwise)

    async def tell(self) -> None:
        """All of it, from the first photograph to the last."""
        await self.mqinfer.text("models", APP, "--set", f"{MODEL}@live=1")
        ahead = asyncio.create_task(made(next_days(self.season), self.season.positions))
        try:
            first = await fly_and_wait(
                console,
                self.running,
                self.database,
                fleet.flights(self.season),
                total=len(self.season),
                what="the season, graded by version 1",
            )
            self.figures |= {"photographs": first.photographs, "leaves_found": first.leaves}
            self.figures["pipeline_seconds"] = round(first.seconds, 1)
            async with mqinfer.connect(app, self.running.settings) as client:
                drones = Drones(client, self.season, self.pace, await ahead)
                async with aclosing(drones):
                    await self._replay(drones)
                    await self._compare()
                    await self._promote()
                    await self._switch(drones)
        finally:
            ahead.cancel()
        dead = await dead_letters(app, self.running.settings)
        self.figures["dead_letters"] = dead
        self.promise(not dead, f"{dead} dead letters")

    async def _replay(self, drones: Drones) -> None:
        """Load version 2 and replay everything with it, while the drones fly on."""
        for _ in range(min(QUIET, max(1, self.season.positions // 4))):
            await drones.send()
        seconds = await load_version(self.running.stack, MODEL, "2")
        console.print(
            f"version 2 of {MODEL} is loaded, Triton serves it after {seconds:.1f} s; "
            "live goes on with version 1"
        )
        await self._done()
        before = await self._first_flight()

        words = (APP, f"--stage={MODEL}", "--from-seq=1", f"--model={MODEL}=2", f"--run={RUN}")
        console.print(f"mqinfer replay {' '.join(words)} --share={self.share:g}")
        replay = Replay(
            *words,
            f"--share={self.share:g}",
            log=self.running.stack.dir / "logs" / "replay.log",
            environment=self.running.stack.environment(),
        )
        async with AsyncExitStack() as exits:
            exits.push_async_callback(replay.stop, 12.0)
            await replay.start()
            await replay.wait_ready()
            began, (run, *_) = time.time_ns(), replay.events()
            total = run["total"]
            quiet = len(drones.sent)
            work = asyncio.create_task(self._beside(replay, drones))
            bars = [
                Bar("leaves replayed", total, replay.done),
                Bar("live photographs", None, lambda: len(drones.sent) - quiet),
            ]
            try:
                ended = await follow(console, bars, work)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        await self._done()

        seconds = (ended - began) / 1e9
        during = [where for where, at in drones.sent.items() if began <= at < ended]
        console.print(
            f"replayed {total:,} leaves in {seconds:.1f} s "
            f"({total / seconds:,.0f}/s), {len(during)} live photographs meanwhile"
        )
        self.figures |= {"replayed": total, "replay_seconds": round(seconds, 1)}
        self.promise(len(during) > 0, "no live photograph came during the replay")
        self._live(drones, during)
        self._rows(total)
        same = before == await self._first_flight()
        self.promise(same, "the replay changed live rows of the first flight")
        console.print(f"live rows of the first flight: {'unchanged' if same else 'CHANGED'}")

    async def _beside(self, replay: Replay, drones: Drones) -> int:
        """Fly until the replay has ended, and that day to its end; when it ended."""

        async def end() -> int:
            await replay.ended()
            return time.time_ns()

        ending = asyncio.create_task(end())
        try:
            while not ending.done():
                await drones.send()
            ended = await ending
            while len(drones.sent) % self.season.positions:
                await drones.send(steadily=False)
            return ended
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    def _live(self, drones: Drones, during: list[tuple[str, Any]]) -> None:
        """How long live photographs waited for their grades, and who graded them."""
        parameters = {"disease": DISEASE, "since": self.season.after}
        found = self.database.query(GRADED, parameters=parameters)
        graded = {(place, date): at for place, date, at, _ in found.result_rows}
        others = sum(names != ["1"] for *_, names in found.result_rows)
        first = during[0] if during else None
        quiet = itertools.takewhile(lambda where: where != first, drones.sent)
        for name, among in (("quiet", list(quiet)), ("during replay", during)):
            waits = drones.waits(among, graded)
            self.figures[f"live, {name}"] = waits.figures()
            console.print(f"live photographs, {name}: {waits}")
        self.promise(not others, f"{others} live photographs were not graded by version 1")

    def _rows(self, total: int) -> None:
        """Who answered what: version 1 live, version 2 in the run, once each."""
        found = answered(self.database, DISEASE)
        self.figures["rust_rows"] = {
            f"{run or 'live'}, version {version}": rows
            for (run, version), (rows, _) in found.items()
        }
        for (run, version), (rows, leaves) in found.items():
            where = f"run {run}" if run else "live"
            console.print(f"rust rows of {where}: {rows:,} by version {version}")
            self.promise(
                (run, version) in (("", "1"), (RUN, "2")), f"version {version} answered in {where}"
            )
            self.promise(rows == leaves, f"{rows} rows of {leaves} leaves in {where}")
        rows = found.get((RUN, "2"), (0, 0))[0]
        self.promise(rows == total, f"the run has {rows} rows of {total} leaves")

    async def _compare(self) -> None:
        """`runs compare`, and both versions against the truth."""
        page = self.running.stack.dir / "compare.html"
        words = (
            APP,
            RUN,
            "--ignore=disease_model_version",
            "--ignore=confidence",
            f"--html={page}",
        )
        facts = await self.mqinfer.facts("runs", "compare", *words)
        (table,) = facts["tables"]
        counts = {name: table[name] for name in ("matched", "agree", "only_new", "only_old")}
        self.figures["compare"] = counts
        console.print(
            f"compared: {table['matched']:,} matched, {table['only_new']} only in the run, "
            f"{table['only_old']} only live"
        )
        total = self.figures["replayed"]
        self.promise(
            (table["matched"], table["only_new"], table["only_old"]) == (total, 0, 0),
            f"compare has {counts} of {total} leaves",
        )
        changes = table["columns"]["predicted_grade"]["changes"]
        counted = sum(cell["n"] for cell in changes)
        self.promise(counted == total, f"compare's matrix has {counted} of {total} leaves")

        found = await asyncio.to_thread(versions, self.database, RUN, DISEASE)
        self.figures["truth"] = found.figures()
        console.print(truth_table(found))
        chart = self.running.stack.dir / "versions.png"
        await asyncio.to_thread(draw_versions, found, DISEASE, chart)
        console.print(f"page: {page}\nchart: {chart}")
        self._better(found)

    def _better(self, found: Versions) -> None:
        old, new = found.within(1, 0), found.within(2, 0)
        self.promise(
            found.sureness >= SURE,
            f"version 2 is not surely better: exact {new:.4f} after {old:.4f}, "
            f"{found.mended} mended, {found.spoilt} spoilt",
        )
        self.promise(found.within(2, 1) >= 0.98, f"within one is {found.within(2, 1):.4f}")

    async def _promote(self) -> None:
        """`runs promote`; the report changes for rust and for nothing else."""
        others = f"disease_type != '{DISEASE}'"
        before = await asyncio.to_thread(self._report)
        rest = contents(self.database, ["disease_grade"], others)
        facts = await self.mqinfer.facts("runs", "promote", APP, RUN)
        self.promise(facts["state"] == "promoted", f"the run is {facts['state']}")
        after = await asyncio.to_thread(self._report)
        console.print(change_table(before, after, DISEASE))
        self.figures["report"] = {"before": before, "after": after}
        self.promise(after["exact"] > before["exact"], "the report's rust is no better")
        same = rest == contents(self.database, ["disease_grade"], others)
        self.promise(same, "the promotion changed grades of other diseases")
        now = await self.mqinfer.facts("runs", "show", APP, RUN)
        table = now["tables"]["disease_grade"]
        total = self.figures["replayed"]
        self.promise(
            (now["answered"], table["rows"], table["shown"], table["live_hidden"]) == (total,) * 4,
            f"runs show has {table} of {total} leaves",
        )
        rows = shown(self.database, DISEASE)
        live = sum(rows.values()) - total
        self.figures["shown_by_version"] = rows
        self.promise(rows == {"1": live, "2": total} and live > 0, f"rows shown by version: {rows}")
        console.print(
            f"promoted: {total:,} rust rows of version 2 are shown, and {live:,} of version 1 "
            f"that came after the replayed range; others {'as before' if same else 'DIFFER'}"
        )

    def _report(self) -> dict[str, Any]:
        days = (self.season.start, self.season.after - datetime.timedelta(days=1))
        return report(study(self.database), DISEASE, days)

    async def _switch(self, drones: Drones) -> None:
        """Set the alias; version 2 grades the last photographs, in the same processes."""
        pids = [worker.pid for worker in self.running.workers]
        await self.mqinfer.text("models", APP, "--set", f"{MODEL}@live=2")
        began = time.monotonic()
        for _ in range(SWITCH):
            if await self._graded_by(await drones.send()) == ["2"]:
                break
        took = time.monotonic() - began
        names = {tuple(await self._graded_by(await drones.send())) for _ in range(LAST)}
        same = pids == [worker.pid for worker in self.running.workers]
        self.figures |= {"last_graded_by": sorted(map(list, names)), "same_processes": same}
        self.promise(names == {("2",)}, f"after the alias was set, {names} graded")
        self.promise(same, "a worker started again")
        console.print(
            f"{MODEL}@live=2: noticed within {took:.1f} s, {LAST} photographs more are graded by "
            f"version 2, in the {'same' if same else 'NEW'} processes\n"
        )
        for words in (("runs", "show", APP, RUN), ("models", APP)):
            console.print(f"mqinfer {' '.join(words)}")
            console.print(await self.mqinfer.text(*words), markup=False)

    async def _graded_by(self, where: tuple[str, Any]) -> list[str]:
        """The versions that graded a photograph, when all is done."""
        await self._done()
        return list(shown(self.database, DISEASE, where))

    async def _done(self) -> None:
        await all_done(app, self.running.settings, lambda: None)

    async def _first_flight(self) -> dict[str, tuple[int, int]]:
        """What the views show of the season, as counts and hashes."""
        tables = [table for table in ANSWERS if table != "position"]
        where = f"date < '{self.season.after}'"
        return await asyncio.to_thread(contents, self.database, tables, where)


async def demo_replay(
    leaves: int, seed: int, pace: float, share: float, folder: Path
) -> dict[str, Any]:
    """Run it all.

    Returns:
        The figures of the report.

    Raises:
        Broken: a promise does not hold; the text names the figures.
        StackError: something died or did not start; the text has the end of its log.
    """
    began = time.monotonic()
    photographs = math.ceil(leaves / FEWEST)
    positions = max(4, 2 * math.ceil(photographs / DAYS / 2))
    season = await asyncio.to_thread(
        fleet.new_season, positions, max(2, math.ceil(photographs / positions)), seed
    )
    console.print(f"starting servers, with version 1 of {MODEL} alone, and workers ...")
    clear(folder)
    models = folder / "models"
    await asyncio.to_thread(shutil.copytree, MODELS, models)
    await asyncio.to_thread(shutil.rmtree, models / MODEL / "2")
    figures: dict[str, Any] = {"machine": machine()}
    broken: list[str] = []
    async with pipeline(folder, models, APP, WORKERS) as running:
        say_where(running, console)
        database = await asyncio.to_thread(
            clickhouse_connect.get_client, dsn=running.settings.clickhouse_url
        )
        try:
            commands = Commands(running.stack.environment())
            story = Story(running, season, pace, share, database, commands, figures, broken)
            await while_alive(running, story.tell())
        finally:
            database.close()
    if (found := figures["leaves_found"]) < leaves:
        broken.append(f"{found} leaves found, less than {leaves}")
    conclude(figures, broken, folder, time.monotonic() - began, console)
    return figures


def main() -> int:
    """Run the demo; 0 if every promise holds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plants.demo_replay", description="A better model, by replay."
    )
    parser.add_argument("--leaves", type=int, default=10_000, help="at least, to be replayed")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn")
    parser.add_argument("--pace", type=float, default=2.0, help="live photographs a second")
    parser.add_argument("--share", type=float, default=0.5, help="of Triton, for the replay")
    parser.add_argument("--dir", type=Path, default=Path(".mqinfer/demo-replay"), help="cleared")
    options = parser.parse_args()
    folder = options.dir.absolute()
    return run_to_exit(
        demo_replay(options.leaves, options.seed, options.pace, options.share, folder)
    )


if __name__ == "__main__":
    sys.exit(main())
