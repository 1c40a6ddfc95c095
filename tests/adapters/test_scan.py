"""A scan is of what the stream has, also where a replica answers that has not caught up."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest

from mqinfer.adapters import admin
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.settings import Settings
from mqinfer.testing import nats_only, until

ALL, BEHIND = 1200, 700  # messages; more than a batch
PAUSE = 1000  # before which none is stored for a while


@pytest.fixture
async def scanner(nats: Settings) -> AsyncIterator[Scanner]:
    """Of a stream `whole` whose direct gets are answered by one that has the first messages alone.

    That one stands for a replica: it has them under the same numbers, and the server answers for
    it. Which of its replicas a cluster lets answer, and how far that one is, cannot be chosen.
    """
    async with JetStream(nats, name="scan") as broker, Forwarding(nats):
        api = broker.client
        await admin.ask(api, "STREAM.CREATE.whole", {"name": "whole", "subjects": ["s.>"]}, "")
        behind: dict[str, Any] = {
            "name": "behind",
            "subjects": ["old.>"],
            "subject_transform": {"src": "old.>", "dest": "s.>"},
            "allow_direct": True,
        }
        await admin.ask(api, "STREAM.CREATE.behind", behind, "")
        for n in range(ALL):
            if n == PAUSE:
                await asyncio.sleep(0.05)
            for start in ("s", "old")[: 1 + (n < BEHIND)]:
                subject = f"{start}.{'even' if n % 2 == 0 else 'odd'}"
                header = b"NATS/1.0\r\nn: %d\r\n\r\n" % n
                api.write(
                    b"HPUB %b %d %d\r\n%b%d\r\n"
                    % (subject.encode(), len(header), len(header) + len(str(n)), header, n)
                )
        scanner = Scanner(api)
        for stream, count in (("whole", ALL), ("behind", BEHIND)):
            await until(partial(_has, scanner, stream, count), f"{count} messages")
        yield scanner


async def _has(scanner: Scanner, stream: str, count: int) -> bool:
    info = await scanner.stream_info(stream)
    return info is not None and info["state"]["messages"] == count


class Forwarding:
    """Somebody answers direct gets of `whole` with what `behind` has."""

    def __init__(self, settings: Settings):
        self._settings = settings

    async def __aenter__(self) -> None:
        self._client = client = await nats.connect(self._settings.nats_url)

        async def forward(message: Any) -> None:
            await client.publish("$JS.API.DIRECT.GET.behind", message.data, reply=message.reply)

        await client.subscribe("$JS.API.DIRECT.GET.whole", cb=forward)
        await client.flush()

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def numbers(scanner: Scanner, subject: str = ">", **some: Any) -> list[int]:
    found = [one async for one in scanner.messages("whole", subject, **some)]
    assert [one.headers for one in found] == [{"n": one.data.decode()} for one in found]
    assert [one.sequence for one in found] == [int(one.data) + 1 for one in found]
    return [int(one.data) for one in found]


async def test_it_has_all_that_the_leader_has(scanner: Scanner) -> None:
    assert await numbers(scanner) == list(range(ALL))
    assert await numbers(scanner, "s.odd") == list(range(1, ALL, 2))
    assert await numbers(scanner, "s.even", first=650, last=801) == list(range(650, 801, 2))
    assert await numbers(scanner, first=1001, last=1003) == [1000, 1001, 1002]
    assert await numbers(scanner, first=ALL + 1) == []
    assert await numbers(scanner, "s.none") == []


async def test_it_begins_at_a_time_that_others_have_not_reached(scanner: Scanner) -> None:
    at = await scanner.message("whole", PAUSE + 1)
    assert at is not None
    since = at.time - datetime.timedelta(milliseconds=10)
    assert await numbers(scanner, since=since) == list(range(PAUSE, ALL))
    assert await numbers(scanner, "s.odd", since=since) == list(range(PAUSE + 1, ALL, 2))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert await numbers(scanner, since=later) == []


async def test_a_single_message_is_found_though_others_do_not_have_it(scanner: Scanner) -> None:
    found = await scanner.message("whole", 1000)
    assert found is not None
    assert (found.stream, found.subject, found.data) == ("whole", "s.odd", b"999")
    following = await scanner.message("whole", 1000, subject="s.even")
    assert following is not None
    assert following.sequence == 1001
    assert await scanner.message("whole", ALL + 1) is None
    assert await scanner.message("whole", 5, subject="s.none") is None
    await scanner.delete("whole", 1000)
    assert await scanner.message("whole", 1000) is None
    assert (await numbers(scanner))[998:1000] == [998, 1000]


async def test_credentials_that_may_not_ask_the_leader_take_what_there_is(tmp_path: Path) -> None:
    denied = 'permissions { publish { deny: "$JS.API.STREAM.MSG.GET.>" } }'
    users = f'{{user: "some", password: "some", {denied}}}'
    config = f"authorization {{ users = [ {users} ] }}\n"
    async with nats_only(tmp_path, nats_config=config) as plain:
        limited = replace(plain, nats_user="some", nats_password="some")
        async with JetStream(limited, name="scan") as broker:
            spec = {"name": "whole", "subjects": ["s.>"], "allow_direct": True}
            await admin.ask(broker.client, "STREAM.CREATE.whole", spec, "")
            for n, subject in enumerate((b"odd", b"even")):
                broker.client.write(
                    b"HPUB s.%b 17 18\r\nNATS/1.0\r\nn:%d\r\n\r\n%d\r\n" % (subject, n, n)
                )
            scanner = Scanner(broker.client)
            await until(partial(_has, scanner, "whole", 2), "both")
            assert await numbers(scanner, "s.odd") == [0]
            assert await scanner.message("whole", 9) is None


class Busy(Scanner):
    """Somebody writes a key anew between the question where the stream ends and the scan."""

    writes = 2

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        info = await super().stream_info(stream)
        if self.writes:
            self.writes -= 1
            await self._client.request("$KV.seen.a", b"again")
        return info


async def test_a_key_that_is_written_meanwhile_is_there_once(nats: Settings) -> None:
    async with JetStream(nats, name="scan") as broker:
        bucket = JetStreamBucket(broker, "seen")
        await bucket.ensure()
        for key in "abc":
            await bucket.save(key, b"first", 0)
        found = [one async for one in Busy(broker.client).messages("KV_seen", "$KV.seen.*")]
        assert [(one.subject[-1], one.data) for one in found] == [
            ("b", b"first"),
            ("c", b"first"),
            ("a", b"again"),
        ]
        one = [one async for one in Busy(broker.client).messages("KV_seen", "$KV.seen.a")]
        assert [found.data for found in one] == [b"again"]
        # With an end it is what lies before that.
        busy = Busy(broker.client).messages("KV_seen", "$KV.seen.a", last=one[0].sequence)
        assert [found async for found in busy] == []
        assert [one async for one in Scanner(broker.client).messages("KV_none")] == []
