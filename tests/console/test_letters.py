"""Dead letters on their page: grouped, shown as text whatever they hold, sent back and dropped."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from mqinfer import Blob
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.console import Served, serving
from tests.support.console_app import HOSTILE, Grade, Photo

SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


def fields(text: str) -> dict[str, list[str]]:
    """The fields of the form in an answer, as a browser would send them."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', text):
        found.setdefault(name, []).append(value)
    return found


async def kill(served: Served, names: list[str], mark: Path, picture: bytes | None = None) -> None:
    """Let photos die."""
    mark.touch()  # noqa: ASYNC240
    blob = None if picture is None else Blob(picture)
    photos = [Photo(name, bad=str(mark), picture=blob) for name in names]
    before = len(await served.harness.dead())
    await served.harness.publish(*photos)
    await served.harness.drain()
    assert len(await served.harness.dead()) == before + len(names)


async def test_sent_back_and_dropped(nats: Settings, tmp_path: Path) -> None:
    mark = tmp_path / "bad"
    async with serving(nats) as served:
        http = served.http
        assert "every message was answered" in (await http.get("/letters")).text
        await kill(served, [f"p{n}" for n in range(5)], mark)
        await served.harness.publish(Photo("none"))
        await served.harness.publish_bytes("garden.photo", b"\x00\xff no photo")
        await served.harness.drain()

        async def seen() -> str | None:
            text = (await http.get("/letters")).text
            return text if "DecodeError" in text else None

        page = await until(seen, "the letters")
        counts = re.findall(r'data-name="letters"><a href="([^"]*)">(\d+)<', page)
        assert [count for _, count in counts] == ["5", "1", "1"]
        alike = await http.get(counts[0][0].replace("&amp;", "&").partition("#")[0])
        assert len(re.findall(r'name="seq"', alike.text)) == 5
        assert "no photograph" not in alike.text.partition('id="letters"')[2]

        # What would be done is counted, and nothing is done.
        asked = await http.post("/letters/ask", data={"do": "retry", "seq": ["1", "2", "3"]})
        assert "3 letters would be sent back" in asked.text
        assert len(await served.harness.dead()) == 7
        mark.unlink()
        acted = await http.post("/letters/act", data=fields(asked.text))
        assert "3 of 3 sent back" in acted.text
        assert len(await served.harness.dead()) == 4
        await served.harness.drain()
        assert {one.photo for one in await served.harness.messages(Grade)} == {"p0", "p1", "p2"}

        # All that match: what dies after the question is not meant.
        asked = await http.post("/letters/ask", data={"do": "drop", "all": "1", "stage": "cut"})
        assert "4 letters would be dropped for good" in asked.text
        await kill(served, ["late"], mark)
        acted = await http.post("/letters/act", data=fields(asked.text))
        assert "4 of 4 dropped" in acted.text
        assert [b"late" in one.data for one in await served.harness.dead()] == [True]
        nothing = await http.post("/letters/ask", data={"do": "drop", "seq": ["1"]})
        assert "None of them is there" in nothing.text
        for form in ({"do": "burn", "seq": ["8"]}, {"do": "drop"}, {"do": "drop", "seq": ["x"]}):
            assert (await http.post("/letters/act", data=form)).status_code == 400
        assert len(await served.harness.dead()) == 1


async def test_many_are_sent_back_in_parts(nats: Settings, tmp_path: Path) -> None:
    mark = tmp_path / "bad"
    async with serving(nats) as served:
        await kill(served, [f"p{n}" for n in range(230)], mark)
        # A letter that cannot be sent back is passed, once, and all behind it are.
        headers = {"Mq-Dead-Stage": "gone", "Mq-Dead-Kind": "failed"}
        await served.harness.publish_bytes("dead.garden.gone", b"{}", headers)
        asked = await served.http.post("/letters/ask", data={"do": "retry", "all": "1"})
        assert "231 letters would be sent back" in asked.text
        assert "has no stage gone any more" in asked.text
        mark.unlink()
        form, answers = fields(asked.text), 0
        form.pop("to", None)
        while True:
            answer = await served.http.post("/letters/act", data=form)
            answers += 1
            if "hx-trigger" not in answer.text:
                break
            form = fields(answer.text)
        assert answers == 3
        assert "230 of 231 sent back, 1 not." in answer.text
        assert "no stage gone any more" in answer.text
        assert [one.stage for one in await served.harness.dead()] == ["gone"]
        await served.harness.drain()
        assert len(await served.harness.messages(Grade)) == 230


async def test_older_pages_of_the_list(nats: Settings, tmp_path: Path) -> None:
    async with serving(nats) as served:
        await kill(served, [f"p{n}" for n in range(120)], tmp_path / "bad")
        seen: list[int] = []
        path = "/letters?stage=cut"
        while path:
            text = (await served.http.get(path)).text
            seen += [
                int(one) for one in re.findall(r'name="seq" id="tick-\d+" value="(\d+)"', text)
            ]
            older = re.search(r'rel="next" href="([^"]*)"', text)
            path = older[1].replace("&amp;", "&") if older else ""
        assert seen == list(range(120, 0, -1))
        assert (await served.http.get("/letters?before=x")).status_code == 400


async def test_what_is_stored_is_text(nats: Settings, tmp_path: Path) -> None:
    """Nothing that somebody stored is ever a page, or a drawing, to a browser."""
    pixels = np.full((90, 120, 3), 200, np.uint8)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    async with serving(nats) as served:
        http = served.http
        await kill(served, [HOSTILE], tmp_path / "bad", png)
        await kill(served, ["svg"], tmp_path / "bad", SVG)
        await served.harness.services.store.put("evil.svg", SVG)  # type: ignore[union-attr]
        await served.harness.services.store.put("leaf.png", png)  # type: ignore[union-attr]
        for path in ("/letters", "/letters/letter?seq=1", "/letters/letter?seq=2"):
            text = (await http.get(path)).text
            assert "<script>alert" not in text
            assert "<img src=x" not in text
            assert "&lt;script&gt;alert(1)" in text or "svg" in text
        shown = (await http.get("/letters/letter?seq=1")).text
        assert "RuntimeError" in shown
        assert "console_app.py" in shown  # the traceback

        payload = await http.get("/letters/payload?seq=1")
        assert payload.headers["content-type"] == "application/octet-stream"
        assert payload.headers["content-disposition"].startswith("attachment")
        assert HOSTILE[:8].encode() in payload.content

        # A picture is drawn anew; what is none is not sent at all.
        for path in ("/letters/picture?seq=1&n=0", "/picture?path=leaf.png&side=64"):
            picture = await http.get(path)
            assert picture.headers["content-type"] == "image/jpeg"
            assert picture.headers["content-security-policy"] == "default-src 'none'; sandbox"
            assert picture.content.startswith(b"\xff\xd8\xff")
            assert max(cv2.imdecode(np.frombuffer(picture.content, np.uint8), 1).shape) <= 120
        for path in (
            "/letters/picture?seq=2&n=0",
            "/letters/picture?seq=1&n=9",
            "/letters/picture?seq=1&n=-1",
            "/picture?path=evil.svg",
            "/picture?path=../../etc/passwd",
            "/picture?path=none.png",
            "/picture?path=leaf.png&side=x",
        ):
            refused = await http.get(path)
            assert refused.status_code == 404, path
            assert refused.headers["content-type"].startswith("text/plain")
            assert b"<svg" not in refused.content
        assert (await http.get("/letters/letter?seq=99")).status_code == 400
