"""`up --password`: NATS and ClickHouse want it, and nobody finds it by looking around."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("chdb")
from mqinfer import App, Message, Settings, wiring
from mqinfer.errors import PermissionDenied
from mqinfer.stack import Stack, StackConfigurationError, StackSettings, run_up
from mqinfer.stack.probe import http
from mqinfer.testing import until

app = App("behind")


class Number(Message):
    value: int


@app.stage
async def keep(number: Number) -> None:
    pass


def settings(folder: Path, **changes: object) -> StackSettings:
    return StackSettings.free_ports(folder / "stack", triton=False, **changes)


async def test_nats_and_clickhouse_want_it(tmp_path: Path) -> None:
    async with Stack(settings(tmp_path, password="Secret~1.x")) as stack:
        for url in (stack.nats_url, stack.clickhouse_url):
            assert ":Secret~1.x@127.0.0.1:" in url
        inside = Settings.load(stack.environment())
        async with wiring.jetstream(app, inside, "test"):
            pass
        outside = replace(inside, nats_url=inside.nats_url.replace("Secret~1.x", "guess"))
        with pytest.raises(PermissionDenied):
            async with wiring.jetstream(app, outside, "test"):
                pass
        assert stack.clickhouse is not None
        status, _ = await http(stack.clickhouse.port, "/?query=SELECT%201")
        assert status == 403
        for server in stack.servers:
            process = psutil.Process(server.pid)
            for seen in (process, *process.parents()):
                assert "Secret~1.x" not in " ".join(seen.cmdline())
        assert stack.nats is not None
        assert stat.S_IMODE(stack.nats.config_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(stack.dir.stat().st_mode) == 0o700


async def test_one_that_was_made_up_is_kept_for_the_next_start(tmp_path: Path) -> None:
    first = Stack(settings(tmp_path, password=""))
    second = Stack(settings(tmp_path, password=""))
    assert first.nats_url.split("@")[0] == second.nats_url.split("@")[0]
    assert stat.S_IMODE((first.dir / "password").stat().st_mode) == 0o600
    assert "mqinfer:" not in Stack(settings(tmp_path)).nats_url


@pytest.mark.parametrize(
    "text", ["short", "with space in it", "a/b@c:d?e#f", "quote\"''", "ümläute!"]
)
def test_what_does_not_belong_into_urls_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackConfigurationError, match="letters, digits"):
        Stack(settings(tmp_path, password=text))


async def test_up_says_how_to_come_in(tmp_path: Path) -> None:
    lines: list[str] = []
    chosen = settings(tmp_path, password="", clickhouse=False)
    running = asyncio.create_task(run_up(chosen, out=lines.append))
    try:
        await until(lambda: any(line.startswith("ready") for line in lines), "readiness")
        made = (tmp_path / "stack" / "password").read_text().strip()
        assert any(
            line.startswith("export MQINFER_NATS_URL=nats://mqinfer:" + made) for line in lines
        )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
