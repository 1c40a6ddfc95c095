"""The pages in a browser without a window: the forms made of OpenAPI, and `/docs` tried out."""

from __future__ import annotations

import json
import shutil
from typing import Any

from examples.taskqueue.facts import SETOSA, Facts

MISSING = (
    "no browser: pip install playwright, and have a chromium on the PATH (apt install chromium)"
)


async def pages(url: str, facts: Facts) -> None:
    """Use both as a person would.

    Args:
        url: of the gateway.
        facts: gets what is found.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        program = None
    if program is None:
        facts.console.print(MISSING)
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = await browser.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            await _forms(page, url, facts)
            await _docs(page, url, facts)
            facts.tell(not errors, f"errors of scripts in the browser: {errors or 'none'}")
        finally:
            await browser.close()


async def _forms(page: Any, url: str, facts: Facts) -> None:
    await page.goto(url)
    await page.wait_for_selector("body[data-ready]")
    forms = await page.eval_on_selector_all("form", "forms => forms.map(one => one.id)")
    facts.tell(forms == ["iris", "oddity"], f"browser: a form for each endpoint: {forms}")
    for change, kind, wanted in (
        ({"petal_width": "asdfg"}, "error", "Invalid: /input/petal_width: "),
        ({"sepal_length": "12.5"}, "error", "Rejected: SepalTooLong: "),
        ({}, "", '"species": "setosa"'),
    ):
        for name, value in {**SETOSA, **change}.items():
            await page.fill(f"#iris input[name={name}]", str(value))
        await page.click("#iris button")
        output = page.locator("#iris output")
        await page.wait_for_function(
            "() => !['', 'asked ...'].includes(document.querySelector('#iris output').textContent)",
            timeout=60_000,
        )
        said = await output.text_content()
        wrong = await page.eval_on_selector_all(
            "#iris input.wrong", "found => found.map(one => one.name)"
        )
        facts.tell(
            wanted in said
            and (await output.get_attribute("class") or "") == kind
            and wrong == (list(change) if "Invalid" in wanted else []),
            f"browser: {change or 'as it is'} -> {' '.join(said.split())[:120]}",
        )


async def _docs(page: Any, url: str, facts: Facts) -> None:
    await page.goto(f"{url}/docs")
    block = page.locator("#operations-endpoints-ask_iris")
    await block.locator(".opblock-summary").first.click()
    await block.locator(".try-out__btn").click()
    await block.locator("textarea.body-param__text").fill(json.dumps({"input": SETOSA}))
    await block.locator("button.execute").click()
    answer = block.locator(".live-responses-table .response").first
    await answer.wait_for(timeout=60_000)
    status = (await answer.locator(".response-col_status").text_content() or "").split()[0]
    body = json.loads(await answer.locator(".highlight-code pre").first.text_content() or "{}")
    found = [one["data"]["species"] for one in body.get("answers", [])]
    # The page fills in `Prefer: wait=10`.
    facts.tell(
        (status, found) == ("200", ["setosa"]), f"browser: /docs tried out: {status} {found}"
    )
