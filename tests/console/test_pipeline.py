"""The pipeline's page: rates, why nothing moves, workers that are there, left, or were lost."""

from __future__ import annotations

import json
import re
import time

import pytest

from mqinfer import plan
from mqinfer.settings import Settings
from mqinfer.testing import until
from mqinfer.worker import presence
from tests.support.console import Served, serving
from tests.support.console_app import Photo, app


def row(text: str, stage: str) -> str:
    found = re.search(rf'<tr id="stage-{stage}">(.*?)</tr>', text, re.DOTALL)
    assert found is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found[1])).strip()


async def test_why_a_stage_stands(nats: Settings) -> None:
    async with serving(nats) as served:
        page = (await served.http.get("/pipeline")).text
        assert "not begun" in row(page, "cut")
        assert "No worker says that it is there" in page
        assert '<svg class="fits" viewBox="0 0 ' in page
        async with served.harness.worker() as worker:

            async def works() -> bool:
                text = (await served.http.get("/pipeline")).text
                return "idle" in row(text, "cut") and 'id="workers"' in text

            await until(works, "the worker")
            workers, now = await presence.seen(app, served.harness.services.streams)  # type: ignore[arg-type]
            (one,) = workers
            assert not one.lost(now)
            assert set(one.stages) == {task.name for task in plan.tasks(app)}
            assert worker.not_ready() == []
        # It took its leave, and nobody takes it for lost.
        assert (await presence.seen(app, served.harness.services.streams))[0] == []  # type: ignore[arg-type]
        await served.harness.publish(Photo("a"), Photo("b"))

        async def stands() -> str | None:
            text = row((await served.http.get("/pipeline")).text, "cut")
            return text if "no worker runs it" in text else None

        assert "2" in await until(stands, "a stage that stands")


async def test_a_worker_that_dies_is_lost(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOST", 0.0)
    async with serving(nats) as served:
        bucket = presence.bucket_of(app, served.harness.services.broker)
        await bucket.ensure()
        me = {"host": "gone", "pid": 7, "started": time.time(), "stages": ["cut"]}
        assert await bucket.save("x", json.dumps(me).encode(), 0)
        assert await bucket.save("y", b"a stranger's", 0)

        async def lost() -> bool:
            text = (await served.http.get("/pipeline")).text
            return "lost" in text and "gone" in text and "1 lost" in text

        await until(lost, "the lost worker")


async def events(served: Served, path: str) -> list[tuple[str, dict[str, str]]]:
    """The first states of a stream, as a browser has them."""
    found: list[tuple[str, dict[str, str]]] = []
    async with served.http.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                if len(found) == 2:
                    break
    return found


async def test_states_come_whole_and_rates_at_the_second_look(nats: Settings) -> None:
    async with serving(nats) as served:
        async with served.harness.worker():
            await served.harness.publish(*[Photo(f"p{n}") for n in range(20)])
            first, second = await events(served, "/pipeline/live")
        assert first[0] == second[0] == "state"
        assert "\N{EN DASH}/s" in first[1]["html"]
        assert "\N{EN DASH}/s" not in second[1]["html"]
        assert 'id="stages"' in second[1]["html"]
        assert "<html" not in second[1]["html"]
        assert served.console.front.streams == 0 or await until(
            lambda: served.console.front.streams == 0, "the stream's end"
        )


async def test_an_alias_of_a_model_that_is_none(nats: Settings) -> None:
    async with serving(nats) as served:
        form = {"model": "none", "alias": "live", "version": "1"}
        refused = await served.http.post("/pipeline/alias", data=form)
        assert refused.status_code == 400
        shown = await served.http.post("/pipeline/alias", data=form, headers={"hx-request": "true"})
        assert shown.status_code == 200  # htmx shows nothing else
        assert 'role="alert"' in shown.text
