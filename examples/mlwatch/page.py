"""The console's labels page in a browser without a window: what a person sees of the study."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from playwright.async_api import Error, Page, Request, async_playwright, expect

from examples.mlwatch.consoleprocess import TOKEN

LONG = 120_000.0  # milliseconds for what a busy machine does; only what fails waits so long
LABELS = "prediction.label"

# The rows of a label as the page says, without the marks between thousands.
_ROWS = """label => {
  const rows = [...document.querySelectorAll('table.lines tbody tr')];
  const row = rows.find(one => one.querySelector('th a')?.textContent.trim() === label);
  return Number((row?.querySelector('[data-name=rows]')?.textContent ?? '0').replace(/\\D/g, ''));
}"""


class Looking:
    """A page of the console, and what is seen on it.

    Args:
        page: of the browser.
        url: of the console.

    Attributes:
        mistakes: errors of the page's own code, and requests that left the console.
    """

    def __init__(self, page: Page, url: str):
        self._page = page
        self._url = url
        self.mistakes: list[str] = []
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.mistakes.append(f"a request to {request.url}")

    async def labels(self, **filters: str) -> None:
        """Open the labels, and wait until the page is told of what comes."""
        query = urlencode({"series": LABELS, "top": "all", "window": "1h", **filters})
        await self._page.goto(f"{self._url}/labels?{query}")
        await expect(self._page.locator("#pulse")).to_have_attribute(
            "data-state", "live", timeout=LONG
        )

    async def rows(self, label: str) -> int:
        """Rows of a label, as the page says now; 0 where it does not name it."""
        return int(await self._page.evaluate(_ROWS, label))

    async def more(self, label: str, than: int) -> None:
        """Wait until the page says that there are more rows of a label."""
        await self._page.wait_for_function(
            f"([label, than]) => ({_ROWS})(label) > than", arg=[label, than], polling=50
        )

    async def alarms(self) -> list[str]:
        """What the page says of alarms that stand."""
        await expect(self._page.locator("section.alarm").first).to_be_visible(timeout=LONG)
        texts = await self._page.locator("section.alarm .verdict").all_inner_texts()
        return [" ".join(text.split()) for text in texts]

    async def advice(self) -> str:
        """What it says to do."""
        told = self._page.locator("#live p", has_text="Retrain?").first
        return " ".join((await told.inner_text()).split())

    async def pictures(self, label: str) -> int:
        """Click a label; how many of its newest photographs are shown, when the first is."""
        await self._page.get_by_role("link", name=label, exact=True).first.click()
        first = self._page.locator("#examples-list img").first
        await first.scroll_into_view_if_needed()
        await self._page.wait_for_function(
            "() => [...document.querySelectorAll('#examples-list img')]"
            ".some(one => one.complete && one.naturalWidth > 0)"
        )
        return await self._page.locator("#examples-list img").count()

    async def acknowledge(self, note: str) -> None:
        """Say of the first alarm that somebody looks at it."""
        await self._page.goto(f"{self._url}/enter?token={quote(TOKEN)}")
        await self.labels()
        alarm = self._page.locator("section.alarm").first
        await alarm.locator("input[name=note]").fill(note)
        await alarm.get_by_role("button", name="Acknowledge").click()
        await expect(self._page.locator("#said")).to_contain_text("acknowledged", timeout=LONG)

    async def photograph(self, path: Path) -> None:
        """A picture of the whole page, as it is now."""
        await self._page.screenshot(path=path, full_page=True)


@asynccontextmanager
async def looking(program: str, url: str) -> AsyncIterator[Looking]:
    """Somebody with a browser.

    Args:
        program: Chromium.
        url: of the console.

    Raises:
        AssertionError: the page does not show what is waited for.
    """
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"],
        )
        try:
            page = await chromium.new_page(viewport={"width": 1280, "height": 900})
            yield Looking(page, url)
        except Error as error:
            raise AssertionError(f"on the page: {error}") from error
        finally:
            await chromium.close()
