"""The console in a real browser: live, by keyboard, in both themes, on a phone, from here alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip("playwright")

from playwright.async_api import Browser, Page, async_playwright, expect

from mqinfer import Blob
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.console import TOKEN, Served, running, serving
from tests.support.console_app import HOSTILE, Grade, Photo

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parent / "axe"
PATIENCE = 60_000  # milliseconds, on a busy machine
PAGES = ("pipeline", "letters", "requests")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
with_one_browser = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Visit:
    """A page in a browser, with what went wrong in it.

    Attributes:
        page: itself.
        wrong: what its console said.
        elsewhere: what it asked of another origin.
    """

    page: Page
    wrong: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            await found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One for all tests, each of which has profiles of its own."""
    async with browser() as found:
        yield found


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, enter: bool = True, **context: Any
) -> AsyncIterator[Visit]:
    """A fresh profile on the first page; at its end nothing may have gone wrong."""
    opened = await browser.new_context(**{"reduced_motion": "reduce", **context})
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = await opened.new_page()
    visit = Visit(page)
    page.on("console", lambda one: visit.wrong.append(one.text))
    page.on("pageerror", lambda error: visit.wrong.append(str(error)))
    page.on(
        "request",
        lambda one: None if one.url.startswith(url) else visit.elsewhere.append(one.url),
    )
    try:
        if enter:
            await page.goto(f"{url}/enter?token={TOKEN}")
            await page.wait_for_url("**/pipeline")
        yield visit
    finally:
        await opened.close()
    assert visit.elsewhere == []
    assert visit.wrong == []


async def axe(page: Page) -> list[dict[str, Any]]:
    """What axe finds wrong with a page."""
    # By the driver, which the page's policy does not bind.
    await page.evaluate((AXE / "axe.min.js").read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"id": one["id"], "at": [node["html"][:200] for node in one["nodes"]]}
        for one in found["violations"]
    ]


def test_axe_is_as_it_was_published() -> None:
    told, name = (AXE / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == told


async def garden(served: Served, mark: Path) -> None:
    """Something on every page."""
    mark.touch()  # noqa: ASYNC240
    pixels = np.full((90, 120, 3), (90, 160, 90), np.uint8)
    picture = cv2.imencode(".png", pixels)[1].tobytes()
    await served.harness.publish(
        *[Photo(f"p{n}", bad=str(mark), picture=Blob(picture)) for n in range(4)],
        Photo(HOSTILE, bad=str(mark)),
        Photo("good", leaves=3),
    )
    client = served.harness.client
    await client.request(Photo("asked", leaves=2), endpoint="grade")
    await served.harness.drain()
    await client.submit("grade", [{"name": f"j{n}"} for n in range(20)])


@with_one_browser
async def test_pages_can_be_used_by_everybody(
    nats: Settings, chromium: Browser, tmp_path: Path
) -> None:
    """In both themes and on a phone, with something open; screenshots where they are wanted."""
    kept = os.environ.get("MQINFER_SCREENSHOTS")
    async with serving(nats) as served:
        await garden(served, tmp_path / "bad")
        for scheme, width in (("light", 1200), ("dark", 1200), ("light", 390)):
            size = {"width": width, "height": 900}
            async with visiting(chromium, served.url, color_scheme=scheme, viewport=size) as visit:
                page = visit.page
                for name in PAGES:
                    await page.goto(f"{served.url}/{name}")
                    await expect(page.locator("#pulse .word")).to_have_text("live")
                    summary = page.locator("details.row > summary, #edges > summary").first
                    await summary.focus()
                    await page.keyboard.press("Enter")
                    if name != "pipeline":
                        await expect(page.locator(".body dl.facts").first).to_be_visible()
                    assert await axe(page) == [], (name, scheme, width)
                    # Nothing is wider than the screen; what is, scrolls in itself.
                    over = "document.documentElement.scrollWidth - innerWidth"
                    assert await page.evaluate(over) <= 0, (name, width)
                    if kept:
                        await page.evaluate("scrollTo(0, 0)")
                        path = Path(kept) / f"{name}-{scheme}-{width}.png"
                        await page.screenshot(path=path, full_page=True)
        async with visiting(chromium, served.url, enter=False, color_scheme="dark") as visit:
            await visit.page.goto(f"{served.url}/enter")
            assert await axe(visit.page) == []


@with_one_browser
async def test_a_session(nats: Settings, chromium: Browser, tmp_path: Path) -> None:
    """What is published shows by itself; three letters are sent back; what is open stays open."""
    mark = tmp_path / "bad"
    async with serving(nats) as served:
        await garden(served, mark)
        async with visiting(chromium, served.url) as visit:
            page = visit.page
            row = page.locator("#stage-cut")
            await expect(row.locator("[data-name=dead]")).to_have_text("5")
            await expect(page.locator("#stage-grade [data-name=waiting]")).to_have_text("0")
            await page.evaluate("window.same = true")  # no page is loaded anew meanwhile
            await served.harness.publish(Photo("late"), Photo("later"))
            await expect(row.locator("[data-name=waiting]")).to_have_text("2")
            await expect(row).to_contain_text("no worker runs it")
            async with served.harness.worker():
                await expect(row.locator("[data-name=waiting]")).to_have_text("0")
                await expect(page.locator("#workers")).to_contain_text("works")
            await expect(page.locator("#workers")).to_have_count(0)  # it took its leave
            assert await page.evaluate("window.same")

            await page.get_by_role("link", name="Dead letters").click()
            await expect(page.locator("ol.letters > li")).to_have_count(5)
            # Hostile words are words.
            assert await page.locator("main script, main img[src=x]").count() == 0
            await expect(page.locator("#item-5, #item-1").first).to_be_visible()
            first = page.locator("ol.letters > li", has_text="p0 cannot be cut")
            await first.locator("summary").first.click()
            await expect(first.locator("pre", has_text="Traceback")).to_be_visible()
            picture = first.locator("img")
            await picture.scroll_into_view_if_needed()
            width = "(img) => img.complete && img.naturalWidth"
            await until(lambda: picture.evaluate(width), "the picture")
            for name in ("p0", "p1", "p2"):
                item = page.locator("ol.letters > li", has_text=f"{name} cannot be cut")
                await item.get_by_role("checkbox").check()
            # A state that comes meanwhile closes nothing, and unticks nothing.
            await served.harness.publish(Photo("none"))
            await served.harness.drain()
            await expect(page.locator("ol.letters > li")).to_have_count(6)
            await expect(first.locator("pre", has_text="Traceback")).to_be_visible()
            await expect(page.locator("input[name=seq]:checked")).to_have_count(3)

            mark.unlink()
            await page.get_by_role("button", name="Send back the ticked").click()
            await expect(page.locator("#said")).to_contain_text("3 letters would be sent back")
            assert len(await served.harness.dead()) == 6
            assert await axe(page) == []
            await page.keyboard.press("Enter")  # the button has the focus
            await expect(page.locator("#finished")).to_contain_text("3 of 3 sent back")
            await expect(page.locator("ol.letters > li")).to_have_count(3)
            await served.harness.drain()
            graded = {one.photo for one in await served.harness.messages(Grade)}
            assert {"p0", "p1", "p2"} <= graded

            await served.harness.client.submit("grade", [{"name": f"j{n}"} for n in range(30)])
            await page.get_by_role("link", name="Requests and jobs").click()
            job = page.locator("ol.letters > li", has_text="of 30 rows")
            await job.locator("summary").first.click()
            await job.get_by_role("button", name="Cancel it").click()
            await expect(page.locator("#said")).to_contain_text("canceled")
            await expect(job.locator(".badge").first).to_contain_text("canceled")


@with_one_browser
async def test_back_after_a_restart(nats: Settings, chromium: Browser) -> None:
    async with running(nats) as first:
        url = first.url or ""
        port = int(url.rpartition(":")[2])
        opened = await chromium.new_context()
        page = await opened.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        await page.goto(f"{url}/pipeline")
        pulse = page.locator("#pulse .word")
        await expect(pulse).to_have_text("live")
        await expect(page.locator(".hint")).to_have_text("looking only")
    await expect(pulse).to_have_text("reconnecting")
    async with running(nats, port=port) as second:
        await expect(pulse).to_have_text("live")
        assert second.front.streams == 1
        # A tab that is not seen has no stream.
        hide = (
            "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, "
            "configurable: true}); document.dispatchEvent(new Event('visibilitychange')) }"
        )
        await page.evaluate(hide, True)
        await expect(pulse).to_have_text("paused")
        await until(lambda: second.front.streams == 0, "the end of the stream")
        await page.evaluate(hide, False)
        await expect(pulse).to_have_text("live")
        await opened.close()


@with_one_browser
async def test_read_only_shows_no_buttons(
    nats: Settings, chromium: Browser, tmp_path: Path
) -> None:
    async with serving(nats, read_only=True) as served:
        await garden(served, tmp_path / "bad")
        async with visiting(chromium, served.url) as visit:
            await expect(visit.page.locator(".hint")).to_have_text("read only")
            for name in PAGES:
                await visit.page.goto(f"{served.url}/{name}")
                assert await visit.page.locator("[hx-post], input[type=checkbox]").count() == 0
            posted = await visit.page.evaluate(
                "fetch('/letters/act', {method: 'POST', body: 'do=drop&seq=1', headers: "
                "{'content-type': 'application/x-www-form-urlencoded'}}).then((a) => a.status)"
            )
            assert posted == 403
            visit.wrong.clear()  # the browser says that it was refused
        assert len(await served.harness.dead()) == 5
