"""Models on the page of the pipeline: an alias that is set there, shadows, canaries."""

from __future__ import annotations

import html
import re

from mqinfer import wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.monitor.looking import Monitor
from mqinfer.ports import ModelVersion
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, until
from tests.console.test_browser import axe, browser, visiting
from tests.console.test_labels import in_a_browser, told
from tests.support.console import Served, serving
from tests.support.replay import runs_of, work
from tests.support.watched_app import Photo, app, first, second

ROWS = 210


class Repository:
    """Both versions of the model are served."""

    async def versions(self) -> list[ModelVersion]:
        return [ModelVersion("net", version, True, "") for version in ("1", "2")]


def fakes() -> FakeModels:
    return FakeModels({"net:1": first, "net:2": second}, aliases={"net@live": "1"})


def with_triton(served: Served) -> None:
    site = served.console.front._site
    assert site is not None
    site._triton = Repository()


async def test_an_alias_that_is_set_adopts_what_its_replay_said(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    with fakes():
        async with serving(told(nats, url), app) as served:
            with_triton(served)
            await served.harness.publish(*map(Photo, range(ROWS)))
            await served.harness.drain()
            await runs_of(served.harness).create(
                stage="see",
                wanted=Wanted(from_seq=1, to_seq=ROWS),
                name="better",
                models={"net": "2"},
            )
            await work(served.harness, "better")

            async def set_(version: str) -> str:
                form = {"model": "net", "alias": "live", "version": version}
                return html.unescape((await served.http.post("/pipeline/alias", data=form)).text)

            page = (await served.http.get("/pipeline")).text
            assert 'hx-post="/pipeline/alias"' in page
            assert '<option value="2">2</option>' in page
            assert "net@live: not set → 1" in await set_("1")
            assert await Monitor(app, db).references_of("net", "2", "2") == {}
            assert "net@live: 1 → 2" in await set_("2")
            held = await Monitor(app, db).references_of("net", "2", "2")
            sources = {str(series): one.source for series, one in held.items()}
            assert sources["seen.label (net 2)"] == "run better"

            async def follows() -> bool:
                return "alias live -&gt; 2" in (await served.http.get("/pipeline")).text

            await until(follows, "the page says what the alias names")
            assert "does not serve version 9" in await set_("9")
            assert "net@live: 2 → not set" in await set_("")


@in_a_browser
async def test_shadows_and_canaries_are_shown_and_ended(nats: Settings, url: str) -> None:
    """By keyboard, in the dark, on a phone."""
    from playwright.async_api import expect

    with fakes():
        async with serving(told(nats, url), app) as served:
            with_triton(served)
            broker = served.harness.services.broker
            shadows, canaries = wiring.shadows(app, broker), wiring.canaries(app, broker)
            await canaries.aliases.set("net", "live", "1")
            # Its answers are rows of the run before anybody looks.
            run = await shadows.begin("net", "2", 1.0, stage="see", name="beside", late=3600.0)
            async with served.harness.worker():
                await served.harness.publish(*map(Photo, range(24)))
                await served.harness.drain()
            await canaries.let_in("net", "2", 0.25)
            async with browser() as chromium, visiting(chromium, served.url) as visit:
                page = visit.page
                shadow, canary = (
                    page.locator(f"#{name}") for name in ("shadow-beside", "canary-net-live")
                )
                await expect(shadow).to_contain_text("100.0%")
                await expect(shadow).to_contain_text(re.compile(r"\d+ answered, \d+ passed over"))
                await expect(canary).to_contain_text("25.0%")
                await expect(canary.get_by_role("link")).to_have_attribute(
                    "href", "/labels?series=seen.label&model=net&version=2"
                )
                for scheme, wide in (("dark", 1200), ("light", 390)):
                    await page.emulate_media(color_scheme=scheme)
                    await page.set_viewport_size({"width": wide, "height": 900})
                    assert await axe(page) == [], (scheme, wide)
                    over = "document.documentElement.scrollWidth - innerWidth"
                    assert await page.evaluate(over) <= 0
                await page.set_viewport_size({"width": 1200, "height": 900})
                page.on("dialog", lambda dialog: dialog.accept())

                async def press(where: str, button: str, says: str) -> None:
                    await page.locator(where).get_by_role("button", name=button).focus()
                    await page.keyboard.press("Enter")
                    await expect(page.locator("#said")).to_contain_text(says)

                await press("#canary-net-live", "Take it back", "is taken back")
                await expect(canary).to_have_count(0)
                await canaries.let_in("net", "2", 0.5)
                await expect(canary).to_contain_text("50.0%")
                await press("#canary-net-live", "Promote", "net@live names 2")
                await expect(canary).to_have_count(0)
                await canaries.let_in("net", "1", 0.5)
                await canaries.take_back("net", "live", "rust rose")
                await expect(page.locator("#live")).to_contain_text("went back by itself: rust")
                await press("#shadow-beside", "End it", "net has no shadow, once run beside")
                await expect(shadow.get_by_role("button")).to_have_count(0)
            assert not (await runs_of(served.harness).get(run.name)).open
            for path, form, said in (
                ("shadow", {"model": "none"}, "has no shadow"),
                ("canary", {"name": "net"}, "has no canary"),
                ("promote", {"name": "net@live"}, "has no canary"),
                ("promote", {"name": "none"}, "nothing in app watch asks none"),
            ):
                answer = await served.http.post(f"/pipeline/{path}", data=form)
                assert (answer.status_code, said in answer.text) == (400, True), answer.text
                refused = await served.stranger.post(f"/pipeline/{path}", data=form)
                assert refused.status_code == 403
