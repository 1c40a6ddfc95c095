"""Pictures of the console's pages, with what the study leaves behind, for the documentation.

    python -m examples.plants.pages --out docs

Starts the embedded servers and the workers, flies the first days of a season, makes them the
reference of what the graders say, flies the last ones beside a shadow, replays all leaves with
version 2 of `grade_rust`, and takes pictures of the pages. None of them shows a photograph, since
those are composed of other people's pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import clickhouse_connect
from PIL import Image
from playwright.async_api import Page, async_playwright, expect
from rich.console import Console as Terminal

from examples.plants import fleet
from examples.plants.app import app
from examples.plants.commands import Commands
from examples.plants.flying import fly_and_wait
from examples.plants.local import (
    APP,
    MODELS,
    WORKERS,
    Pipeline,
    all_done,
    clear,
    pipeline,
    run_to_exit,
    while_alive,
)
from examples.plants.season import Season
from mqinfer.console.console import Console
from mqinfer.console.options import Options
from mqinfer.testing import until

RUN, MODEL = "rust2", "grade_rust"
GRADES = f"series=disease_grade.predicted_grade&model={MODEL}"
CLOSED = 65.0  # seconds until all that was counted may be accepted
COLORS = 160  # of a picture, which makes it a third as large
LONG = 120_000.0  # milliseconds for what a busy machine does
WIDE, PHONE = 1200, 390

terminal = Terminal(highlight=False, soft_wrap=True)


async def take(positions: int, days: int, seed: int, folder: Path, out: Path) -> None:
    """Run it all, and keep the pictures in a folder."""
    clear(folder)
    async with pipeline(folder, MODELS, APP, WORKERS) as running:
        await while_alive(running, _tell(running, fleet.new_season(positions, days, seed), out))


async def _tell(running: Pipeline, season: Season, out: Path) -> None:
    commands = Commands(running.stack.environment())
    await commands.text("models", APP, "--set", f"{MODEL}@live=1")
    days = season.days // 3  # first, and last: what heals between them is another field
    some = days * season.positions
    first = itertools.islice(fleet.flights(season), some)
    last = itertools.islice(fleet.flights(season), len(season) - some, None)
    database = await asyncio.to_thread(
        clickhouse_connect.get_client, dsn=running.settings.clickhouse_url
    )
    try:
        await fly_and_wait(terminal, running, database, first, total=some, what="the first days")
        await asyncio.sleep(CLOSED)
        await commands.text("monitor", "accept", APP, "--window", "1h")
        await commands.text("models", APP, "--shadow", f"{MODEL}=2", "--share", "0.5")
        await fly_and_wait(terminal, running, database, last, total=some, what="the last ones")
    finally:
        database.close()
    await commands.text("replay", APP, f"--stage={MODEL}", "--from-seq=1", f"--model={MODEL}=2",
                        f"--run={RUN}")  # fmt: skip
    await all_done(app, running.settings, lambda: None)
    async with _console(running) as console:
        await _photograph(console, out)


@asynccontextmanager
async def _console(running: Pipeline) -> AsyncIterator[Console]:
    console = Console(app, Options(port=0), running.settings)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(console.run())
        try:
            await until(lambda: console.ready or task.done(), "a console")
            yield console
        finally:
            console.stop()


async def _photograph(console: Console, out: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            page = await browser.new_page(reduced_motion="reduce")
            page.set_default_timeout(LONG)
            expect.set_options(timeout=LONG)
            await page.goto(console.link)
            await page.wait_for_url("**/pipeline")
            await expect(page.locator("#beside")).to_contain_text("the same")
            await _keep(page, out / "plants-pipeline.png")
            await _open(page, f"{console.url}/labels?window=1h&{GRADES}")
            await expect(page.locator("canvas").first).to_be_visible()
            third = ".alarm >> nth=2"
            await expect(page.locator(third)).to_be_visible()
            await _keep(page, out / "plants-alarms-dark.png", dark=True, end=third, more=10)
            await _keep(page, out / "plants-phone.png", wide=PHONE, end=third, more=10)
            await _keep(page, out / "plants-labels.png", begin="[aria-labelledby=column-title]")
            await _open(page, f"{console.url}/runs?run={RUN}")
            await expect(page.locator(".matrix").first).to_be_visible()
            await _keep(page, out / "plants-runs.png", end=".matrix", more=10)
        finally:
            await browser.close()


async def _open(page: Page, address: str) -> None:
    await page.goto(address)
    await expect(page.locator("#pulse .word")).to_have_text("live")


async def _keep(
    page: Page,
    path: Path,
    *,
    wide: int = WIDE,
    dark: bool = False,
    begin: str | None = None,
    end: str | None = None,
    more: int = 0,
) -> None:
    """A picture of a page from the beginning of an element, or its own, to the end of another."""
    await page.emulate_media(color_scheme="dark" if dark else "light")
    await page.set_viewport_size({"width": wide, "height": 900})
    await page.evaluate("() => new Promise((done) => setTimeout(done, 300))")  # charts drawn anew
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    png = await page.screenshot(full_page=True)
    top = await _edge(page, begin, 0.0)
    bottom = await _edge(page, end, 1.0)
    _write(png, path, int(top or 0), None if bottom is None else int(bottom + more))


async def _edge(page: Page, selector: str | None, part: float) -> float | None:
    """How far down the page the upper edge (0.0) or the lower one (1.0) of an element is."""
    if selector is None:
        return None
    box = await page.locator(selector).first.bounding_box()
    assert box is not None
    return box["y"] + part * box["height"]


def _write(png: bytes, path: Path, top: int, bottom: int | None) -> None:
    """Cut a picture, and make it small."""
    found = Image.open(io.BytesIO(png)).convert("RGB")
    found = found.crop((0, top, found.width, min(found.height, bottom or found.height)))
    found = found.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    found.save(path, optimize=True)
    terminal.print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> int:
    """Take the pictures; 0 if all of it went well."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plants.pages", description="Pictures of the console's pages."
    )
    parser.add_argument("--positions", type=int, default=6)
    parser.add_argument("--days", type=int, default=15)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=Path(".mqinfer/pages"), help="cleared first")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where pictures go")
    options = parser.parse_args()
    work = take(options.positions, options.days, options.seed, options.dir.absolute(), options.out)
    return run_to_exit(work)


if __name__ == "__main__":
    sys.exit(main())
