"""What is forgotten by DELETE: nothing of it stays, and its key is free at once."""

from __future__ import annotations

from pathlib import Path

from mqinfer import App, Message
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.gateway import serving

app = App("long")


class Ask(Message):
    n: int


class Long(Message):
    text: str


@app.stage
async def answer(ask: Ask) -> Long:
    return Long(str(ask.n) * 100_000)


app.endpoint("long", Ask, answers=Long)


async def test_large_answers_go_and_the_key_is_free_at_once(nats: Settings) -> None:
    """Answers above 64 kB are blobs; and of the one before nothing reaches the next of its key."""
    async with serving(nats, app) as served, served.harness.worker():
        http, folder = served.http, Path(str(nats.blobs)) / "requests"

        def stored() -> list[Path]:
            return [one for one in folder.rglob("*") if one.is_file()]

        for n in (1, 2, 3, 3):
            headers = {"idempotency-key": "k", "prefer": "wait=60"}
            where = "/v1/endpoints/long/requests"
            asked = await http.post(where, json={"input": {"n": n}}, headers=headers)
            assert asked.status_code == 200, asked.text
            assert "idempotent-replayed" not in asked.headers
            assert asked.json()["answers"][0]["data"] == {"text": str(n) * 100_000}
            await until(lambda: len(stored()) == 1, "the answers of one request")
            links = asked.json()["links"]
            again = await http.get(links["result"])
            assert again.json()["answers"] == asked.json()["answers"]
            assert (await http.delete(links["self"])).status_code == 204
            assert (await http.get(links["self"])).status_code == 404
        await until(lambda: not stored(), "nothing that is left")
