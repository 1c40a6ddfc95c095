"""The case study from end to end on this machine; `make demo-search` runs it.

    python -m examples.search.demo
    python -m examples.search.demo --things 2000         all there are

Starts servers, applies `deploy.toml`, and takes in pictures of the same things by two hands; asks
what is like them, beside a comparison of all with all; makes near-duplicates; removes, kills,
scales, cuts shards anew and rolls a version out, while somebody searches. It keeps what it
promises, or ends with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from examples.mlwatch import photographs
from examples.plants.local import Broken, clear, conclude, dead_letters, machine, run_to_exit
from examples.requests.checks import Checks, leaves
from examples.requests.local import browser
from examples.search import acts, changing, models, pictures
from examples.search.acts import Show
from examples.search.app import app
from examples.search.asking import Visitor, embedded
from examples.search.local import APP, WAIT, Album, album
from mqinfer import Settings, wiring
from mqinfer.observe import configure_logging
from mqinfer.replay.tracked import Record
from mqinfer.testing import until

THINGS = 600  # of 1,911, each by two hands
_ASKED = 40  # pictures that are searched for without a pause

console = Console(highlight=False, soft_wrap=True)


async def demo(things: int, folder: Path) -> None:
    """Run it all.

    Raises:
        Broken: a promise does not hold.
        StackError: something did not start; the text has the end of its log.
    """
    began = time.monotonic()
    configure_logging("warning", "console")
    console.print("making models, fetching pictures and starting servers ...")
    collection = await asyncio.to_thread(pictures.folder)
    photos = await asyncio.to_thread(photographs.originals)
    repository = await asyncio.to_thread(models.repository)
    clear(folder)
    checks, late = Checks(console), list[BaseException]()
    try:
        async with album(folder, repository) as running:
            await _all(running, collection, photos, things, checks)
    except* (AssertionError, TimeoutError) as errors:
        late.append(errors)
    if late:
        raise Broken(f"what was waited for did not come: {leaves(late[0])}")
    checks.figures["machine"] = machine()
    if (tracker := wiring.tracker()) is not None:  # MLFLOW_TRACKING_URI is set
        console.print(await asyncio.to_thread(tracker.keep, _record(things, checks)))
    conclude(checks.figures, checks.broken, folder, time.monotonic() - began, console)


async def _all(running: Album, collection: Path, photos: Path, count: int, checks: Checks) -> None:
    await _deployed(running, checks)
    drawn = pictures.things(collection)
    chosen = drawn[:: max(1, len(drawn) // count)][:count]
    step = max(1, len(chosen) // _ASKED)
    files = [(collection / "twemoji" / one).read_bytes() for one in chosen[::step]]
    versions = (("lite0", "1"), ("lite0", "2"), ("lite2", "1"))
    queries = await embedded(files, versions)
    visitor = Visitor(running.url)
    show = Show(running, checks, visitor, collection, photos, chosen, queries)
    try:
        there = await acts.taken_in(show)
        _scaled(running, checks)
        known = await acts.near(show)
        await changing.quick(show)
        await acts.weighed(show)
        there = await acts.alike(show, there)
        await acts.gone_and_back(show, there)
        await _page(show)
        await changing.shard_dies(show)
        await changing.resharded(show)
        await changing.rolled_out(show, there, known["lite0"])
        await changing.checked(show)
        letters = await dead_letters(app, Settings.load(running.stack.environment()))
        checks.check(letters == 0, "no dead letter")
    finally:
        await visitor.close()
        await running.deployed.stop(40.0)


async def _deployed(running: Album, checks: Checks) -> None:
    """What the file says runs."""
    file = str(running.deployed.file)
    told = await running.command("deploy", "diff", APP, file, "--target=local", codes=(0, 1))
    lines = [line for line in told.strip().splitlines() if "  stage " not in line]
    for line in lines:
        checks.fact(f"  {line[:150]}")
    await running.deployed.start()
    await running.deployed.wait_ready(300.0)

    async def held() -> bool:
        holdings = await running.holdings()
        return len(holdings) == 2 and all(one.ready for one in holdings)

    await until(held, "processes that hold shards", WAIT)
    checks.fact(f"page: {running.url} ({machine()})")


def _record(things: int, checks: Checks) -> Record:
    """The study as an experiment: recall, what is found across hands by weights, how quick."""
    metrics: dict[str, float] = {}
    for name, value in checks.figures.items():
        given = value if isinstance(value, dict) else {"": value}
        for part, number in given.items():
            if isinstance(number, (int, float)):
                metrics[re.sub(r"[^\w ./-]", "-", f"{name} {part}".strip())] = float(number)
    told = {"things": str(things), "models": "lite0, lite2", "machine": machine()}
    report = {"report.json": json.dumps(checks.figures, indent=2, default=str)}
    return Record("image search", "demo", parameters=told, metrics=metrics, files=report)


def _scaled(running: Album, checks: Checks) -> None:
    """What the supervisor did while pictures came."""
    lines = [
        json.loads(one) for one in running.deployed.log.read_text().splitlines() if one[:1] == "{"
    ]
    found = [
        (one["before"], one["processes"])
        for one in lines
        if (one["event"], one.get("group")) == ("scaling", "worker-embed")
    ]
    told = ", ".join(f"{before} -> {after}" for before, after in found) or "none more"
    checks.fact(f"workers of models, by what waited for them: {told}", scaled=found)


async def _page(show: Show) -> None:
    """The page, in a browser if there is one."""
    program, checks = browser(), show.checks
    try:
        from examples.search.page import looking
    except ImportError:
        program = None
    if program is None:
        console.print("no browser: pip install playwright, and have a chromium on the PATH")
        return
    thing = next((one for one in show.things if "cat" in one), show.things[0])
    shown = thing.removesuffix(".png").replace("_", " ")
    async with looking(program, show.album.url) as page:
        await page.drop(thing, show.file("twemoji", thing))
        await page.says("shards answered")
        await page.warns("")
        await page.sees(f"{shown}, noto")
        checks.check(await page.whole(), "page: a dropped picture, and what is like it")
        folder = show.album.stack.dir
        await page.photograph(folder / "page.png")
        await page.photograph(folder / "page-dark.png", dark=True)
        await page.photograph(folder / "page-phone.png", width=390)
        await page.weigh(100)
        await page.says("shards answered")
        await page.look(f"{shown}, noto")
        await page.says("shards answered")
        checks.check(await page.whole(), "page: as well on a phone, and by other weights")
        wrong = "; ".join(page.mistakes)
        checks.check(not wrong, f"page: no mistake of its code {wrong}")


def main() -> int:
    """Run the demo; 0 if every promise holds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.search.demo", description="Image search, end to end."
    )
    parser.add_argument(
        "--things", type=int, default=THINGS, help="that are searched, by two hands"
    )
    parser.add_argument("--dir", type=Path, default=Path(".mqinfer/search"), help="cleared first")
    options = parser.parse_args()
    # Of all processes that are started here: several of them share the processors, and each thread
    # of OpenBLAS that waits for one keeps it from the others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run_to_exit(demo(options.things, options.dir.absolute()))


if __name__ == "__main__":
    sys.exit(main())
