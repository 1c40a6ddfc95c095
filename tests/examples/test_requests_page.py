"""The page of the small backend in a real browser; the model is a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

pytest.importorskip("playwright")

from playwright.async_api import Browser, expect

from examples.requests import drawing
from examples.requests.app import LIMIT, app
from examples.requests.local import SITE, browser
from examples.requests.visitor import LONG, Visitor, launched, visitor
from mqinfer.gateway.gateway import Gateway
from mqinfer.gateway.options import Options
from mqinfer.settings import Settings
from mqinfer.stack.ports import free_port
from mqinfer.testing import FakeModels, Harness, until
from tests.support.gateway import Served, serving
from tests.support.requests_example import lite0

PICTURE = drawing.drawn("balloon", 300)
CHROMIUM = browser()

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One for all tests, each of which has a profile of its own."""
    assert CHROMIUM is not None
    async with launched(CHROMIUM) as found:
        yield found


class Gate:
    """The model's stand-in, whose answers to covered pictures may be held back."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, image: Any) -> dict[str, Any]:
        if (image[::28, ::28] == 127).all(axis=2).any():  # a patch is twice as large
            await self.open.wait()
        return lite0(image)


@asynccontextmanager
async def looking(chromium: Browser, url: str, **options: Any) -> AsyncIterator[Visitor]:
    async with visitor(chromium, url, **options) as found:
        yield found
        assert found.mistakes == []


@asynccontextmanager
async def site(
    nats: Settings, chromium: Browser, **options: Any
) -> AsyncIterator[tuple[Served, Visitor, Gate]]:
    """A gateway with the page, somebody who looks at it, and the model."""
    gate = Gate()
    with FakeModels({"lite0": gate}):
        async with serving(nats, app, site=SITE, **options) as served:
            async with looking(chromium, str(served.http.base_url)) as page:
                yield served, page, gate
            gate.open.set()


async def test_a_picture_from_the_id_to_the_end(nats: Settings, chromium: Browser) -> None:
    async with site(nats, chromium) as (served, page, gate), served.harness.worker():
        gate.open.clear()
        await page.choose("balloon.jpg", PICTURE)
        identity, _ = await page.id_of("balloon.jpg")
        assert (await served.http.get(f"/v1/requests/{identity}")).status_code == 200
        # The first answer comes while the rest is at work, and so does how far it is.
        await page.sees("balloon.jpg", "50 %")
        await page.sees("balloon.jpg", "At work")
        bar = page.page.get_by_role("progressbar")
        await expect(bar).to_have_attribute("max", "35", timeout=LONG)
        gate.open.set()
        await page.sees("balloon.jpg", "Done")
        await page.sees("balloon.jpg", "The answer is kept until")
        pressed = page.page.get_by_role("button", name="Where it looked")
        await expect(pressed).to_have_attribute("aria-pressed", "true")
        canvas = page.page.get_by_role("img")
        await expect(canvas).to_have_attribute(
            "aria-label", "balloon.jpg; bright where the model saw: balloon"
        )
        before = await canvas.screenshot()
        await pressed.click()
        await expect(pressed).to_have_attribute("aria-pressed", "false")
        assert await canvas.screenshot() != before

        # It outlives the page, and the server's forgetting is said.
        await page.page.reload()
        await page.sees("balloon.jpg", "Done")
        await page.sees("balloon.jpg", "50 %")
        assert (await served.http.delete(f"/v1/requests/{identity}")).status_code == 204
        await page.page.reload()
        await page.sees("balloon.jpg", "Its answer is not kept any more")
        await page.press("balloon.jpg", "Forget")
        await expect(page.page.locator("#none")).to_be_visible()


async def test_what_is_refused_is_said(nats: Settings, chromium: Browser) -> None:
    async with site(nats, chromium) as (served, page, _), served.harness.worker():
        await page.factorial(LIMIT + 1)
        await page.sees("200,001!", "No answer")
        await page.sees("200,001!", "200,001 is too much")
        await page.choose("text.jpg", b"no picture")
        await page.sees("text.jpg", "No answer")
        await page.factorial(10**10)
        await page.sees("10,000,000,000!", "Refused")
        await page.factorial(20)
        await page.sees("20!", "Done")
        await page.sees("20!", "2432902008176640000"[:12])


async def test_there_is_no_room_and_then_there_is(nats: Settings, chromium: Browser) -> None:
    """No worker runs at first: what waits is too much, until one comes."""
    async with site(nats, chromium, max_backlog=1) as (served, page, _):
        await served.harness.drain()  # makes the consumers
        await page.factorial(5)
        await page.id_of("5!")

        async def full() -> bool:
            return (await served.ask("factorial", n=1)).status_code == 429

        await until(full, "the gateway's look at what waits")
        await page.factorial(6)
        await page.sees("6!", "Too much is waiting")
        await page.sees("6!", "Asking again in")
        await page.sees("5!", "Waiting its turn")
        async with served.harness.worker():
            await page.sees("5!", "Done")
            await page.sees("6!", "Done")


async def test_more_than_there_are_connections_for(nats: Settings, chromium: Browser) -> None:
    async with site(nats, chromium) as (served, page, gate), served.harness.worker():
        gate.open.clear()
        for number in range(6):
            await page.choose(f"{number}.jpg", PICTURE)
        for number in range(6):
            await page.id_of(f"{number}.jpg")

        async def streams() -> bool:
            return b'streams{app="backend"} 4.0' in (await served.http.get("/metrics")).content

        await until(streams, "a stream for each of the first")
        await page.press("3.jpg", "Cancel")
        await page.sees("3.jpg", "Canceled")
        gate.open.set()
        for number in (0, 1, 2, 4, 5):
            await page.sees(f"{number}.jpg", "Done")


async def test_the_gateway_goes_and_comes_back(nats: Settings, chromium: Browser) -> None:
    port, gate = free_port(), Gate()
    options = Options(port=port, site=SITE, grace=1.0)
    with FakeModels({"lite0": gate}):
        async with Harness(app, nats) as harness, harness.worker():
            first = Gateway(app, options, nats)
            serving_first = asyncio.create_task(first.run())
            await ready(port)
            async with looking(chromium, f"http://127.0.0.1:{port}") as page:
                gate.open.clear()
                await page.choose("balloon.jpg", PICTURE)
                await page.sees("balloon.jpg", "50 %")
                first.stop()
                await serving_first
                await page.sees("balloon.jpg", "No connection")
                await page.factorial(7)  # asked while there is nobody to hear it
                await page.sees("7!", "No answer from the server")
                gate.open.set()
                second = Gateway(app, options, nats)
                serving_second = asyncio.create_task(second.run())
                try:
                    await page.sees("balloon.jpg", "Done")
                    await page.sees("7!", "5040")
                finally:
                    second.stop()
                    await serving_second


async def ready(port: int) -> None:
    async def look() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    await until(look, "a ready gateway")


@pytest.mark.parametrize("dark", [False, True])
async def test_on_a_phone_by_keyboard(nats: Settings, chromium: Browser, dark: bool) -> None:
    async with (
        serving(nats, app, site=SITE) as served,
        looking(chromium, str(served.http.base_url), dark=dark) as found,
    ):
        page = found.page
        await page.set_viewport_size({"width": 360, "height": 640})
        await found.factorial(150_000)
        await found.id_of("150,000!")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        await page.reload()
        await found.id_of("150,000!")
        reached = []
        for _ in range(5):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate(FOCUSED))
        assert reached == ["pictures", "number", "Work it out", "Cancel 150,000!", ""]
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(21, 23, 26)") == dark


FOCUSED = (
    "(() => { const at = document.activeElement; if (at === document.body) return '';"
    " return at.id || at.getAttribute('aria-label') || at.textContent })()"
)
