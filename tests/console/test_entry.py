"""Who may look, and who may act; what every answer says; that no file of others was changed."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

import httpx
import pytest

import mqinfer.console
from mqinfer.console import application, entry
from mqinfer.console.application import own_path
from mqinfer.console.options import Options, parse_address
from mqinfer.errors import ConfigurationError
from mqinfer.settings import Settings
from tests.support.console import TOKEN, Served, serving

STATIC = Path(mqinfer.console.__file__).parent / "static"
ALIAS = {"model": "none", "alias": "none", "version": "1"}
SOME = {"seq": ["1"], "do": "retry"}


def test_the_files_of_others_are_as_they_were_published() -> None:
    lines = (STATIC / "SHA256SUMS").read_text().splitlines()
    sums = {name: told for told, name in (line.split() for line in lines)}
    ours = {"console.css", "console.js", "icon.svg", "SHA256SUMS", "README"}
    others = {path.name for path in STATIC.iterdir()} - ours
    assert {name for name in others if not name.endswith(".LICENSE")} == set(sums)
    for name, told in sums.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == told
        assert (STATIC / f"{name.split('.')[0]}.LICENSE").read_text().strip()
        assert name in (STATIC / "README").read_text()


def test_others_are_let_in_with_a_token_alone() -> None:
    with pytest.raises(ConfigurationError, match="give it a token"):
        Options(host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="can be guessed"):
        Options(token="short")
    assert not Options(host="0.0.0.0", token=TOKEN).local
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("8090") == ("127.0.0.1", 8090)
    for text in ("host", "host:", "host:x", "host:70000"):
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            parse_address(text)


async def enter(served: Served, token: str) -> httpx.Response:
    """As a browser does it, by a form of ours."""
    headers = {"origin": served.url, "sec-fetch-site": "same-origin"}
    return await served.stranger.post("/enter", data={"token": token}, headers=headers)


async def test_looking_and_acting_on_this_machine(nats: Settings) -> None:
    async with serving(nats) as served:
        page = await served.stranger.get("/pipeline")
        assert page.status_code == 200
        assert "looking only" in page.text
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        # Nothing on the page needs another policy, or another origin.
        assert not re.search(r"<[^>]*\s(?:style|on\w+)=", page.text)
        assert not re.search(r"""(?:src|href|action)=["'](?:https?:|//)""", page.text)

        # A token in hand needs no page; without it, or from elsewhere, nothing is done.
        act = "/letters/act"
        assert "1 " not in (await served.stranger.post(act, data=SOME)).text
        assert (await served.stranger.post(act, data=SOME)).status_code == 403
        wrong = {"authorization": "Bearer wrong"}
        assert (await served.stranger.post(act, data=SOME, headers=wrong)).status_code == 403
        assert (await served.http.post(act, data=SOME)).status_code == 200

        assert (await enter(served, "wrong")).status_code == 403
        assert not served.stranger.cookies
        entered = await enter(served, TOKEN)
        assert entered.status_code == 200
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in cookie
        assert "looking only" not in (await served.stranger.get("/pipeline")).text

        # The cookie acts for pages of ours alone.
        own = {"origin": served.url}
        assert (await served.stranger.post(act, data=SOME)).status_code == 403
        for origin in ("http://evil.example", "null"):
            answer = await served.stranger.post(act, data=SOME, headers={"origin": origin})
            assert answer.status_code == 403
        assert (await served.stranger.post(act, data=SOME, headers=own)).status_code == 200
        # A page of another origin that leads here may do so, and a rebound name may not.
        leads = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
        assert (await served.stranger.get("/pipeline", headers=leads)).status_code == 200
        assert (
            await served.stranger.get("/pipeline", headers={"host": "evil.example"})
        ).status_code == 403

        missing = await served.stranger.get("/none")
        assert missing.status_code == 404
        assert "nothing is at this address" in missing.text
        huge = {"seq": ["1" * 300_000], "do": "retry"}
        assert (await served.http.post(act, data=huge)).status_code == 413
        assert (await served.stranger.post("/enter", content=b"\xff")).status_code == 400


async def test_who_sends_slowly_is_not_waited_for(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "_PAUSE", 0.2)
    async with serving(nats) as served:
        for path in ("/letters/act", "/enter"):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n"
            writer.write(f"{head}authorization: Bearer {TOKEN}\r\n\r\nseq=1".encode())
            told = (await reader.read()).decode()  # until the connection is closed
            assert told.startswith("HTTP/1.1 408 "), told
            assert "too slowly" in told
            writer.close()


async def test_a_token_that_ended_is_asked_for_again(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine to act, elsewhere to look; who tells it goes on where they were."""
    async with serving(nats) as served:
        await enter(served, TOKEN)
        here = "/letters?stage=cut"
        headers = {"origin": served.url, "hx-request": "true", "hx-current-url": served.url + here}
        async with served.stranger.stream("GET", "/letters/live") as answer:
            lines = answer.aiter_lines()
            first = [await anext(lines) for _ in range(5)]
            assert "event: state" in first
        assert "looking only" not in (await served.stranger.get(here)).text
        monkeypatch.setattr(entry, "LASTS", -1.0)
        await enter(served, TOKEN)  # a cookie that has ended
        refused = await served.stranger.post("/letters/act", data=SOME, headers=headers)
        onward = "/enter?next=%2Fletters%3Fstage%3Dcut"
        assert f'<a href="{onward}">Enter the token</a>' in refused.text
        page = (await served.stranger.get(here)).text
        assert f'<a class="hint" href="{onward}"' in page
        asked = (await served.stranger.get(onward)).text
        assert 'name="next" value="/letters?stage=cut"' in asked
        form = {"token": TOKEN, "next": here}
        entered = await served.stranger.post("/enter", data=form, headers={"origin": served.url})
        assert 'content="0;url=/letters?stage=cut"' in entered.text
    async with serving(nats, host="0.0.0.0") as served:
        cookie = {"cookie": "mqinfer-console-garden=1.x.y"}
        page = await served.stranger.get(here, headers=cookie)
        assert page.status_code == 401
        assert 'name="next" value="/letters?stage=cut"' in page.text
        part = await served.stranger.get("/letters/letter?seq=1", headers={"hx-request": "true"})
        assert part.headers["hx-refresh"] == "true"  # the page is asked for anew


def test_nobody_is_led_elsewhere() -> None:
    assert own_path("/letters?stage=a#b") == "/letters?stage=a#b"
    elsewhere = ("", "//evil.example", "/\\evil.example", "https://evil.example", "/a\nb")
    assert {own_path(text) for text in (*elsewhere, "/" + "a" * 3000)} == {"/"}


async def test_a_filter_that_is_none_is_said_to_be_none(nats: Settings) -> None:
    async with serving(nats) as served:
        for address, said in (
            ("/requests?status=gone", "there is no status &#39;gone&#39;; one of: open, "),
            ("/requests?endpoint=none", "there is no endpoint &#39;none&#39;; one of: grade"),
            ("/requests?before=x", "&#39;x&#39; is no place in the list"),
            ("/runs?run=none", "has no run &#39;none&#39;"),
        ):
            page = await served.stranger.get(address)
            assert page.status_code == 400, address
            assert said in page.text, address
            assert f'<a href="{address.partition("?")[0]}">All of ' in page.text


async def test_beyond_this_machine_a_token_is_needed_to_look(nats: Settings) -> None:
    async with serving(nats, host="0.0.0.0") as served:
        for path in ("/pipeline", "/pipeline/live", "/letters", "/picture?path=a", "/none"):
            answer = await served.stranger.get(path)
            assert answer.status_code == 401, path
            assert "Token" in answer.text
        assert (await served.stranger.get("/healthz")).text == "alive\n"
        assert (await served.http.get("/pipeline")).status_code == 200
        assert (await served.stranger.get("/enter", params={"token": TOKEN})).status_code == 200
        assert (await served.stranger.get("/pipeline")).status_code == 200
        forged = re.sub(
            r"[0-9]+(?=\.)", "99999999999", next(iter(served.stranger.cookies.values()))
        )
        served.stranger.cookies.set(next(iter(served.stranger.cookies)), forged)
        bad = {"cookie": f"{next(iter(served.stranger.cookies))}={forged}"}
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as other:
            assert (await other.get("/pipeline", headers=bad)).status_code == 401


async def test_read_only(nats: Settings) -> None:
    async with serving(nats, read_only=True) as served:
        page = await served.http.get("/letters")
        assert "read only" in page.text
        assert "hx-post" not in page.text
        refused = await served.http.post("/letters/act", data=SOME)
        assert refused.status_code == 403
        assert "--read-only" in refused.text


async def test_away(nats: Settings) -> None:
    """Where NATS is not there the pages say so, and the stream tells it."""
    gone = Settings.load({}, nats_url="nats://127.0.0.1:9", blobs=nats.blobs)
    from mqinfer.console.console import Console
    from mqinfer.testing import until
    from tests.support.console_app import app

    console = Console(app, Options(port=0), gone)
    async with asyncio.TaskGroup() as group:
        group.create_task(console.run())
        try:
            await until(lambda: console.url, "an address")
            async with httpx.AsyncClient(base_url=console.url or "", trust_env=False) as http:
                page = await http.get("/pipeline")
                assert page.status_code == 503
                assert "waits for NATS" in page.text
        finally:
            console.stop()
