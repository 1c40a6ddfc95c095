"""The Labels page on real servers, in a real browser: verdict, numbers, examples, actions."""

from __future__ import annotations

import html
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
import pytest

from mqinfer import App, Blob, Label, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.console.watching import deployed
from mqinfer.image import encode_jpeg
from mqinfer.monitor import counting
from mqinfer.monitor.looking import Monitor
from mqinfer.settings import Settings
from mqinfer.tables.sql import text_literal
from mqinfer.testing import FakeModels, until
from mqinfer.worker.presence import Present
from tests.console.test_browser import CHROMIUM, axe, browser, visiting
from tests.support.console import Served, serving
from tests.support.watched_app import HOSTILE, LABELS, Photo, app, first

DAY = 86_400
MODELS = {"net:1": first}
ALIASES = {"net@live": "1"}
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")


def told(nats: Settings, url: str) -> Settings:
    return Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url, grace=5)


def picture(number: int) -> bytes:
    return encode_jpeg(np.full((60, 80, 3), (number * 7 % 255, 120, 60), np.uint8))


@asynccontextmanager
async def looked(nats: Settings, url: str, **options: Any) -> AsyncIterator[Served]:
    """A console of an app with 60 rows, each of a photograph; some ride in their messages."""
    with FakeModels(MODELS, aliases=ALIASES):
        async with serving(told(nats, url), app, **options) as served:
            photos = [
                Photo(n, Blob(picture(n), path=f"p/{n}.jpg" if n % 2 else None)) for n in range(60)
            ]
            await served.harness.publish(*photos, ids=[f"photo-{n}" for n in range(60)])
            await served.harness.drain()
            yield served


async def counted(db: ClickHouse, since: float, until_: float, shares: dict[str, float]) -> None:
    """Ten rows in every ten seconds, as sealed hours have them."""
    first_, last = int(since) // 10, int(until_) // 10
    for key, share in shares.items():
        n = f"toUInt64(floor((number + 1) * {10 * share}) - floor(number * {10 * share}))"
        await db.command(
            f"INSERT INTO {counting.COUNTS} SELECT 's', 'seen', 'label', 'label', 'net', '1', '', "
            f"toDateTime(({first_} + number) * 10, 'UTC') AS step, {text_literal(key)}, {n} AS n, "
            f"n, n * 0.8, n * 0.65 FROM numbers({last - first_}) WHERE n > 0"
        )
    await db.command(
        f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) SELECT DISTINCT 'seen', "
        f"toStartOfHour(toDateTime(({first_} + number) * 10, 'UTC')), 's', now64(3), [] "
        f"FROM numbers({last - first_})"
    )


async def alarmed(db: ClickHouse) -> None:
    """A reference of a day, and three hours in which there was much more rust."""
    end = time.time() // 3600 * 3600
    monitor = Monitor(app, db)
    await monitor.ensure()
    await counted(db, end - DAY, end - 3 * 3600, {"rust": 0.2, "healthy": 0.8})
    await monitor.accept(["seen.label (net 1)"], end - DAY, end - 3 * 3600)
    await counted(db, end - 3 * 3600, end, {"rust": 0.5, "healthy": 0.4, "mosaic": 0.1})


async def test_no_rows_yet_and_what_is_not_watched(nats: Settings, url: str) -> None:
    with FakeModels(MODELS, aliases=ALIASES):
        async with serving(told(nats, url), app) as served:
            page = await served.http.get("/labels")
            assert page.status_code == 200
            assert "Nothing was counted in this time" in page.text
            for address in ("/labels?series=none", "/labels?window=9y"):
                page = await served.http.get(address)
                assert "none" in page.text or "one of" in page.text
            assert "Not watched: plain" not in page.text  # nothing is listed yet

    class Bare(Row, frozen=True, table="bare"):
        number: int

    blind = App("blind")

    @blind.stage
    async def make(photo: Photo) -> Bare:
        raise NotImplementedError

    async with serving(told(nats, url), blind) as served:
        page = await served.http.get("/labels")
        assert page.status_code == 200
        assert "Nothing is watched" in page.text
        assert "Annotated[str, Label()]" in page.text


async def test_an_app_without_tables_has_no_such_page(nats: Settings) -> None:
    from tests.support.console_app import app as garden

    async with serving(nats, garden) as served:
        assert "/labels" not in (await served.http.get("/pipeline")).text
        assert (await served.http.get("/labels")).status_code == 404
        page = await served.http.get("/runs")
        assert "No replay was made yet" in page.text


async def test_hostile_empty_and_missing_labels(nats: Settings, url: str) -> None:
    async with looked(nats, url) as served:

        async def counted_all() -> str:
            text = (await served.http.get("/labels?series=seen.label")).text
            return text if ">10<" in text else ""

        text = await until(counted_all, "all rows on the page")
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert html.escape(HOSTILE, quote=False).split("&#39;")[0][:30] in text
        assert "(empty)" in text
        assert "NULL" in text
        # Each label leads to its rows: ten of each, or nine without those of another.
        links = set(re.findall(r'href="(/labels\?[^"]*key=[^"]*)#examples"', text))
        assert len(links) == len(LABELS)
        for link in links:
            page = await served.http.get(html.unescape(link))
            (part,) = re.findall(r'hx-get="(/labels/examples\?[^"]*)"', page.text)
            found = await served.http.get(html.unescape(part))
            assert found.status_code == 200
            assert found.text.count('class="example"') == 10, link
            assert "<script>" not in found.text
            sources = re.findall(r'<img src="([^"]+)"', found.text)
            kinds = []
            for source in sources:
                shown = await served.http.get(html.unescape(source))
                kinds.append((shown.status_code, shown.headers["content-type"]))
            # What is no picture is never sent, whatever it says it is.
            good = [kind for kind in kinds if kind == (200, "image/jpeg")]
            assert len(good) + kinds.count((404, "text/plain; charset=utf-8")) == len(kinds) == 10
            assert len(good) >= 7, link
        for address in (
            "/labels/picture?message=999999&number=0",
            "/labels/picture?message=1&number=7",
            "/labels/picture?message=x",
            "/labels/picture?series=seen.label&row=1.a&number=0",
            "/labels/picture?series=none&row=1.a",
        ):
            assert (await served.http.get(address)).status_code == 404, address


async def test_several_models_answer_in_one_column(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    """Each has its reference, and so its own lines; none is added to another's."""
    apart = App("apart")

    class Leaf(Row, frozen=True, table="leaves"):
        grade: Annotated[str, Label()]

    for name in ("one", "two"):
        model = apart.model(name)

        @apart.stage(name=f"grade_{name}", models=[model])
        async def grade(photo: Photo) -> Leaf:
            raise NotImplementedError

    end = time.time() // 3600 * 3600
    async with serving(told(nats, url), apart) as served:
        await Monitor(apart, db).ensure()
        for name, key, rows in (("one", "ill", 700), ("two", "well", 300)):
            await db.command(
                f"INSERT INTO {counting.COUNTS} SELECT 's', 'leaves', 'grade', 'label', '{name}', "
                f"'1', '', toDateTime({end - 3600}, 'UTC'), '{key}', {rows}, 0, 0, 0"
            )
        await db.command(
            f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) "
            f"SELECT 'leaves', toDateTime({end - 3600}, 'UTC'), 's', now64(3), []"
        )
        for name, ours, others in (("one", "ill", "well"), ("two", "well", "ill")):
            page = (await served.http.get(f"/labels?series=leaves.grade&model={name}")).text
            lines = page.partition("lines-title")[2]
            assert f">{ours}</a>" in lines
            assert f">{others}</a>" not in lines
            assert f'<span class="unit">{name} 1' in page
            (link,) = re.findall(r'href="(/labels\?[^"]*key=[^"]*)#examples"', lines)
            rows_ = (await served.http.get(html.unescape(link))).text
            (part,) = re.findall(r'hx-get="(/labels/examples\?[^"]*)"', rows_)
            assert f"model={name}" in part
            found = await served.http.get(html.unescape(part))
            assert found.status_code == 200
        wrong = await served.http.get("/labels?series=leaves.grade&model=none")
        assert (wrong.status_code, "these do: one, two" in wrong.text) == (400, True)


async def test_a_thousand_labels(nats: Settings, url: str, db: ClickHouse) -> None:
    end = time.time() // 3600 * 3600
    with FakeModels(MODELS, aliases=ALIASES):
        async with serving(told(nats, url), app) as served:
            await Monitor(app, db).ensure()
            await db.command(
                f"INSERT INTO {counting.COUNTS} SELECT 's', 'seen', 'label', 'label', 'net', '1', "
                f"'', toDateTime({end - 3600}, 'UTC'), concat('k', toString(number)), "
                "1000 - number, 0, 0, 0 FROM numbers(1000)"
            )
            await db.command(
                f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) "
                f"SELECT 'seen', toDateTime({end - 3600}, 'UTC'), 's', now64(3), []"
            )
            page = (await served.http.get("/labels")).text
            assert "Show 960 more" in page
            assert page.count('class="interval"') == 40
            every = (await served.http.get("/labels?top=all")).text
            assert every.count('class="interval"') == 1000
            assert "Show fewer" in every


@in_a_browser
async def test_from_the_verdict_to_pictures_and_what_is_said(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    from playwright.async_api import expect

    await alarmed(db)
    async with (
        looked(nats, url) as served,
        browser() as chromium,
        visiting(chromium, served.url) as visit,
    ):
        page = visit.page
        await page.goto(f"{served.url}/labels")
        alarm = page.locator(".alarm")
        await expect(alarm).to_contain_text("from")
        await expect(alarm).to_contain_text("in seen.label (net 1)")
        await expect(alarm.locator("strong").first).to_contain_text(
            re.compile("rust rose|healthy fell|mosaic|unseen")
        )
        # Verdict first: above everything else there is.
        order = await page.eval_on_selector_all(
            "#live > *", "found => found.map(one => one.className)"
        )
        assert order[0].startswith("note bad alarm")
        await expect(page.locator("canvas")).to_have_count(2)
        row = page.locator("table.lines tr", has_text="mosaic")
        await expect(row).to_contain_text("new")
        # By keyboard to a label, and on to its rows.
        link = page.locator("table.lines a", has_text="rust")
        await link.focus()
        await page.keyboard.press("Enter")
        examples = page.locator("#examples .example")
        await expect(examples).to_have_count(10)
        picture_ = examples.locator("img").first
        await picture_.scroll_into_view_if_needed()
        await page.wait_for_function(
            "[...document.querySelectorAll('#examples img')].some(one => one.naturalWidth > 0)"
        )
        for scheme, wide in (("dark", 1200), ("light", 390)):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": wide, "height": 900})
            assert await axe(page) == [], (scheme, wide)
            over = "document.documentElement.scrollWidth - innerWidth"
            assert await page.evaluate(over) <= 0
        await page.set_viewport_size({"width": 1200, "height": 900})
        # A row that is published is counted on the page by itself.
        cell = page.locator("table.lines tr.current td[data-name=rows]")
        count = await cell.inner_text()
        await served.harness.publish(Photo(6), ids=["photo-later"])
        await served.harness.drain()
        await expect(cell).not_to_have_text(count)
        # What is said of the alarm.
        await page.fill(".alarm input[name=note]", "new camera")
        await page.click(".alarm button:has-text('Acknowledge')")
        await expect(page.locator("#said")).to_contain_text("is acknowledged")
        await expect(alarm).to_contain_text("Acknowledged: new camera")
        await page.select_option(".alarm select[name=lasts]", "8h")
        await page.click(".alarm button:has-text('Mute')")
        await expect(page.locator("#said")).to_contain_text("is muted")
        await expect(alarm).to_contain_text("Muted until")
        page.on("dialog", lambda dialog: dialog.accept())
        await page.click(".alarm button:has-text('Accept')")
        await expect(page.locator("#said")).to_contain_text("Accepted as reference")
        await expect(alarm).to_have_count(0)
        await expect(page.locator("#live")).to_contain_text("No alarm stands")


async def test_what_is_said_needs_more_than_looking(nats: Settings, url: str) -> None:
    with FakeModels(MODELS, aliases=ALIASES):
        async with serving(told(nats, url), app, read_only=True) as served:
            page = await served.http.get("/labels")
            assert "hx-post" not in page.text
            refused = await served.http.post("/labels/accept", data={"series": "seen.label"})
            assert refused.status_code == 403
        async with serving(told(nats, url), app) as served:
            for form, path in (
                ({"episode": "none"}, "acknowledge"),
                ({"episode": "none", "lasts": "9y"}, "mute"),
                ({"series": "", "window": "24h"}, "accept"),
                ({"series": "none", "window": "24h"}, "accept"),
            ):
                answer = await served.http.post(f"/labels/{path}", data=form)
                assert answer.status_code == 400, path


def test_a_deployment_is_of_all_workers_and_not_one_that_joined() -> None:
    def worker(started: float, *stages: str) -> Present:
        return Present(host="here", pid=1, started=started, stages=stages)

    assert deployed(app, []) == []
    found = {one.table: one for one in deployed(app, [worker(7.0, "see"), worker(5.0, "see")])}
    assert found.keys() == {"seen"}
    assert found["seen"].at == 5.0
    assert "all workers of seen were started" in found["seen"].text
    assert [one.at for one in deployed(app, [worker(1.0, "see"), worker(9.0, "see")])] == [1.0]
