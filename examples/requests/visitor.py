"""Somebody with a browser, who uses the page as a person does: headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect

LONG = 120_000.0  # milliseconds for what a busy machine does; only what fails waits so long


class Visitor:
    """A page, and what is done on it.

    Args:
        page: of the browser.

    Attributes:
        page: the same, for what has no name here.
        mistakes: that the page's own code made.
    """

    def __init__(self, page: Page):
        self.page = page
        self.mistakes: list[str] = []
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))

    async def choose(self, name: str, picture: bytes) -> None:
        """Choose a picture, as by the dialog of files."""
        file: Any = {"name": name, "mimeType": "image/jpeg", "buffer": picture}
        await self.page.locator("#pictures").set_input_files(file)

    async def factorial(self, n: int) -> None:
        """Type a number, and Enter."""
        field = self.page.get_by_label("The factorial of")
        await field.fill(str(n))
        await field.press("Enter")

    async def press(self, name: str, button: str) -> None:
        """Press a button of what is on the list under a name."""
        await self.page.get_by_role("button", name=f"{button} {name}").click()

    async def sees(self, name: str, text: str) -> None:
        """Wait until this is said about what is on the list under a name.

        Raises:
            AssertionError: it is not; with what is said.
        """
        await expect(self._entry(name)).to_contain_text(text, timeout=LONG)

    async def id_of(self, name: str) -> tuple[str, int]:
        """The id of a request, and the milliseconds until it was there."""
        code = self._entry(name).locator("code")
        await expect(code).to_contain_text("after", timeout=LONG)
        identity, _, rest = (await code.inner_text()).partition(" after ")
        return identity, int(rest.partition(" ")[0])

    async def photograph(self, path: Path) -> None:
        """A picture of the whole page, as it is now."""
        await self.page.screenshot(path=path, full_page=True)

    def _entry(self, name: str) -> Any:
        heading = self.page.get_by_role("heading", name=name, exact=True)
        return self.page.locator("li.entry", has=heading).first


@asynccontextmanager
async def launched(program: str) -> AsyncIterator[Browser]:
    """A browser without a window.

    Args:
        program: Chromium.
    """
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"],
        )
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def visitor(chromium: Browser, url: str, *, dark: bool = False) -> AsyncIterator[Visitor]:
    """Somebody who has opened the page, and whom nothing is known of.

    Args:
        chromium: their browser, or that of several.
        url: of the gateway.
        dark: whether their screen is.
    """
    profile = await chromium.new_context(
        viewport={"width": 1080, "height": 800}, color_scheme="dark" if dark else "light"
    )
    try:
        page = await profile.new_page()
        found = Visitor(page)
        await page.goto(url)
        yield found
    finally:
        await profile.close()
