"""Pages of the user's own, beside the API: never in its place, and none from outside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.gateway.options import Options
from mqinfer.gateway.static import OURS
from mqinfer.gateway.tenants import new_key
from mqinfer.settings import Settings
from tests.support.gateway import JSON, serving

ASK = "/v1/endpoints/grade/requests"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<p>first</p>")
    (folder / "parts" / "index.html").write_text("<p>second</p>")
    (folder / "page.js").write_text("let a")
    for ours in OURS:
        (folder / ours).mkdir()
        (folder / ours / "index.html").write_text("shadow")
    (folder / "v1" / "requests").mkdir()
    (folder / "v1" / "none").write_text("shadow")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


async def raw(url: httpx.URL, path: str) -> tuple[int, bytes]:
    """What is answered to a path that no client would send as it is."""
    async with asyncio.timeout(120):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(answer.split()[1]), body


async def test_pages_beside_the_api(nats: Settings, site: Path) -> None:
    async with serving(nats, site=site) as served:
        http = served.http
        first = await http.get("/")
        assert (first.status_code, first.text) == (200, "<p>first</p>")
        assert first.headers["content-type"].startswith("text/html")
        assert first.headers["cache-control"] == "no-cache"
        known = {"if-none-match": first.headers["etag"]}
        assert (await http.get("/", headers=known)).status_code == 304
        script = await http.get("/page.js", headers={"sec-fetch-site": "same-origin"})
        assert (script.status_code, script.text) == (200, "let a")
        assert "javascript" in script.headers["content-type"]
        assert (await http.get("/parts/")).text == "<p>second</p>"
        assert (await http.get("/parts")).headers["location"].endswith("/parts/")
        head = await http.head("/page.js")
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.post("/page.js")).status_code == 405
        assert (await http.get("/none")).json()["type"].endswith("unknown")
        other = await http.get("/page.js", headers={"sec-fetch-site": "cross-site"})
        assert other.status_code == 403

        # The API is where it was.
        same = {"origin": str(http.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
        body = {"input": {"name": "a"}}
        assert (await http.post(ASK, json=body, headers=same)).status_code == 202
        assert (await http.get("/healthz")).text == "alive\n"
        assert "openapi" in (await http.get("/openapi.json")).json()
        assert "swagger" in (await http.get("/docs")).text
        for ours in OURS:
            for path in (f"/{ours}", f"/{ours}/", f"/{ours}/index.html"):
                assert "shadow" not in (await http.get(path)).text
        for path in ("/v1/none", "/v1/requests/", "/v1/endpoints/x"):
            assert (await http.get(path)).status_code == 404

        # Nothing outside of the folder is reached.
        for path in (
            "/link", "/../secret", "/parts/../../secret", "/%2e%2e/secret", "/..%2fsecret",
            "/%2e%2e%2fsecret", "/..\\secret", "//secret", f"/{site.parent}/secret", "/%00",
            f"/{'a' * 300}",
        ):  # fmt: skip
            status, content = await raw(http.base_url, path)
            assert 400 <= status < 500, path
            assert b"secret" not in content


async def test_pages_need_no_key(nats: Settings, site: Path, tmp_path: Path) -> None:
    key, told = new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[acme]\nkeys = ["{told}"]\n')
    settings = replace(nats, request_secret="a secret that all gateways share")
    async with serving(settings, key=key, keys=keys, site=site) as served:
        async with httpx.AsyncClient(base_url=served.http.base_url, trust_env=False) as bare:
            assert (await bare.get("/")).text == "<p>first</p>"
            refused = await bare.post(ASK, content=b'{"input": {"name": "a"}}', headers=JSON)
            assert refused.status_code == 401
        assert (await served.http.get("/v1/endpoints")).status_code == 200


def test_a_folder_that_is_none(site: Path) -> None:
    for wrong in (site / "nothing", site / "page.js"):
        with pytest.raises(ConfigurationError, match="--site"):
            Options(site=wrong)
