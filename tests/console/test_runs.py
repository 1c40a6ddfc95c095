"""The Runs page on real servers, in a real browser: matrix, its rows, promote, undo, discard."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import Blob
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.console.pages.comparing import matrix_of
from mqinfer.errors import ConfigurationError
from mqinfer.replay.compare import Comparison
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels
from tests.console.test_browser import axe, browser, visiting
from tests.console.test_labels import in_a_browser, picture, told
from tests.support.console import Served, serving
from tests.support.replay import runs_of, work
from tests.support.watched_app import Photo, Seen, app, first, second

VALUES = st.sampled_from(["a", "b", "", "10", "9", "NULL"])
CHANGES = st.dictionaries(st.tuples(VALUES, VALUES), st.integers(1, 1000), max_size=20)


@given(CHANGES)
def test_a_matrix_holds_what_was_counted(counts: dict[tuple[str, str], int]) -> None:
    changes = [{"old_value": old, "new_value": new, "n": n} for (old, new), n in counts.items()]
    matrix = matrix_of("label", changes)
    assert matrix.rest == 0
    for line in matrix.lines:
        assert [cell.new for cell in line] == list(matrix.values)
        for cell in line:
            assert cell.rows == counts.get((cell.old, cell.new), 0)
            assert (cell.heat == 0) == (cell.rows == 0)
            assert 0 <= cell.heat <= 5
            assert cell.same == (cell.old == cell.new)
    if {"10", "9"} <= set(matrix.values):
        assert matrix.values.index("9") < matrix.values.index("10")


def test_of_many_values_the_most_frequent_have_a_place() -> None:
    changes = [{"old_value": f"k{n}", "new_value": "x", "n": n + 1} for n in range(50)]
    matrix = matrix_of("label", changes)
    assert len(matrix.values) == 12
    assert {"x", "k49"} <= set(matrix.values)
    shown = sum(cell.rows for line in matrix.lines for cell in line)
    assert shown + matrix.rest == sum(range(1, 51))


@asynccontextmanager
async def replayed(nats: Settings, url: str, **options: Any) -> AsyncIterator[Served]:
    """A console of an app with 24 live rows, and a run of version 2 over 18 of their messages."""
    with FakeModels({"net:1": first, "net:2": second}, aliases={"net@live": "1"}):
        async with serving(told(nats, url), app, **options) as served:
            photos = [
                Photo(n, Blob(picture(n), path=f"p/{n}.jpg" if n % 2 else None)) for n in range(24)
            ]
            await served.harness.publish(*photos, ids=[f"photo-{n}" for n in range(24)])
            await served.harness.drain()
            await runs_of(served.harness).create(
                stage="see",
                wanted=Wanted(from_seq=1, to_seq=1),
                name="short",
            )
            end = (await served.harness.stored())[-1].sequence
            await runs_of(served.harness).create(
                stage="see",
                wanted=Wanted(from_seq=1, to_seq=end),
                name="better",
                models={"net": "2"},
            )
            await work(served.harness, "better")
            yield served


async def shown(db: ClickHouse) -> dict[str, int]:
    rows = await db.query(
        "SELECT ifNull(label, 'NULL') AS label, count() AS n FROM seen GROUP BY 1"
    )
    return {row["label"]: row["n"] for row in rows}


async def test_the_list_the_comparison_and_a_cell(nats: Settings, url: str) -> None:
    async with replayed(nats, url) as served:
        page = (await served.http.get("/runs")).text
        assert "better" in page
        assert "0 of 1" in page  # of the one that nobody works on
        assert '<h2 id="run-title"' not in page
        page = (await served.http.get("/runs?run=better")).text
        (part,) = re.findall(r'hx-get="(/runs/comparison\?[^"]*)"', page)
        found = (await served.http.get(html.unescape(part))).text
        assert "rows matched" in found
        assert "<script>alert" not in found
        # Rust became blight; nothing that is only a number has a matrix.
        assert found.count('<figure class="matrix">') == 1
        (cell,) = re.findall(r'href="([^"]*old=%3Drust&amp;new=%3Dblight)#cell"', found)
        page = (await served.http.get(html.unescape(cell))).text
        (part,) = re.findall(r'hx-get="(/runs/cell\?[^"]*)"', page)
        rows = (await served.http.get(html.unescape(part))).text
        assert rows.count('class="example"') == 4
        sources = re.findall(r'<img src="([^"]+)"', rows)
        assert len(sources) == 4
        for source in sources:  # in the blob store, or in the message itself
            answer = await served.http.get(html.unescape(source))
            assert answer.headers["content-type"] == "image/jpeg"
        # The next page begins behind the last row.
        assert "More" not in rows
        empty = html.unescape(part).replace("%3Dblight", "%3Dnothing")
        assert "No row went this way" in (await served.http.get(empty)).text
        for address, said in (
            ("/runs?run=none", "no run"),
            ("/runs/cell?run=better&table=none&column=label", "no table"),
            ("/runs/cell?run=better&table=seen&column=score&old==1&new==1", "no label"),
            ("/runs/comparison?run=none", "has no run none"),
        ):
            assert said in (await served.http.get(address)).text, address
        for path in ("promote", "undo", "discard"):
            assert (
                await served.stranger.post(f"/runs/{path}", data={"run": "better"})
            ).status_code == 403
        answer = await served.http.post("/runs/undo", data={"run": "short"})
        assert "only one that is promoted" in answer.text


async def test_a_cell_goes_on_where_its_page_ended(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    async with replayed(nats, url) as served:
        run = await runs_of(served.harness).get("better")
        cell = Comparison(app, Seen, run, None).cell
        every = await cell(db, "label", "rust", "blight", 10)
        assert len(every) == 4
        pages: list[str] = []
        after = None
        while found := await cell(db, "label", "rust", "blight", 3, after):
            pages += [one["input"] for one in found]
            after = (found[-1]["input"], found[-1]["row"])
        assert pages == [one["input"] for one in every] == sorted(pages)
        assert {one["old"]["label"] for one in every} == {"rust"}
        missing = await cell(db, "label", "NULL", "NULL", 10)
        assert len(missing) == 4
        with pytest.raises(ConfigurationError, match="no label 'score' that is compared"):
            await cell(db, "score", "1", "1", 1)


@in_a_browser
async def test_promote_undo_and_discard(nats: Settings, url: str, db: ClickHouse) -> None:
    from playwright.async_api import expect

    async with (
        replayed(nats, url) as served,
        browser() as chromium,
        visiting(chromium, served.url) as visit,
    ):
        page = visit.page
        live = await shown(db)
        await page.goto(f"{served.url}/runs")
        await page.click("#runs a:has-text('better')")
        cell = page.locator(".matrix td:not(.same) a").first
        await expect(cell).to_have_text("4")
        await cell.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#cell .example")).to_have_count(4)
        await expect(page.locator("#cell .changed").first).to_contain_text("rust")

        for scheme, wide in (("dark", 1200), ("light", 390)):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": wide, "height": 900})
            assert await axe(page) == [], (scheme, wide)
            over = "document.documentElement.scrollWidth - innerWidth"
            assert await page.evaluate(over) <= 0
        await page.set_viewport_size({"width": 1200, "height": 900})
        asked: list[str] = []

        async def answer(dialog: Any) -> None:
            asked.append(dialog.message)
            await (dialog.dismiss() if len(asked) == 1 else dialog.accept())

        page.on("dialog", answer)
        await page.click("button:has-text('Promote')")
        assert "It can be undone" in asked[0]
        assert await shown(db) == live  # it was not confirmed
        await page.click("button:has-text('Promote')")
        state, deed = page.locator("#runs tr.current"), page.locator("#deed")
        await expect(deed).to_contain_text("Run better is promoted")
        await expect(state).to_contain_text("promoted")
        changed = await shown(db)
        assert "rust" not in changed
        assert changed["blight"] == live["blight"] + live["rust"]
        await page.click("button:has-text('Undo')")
        await expect(deed).to_contain_text("what was shown before")
        await expect(state).to_contain_text("done")
        assert await shown(db) == live
        await page.click("button:has-text('Discard')")
        await expect(state).to_contain_text("discarded")
        await expect(page.locator("#live")).to_contain_text("its rows are deleted")
        assert "cannot be undone" in asked[-1]
        (rows,) = await db.query("SELECT countIf(_run = 'better') AS n FROM seen__storage")
        assert rows["n"] == 0
