"""What is forgotten stays so, also where the server is killed later."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqinfer.bucket import Bucket
from mqinfer.errors import JobUnknown, RequestUnknown
from mqinfer.jobs.jobs import bucket_of as jobs_of
from mqinfer.requests.kept import bucket_of
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.support.jobs_app import Photo, app


async def dropped(bucket: Bucket) -> None:
    """Return when the server has dropped a value that lives for a second."""
    assert await bucket.save("last.0", b"{}", 0, ttl=1.0)

    async def gone() -> bool:
        return await bucket.load("last.0") is None

    await until(gone, "the last value is dropped")


async def test_what_was_deleted_does_not_come_back_with_a_server_that_was_killed(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"))
        async with Harness(app, settings) as harness:
            client, broker = harness.client, harness.services.broker
            requests, bulk = await client.requests(), await client.bulk()
            # Some stay, as the server forgets better of a stream where nothing is left.
            asked = [await client.request(Photo(n), endpoint="grade", key=f"{n}") for n in range(9)]
            jobs = [await client.submit("grade", [Photo(1)], key=f"job {n}") for n in range(3)]
            for request in asked[::2]:
                await requests.forget(request.id)
            await bulk.forget(jobs[0].id)
            # Should the server have dropped what took their place, it did so before it drops this.
            for bucket in (bucket_of(app, broker), jobs_of(app, broker)):
                await dropped(bucket)
            server.kill()
            await server.start()
            await server.wait_ready(60)
            for request in asked[::2]:
                with pytest.raises(RequestUnknown):
                    await client.get_request(request.id)
            with pytest.raises(JobUnknown):
                await client.job(jobs[0].id)
            assert (await client.get_request(asked[1].id)).status == "open"
            # Their keys are free.
            again = await client.request(Photo(9), endpoint="grade", key="0")
            assert (again.id, again.replayed, again.status) == (asked[0].id, False, "open")
            assert not (await client.submit("grade", [Photo(2)], key="job 0")).replayed
    finally:
        await server.stop()
