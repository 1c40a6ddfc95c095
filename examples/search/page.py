"""Somebody with a browser, who uses the page as a person does: headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Locator, Page, Request, async_playwright, expect

LONG = 120_000.0  # milliseconds for what a busy machine does; only what fails waits so long
List = Literal["together", "lite0", "lite2"]


class Looking:
    """The page, and what is done on it.

    Args:
        page: of the browser.
        url: of the gateway.

    Attributes:
        page: the same, for what has no name here.
        mistakes: errors of the page's own code, and requests that left the gateway.
    """

    def __init__(self, page: Page, url: str):
        self.page = page
        self.mistakes: list[str] = []
        self._url = url
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.mistakes.append(f"a request to {request.url}")

    async def choose(self, name: str, picture: bytes) -> None:
        """Choose a picture, as by the dialog of files."""
        file: Any = {"name": name, "mimeType": "image/png", "buffer": picture}
        await self.page.locator("#picture").set_input_files(file)

    async def drop(self, name: str, picture: bytes) -> None:
        """Drop a picture on the page, as with a mouse."""
        given = await self.page.evaluate_handle(
            """([name, bytes]) => {
              const given = new DataTransfer();
              given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
              return given;
            }""",
            [name, list(picture)],
        )
        await self.page.dispatch_event("#drop", "drop", {"dataTransfer": given})

    async def says(self, text: str) -> None:
        """Wait until this is said.

        Raises:
            AssertionError: it is not; with what is said.
        """
        await expect(self.page.locator("#status")).to_contain_text(text, timeout=LONG)

    async def warns(self, text: str) -> None:
        """Wait until this is warned of; "" is nothing."""
        warning = self.page.locator("#warning")
        if text:
            await expect(warning).to_contain_text(text, timeout=LONG)
        else:
            await expect(warning).to_be_hidden(timeout=LONG)

    async def sees(self, name: str, among: List = "together") -> None:
        """Wait until a picture of this name is shown."""
        await expect(self._tile(name, among)).to_be_visible(timeout=LONG)

    async def shown(self, among: List = "together") -> list[str]:
        """The names of what is shown, nearest first."""
        return await self.page.locator(f"#{among} .name").all_inner_texts()

    async def look(self, name: str) -> None:
        """Click a picture that is shown: what is like it?"""
        await self._tile(name, "together").locator("button.look").click()

    async def remove(self, name: str) -> None:
        """Remove a picture that is shown."""
        tile = self._tile(name, "together")
        await tile.hover()
        await tile.locator("button.remove").click()

    async def weigh(self, right: int) -> None:
        """Move the slider: so much of a hundred for the right one."""
        await self.page.locator("#own").uncheck()
        await self.page.locator("#balance").fill(str(right))

    async def whole(self) -> bool:
        """Whether all pictures that are shown are decoded, and nothing is wider than the page."""
        return bool(
            await self.page.evaluate(
                """() => [...document.querySelectorAll("#results img")].every(
                     (one) => one.complete && one.naturalWidth > 0)
                   && document.documentElement.scrollWidth <= window.innerWidth"""
            )
        )

    async def photograph(self, path: Path, *, dark: bool = False, width: int = 1180) -> None:
        """A picture of the whole page, as it is now."""
        await self.page.emulate_media(color_scheme="dark" if dark else "light")
        await self.page.set_viewport_size({"width": width, "height": 860})
        await self.page.screenshot(path=path, full_page=True)

    def _tile(self, name: str, among: List) -> Locator:
        own = self.page.locator(".name", has_text=name)
        return self.page.locator(f"#{among} li.tile").filter(has=own).first


@asynccontextmanager
async def looking(program: str, url: str) -> AsyncIterator[Looking]:
    """Somebody who has opened the page.

    Args:
        program: Chromium.
        url: of the gateway.
    """
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"],
        )
        try:
            page = await chromium.new_page(viewport={"width": 1180, "height": 860})
            found = Looking(page, url)
            await page.goto(url)
            yield found
        finally:
            await chromium.close()
