"""The client in JavaScript, against the real gateway and against servers that break off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.taskqueue.facts import node
from examples.taskqueue.local import SITE
from mqinfer.settings import Settings
from tests.support.gateway import Served, serving

TIMEOUT = 120.0
BEGIN = f"""
import * as mq from "{(SITE / "client.mjs").as_uri()}";
const [base, ...given] = process.argv.slice(1);
const client = new mq.Client(base);
const outcome = async (work) => {{
  try {{ return await work; }}
  catch (error) {{ return {{ error: error.name, message: error.message, ...error }}; }}
}};
const asked = async (endpoint, input, options) =>
  outcome(client.request(endpoint, input, options).then((request) => request.result()));
"""


async def javascript(code: str, *arguments: str) -> Any:
    """What a script prints as JSON."""
    program = node()
    assert program is not None, "pyright[nodejs] of the dev extra brings a node"
    process = await asyncio.create_subprocess_exec(
        program, "--input-type=module", "-e", BEGIN + code, "--", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def url(served: Served) -> str:
    return str(served.http.base_url)


async def test_each_end_is_an_answer_or_an_error_of_its_kind(nats: Settings) -> None:
    async with serving(nats) as served, served.harness.worker():
        found = await javascript(
            """
            console.log(JSON.stringify({
              good: await asked("grade", { name: "a", leaves: 2 }),
              wrong: await asked("grade", { name: "", leaves: "many" }),
              bad: await asked("grade", { name: "bad" }),
              broken: await asked("grade", { name: "broken" }),
              partly: await asked("grade", { name: "partly", leaves: 3 }),
              nowhere: await asked("no such", {}),
              nobody: await outcome(client.get("rq_nobody")),
            }));
            """,
            url(served),
        )
        errors = {name: one.get("error") for name, one in found.items() if name != "good"}
        assert found["good"] == [{"photo": "a", "number": 0}, {"photo": "a", "number": 1}]
        assert errors == {
            "wrong": "Invalid", "bad": "Rejected", "broken": "Failed", "partly": "Rejected",
            "nowhere": "Unknown", "nobody": "Unknown",
        }  # fmt: skip
        assert found["wrong"]["fields"] == ["name", "leaves"]
        assert (found["bad"]["reason"], found["bad"]["kind"]) == ("no photograph of a plant", "")
        assert found["broken"]["letter"]
        assert "secret" not in json.dumps(found)


async def test_it_waits_hears_events_and_cancels(nats: Settings, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with serving(nats) as served, served.harness.worker():
        waits = asyncio.create_task(
            javascript(
                """
                const { existsSync, unlinkSync } = await import("node:fs");
                const photo = { name: "held", leaves: 3, hold: given[0] };
                const key = "once";
                const request = await client.request("grade", photo, { key });
                const pending = await outcome(request.result({ timeout: 1 }));
                const events = [];
                for await (const event of request.events()) {
                  events.push(event);
                  if (event.type === "answer" && existsSync(given[0])) unlinkSync(given[0]);
                }
                const last = events.find((one) => one.type === "answer").id;
                const rest = [];
                for await (const { type } of request.events({ last })) rest.push(type);
                const again = await client.request("grade", photo, { key });
                const late = await outcome(again.cancel());
                console.log(JSON.stringify({
                  pending, late, rest, same: again.id === request.id,
                  types: events.map((one) => one.type), answers: await again.result(),
                }));
                """,
                url(served), str(hold),
            )
        )  # fmt: skip
        found = await waits
    assert found["pending"]["error"] == "Pending"
    assert found["types"].count("answer") == 3
    assert found["types"][-1] == found["rest"][-1] == "end"
    assert found["rest"].count("answer") == 2
    assert found["same"]
    assert (found["late"]["error"], found["late"]["status"]) == ("Refused", 409)
    assert [one["number"] for one in found["answers"]] == [0, 1, 2]


async def test_a_canceled_one_says_so(nats: Settings, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with serving(nats) as served, served.harness.worker():
        found = await javascript(
            """
            const request = await client.request("grade", { name: "a", leaves: 2, hold: given[0] });
            await request.cancel();
            const stop = AbortSignal.timeout(50);
            const held = await client.request("grade", { name: "b", leaves: 2, hold: given[0] });
            const aborted = await outcome(held.result({ signal: stop }));
            console.log(JSON.stringify({ end: await outcome(request.result()), aborted }));
            """,
            url(served),
            str(hold),
        )
        hold.unlink()
    assert found["end"]["error"] == "Canceled"
    assert found["aborted"]["error"] == "TimeoutError"


# --- servers that break off -----------------------------------------------------------------------

Answer = Callable[[str, dict[str, str]], bytes | None]


@asynccontextmanager
async def playing(answer: Answer) -> AsyncIterator[str]:
    """A server that answers each request with these bytes, and hangs up; None hangs up at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            await reader.readexactly(int(headers.get("content-length", 0)))
            writer.write(answer(first, headers) or b"")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def response(status: str, body: object, *headers: str) -> bytes:
    text = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(text)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + text


STATE = {"id": "rq", "links": {"result": "/r", "events": "/e"}}


async def test_it_asks_again_under_the_same_key() -> None:
    keys: list[str] = []

    def answer(first: str, headers: dict[str, str]) -> bytes | None:
        keys.append(headers["idempotency-key"])
        if len(keys) == 1:
            return None
        if len(keys) == 2:
            return response("429 Too Many Requests", {"detail": "busy"}, "retry-after: 1")
        return response("202 Accepted", STATE)

    async with playing(answer) as base:
        found = await javascript(
            'console.log(JSON.stringify((await client.request("a", {})).id));', base
        )
    assert found == "rq"
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_events_go_on_where_they_broke_off() -> None:
    lasts: list[str | None] = []
    stream = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
    parts = [
        ': hello\n\nevent: progress\nid: 1\ndata: {"a":1}\n\nevent: answer\nid: 2\ndata: {"b":',
        'event: answer\r\nid: 2\r\ndata: {"b":2}\r\n\r\nevent: reconnect\ndata: {}\n\n',
        'retry: 7\nid: 3.end\nevent: end\ndata: {"c":\ndata: 3}\n\nevent: answer\ndata: {}\n\n',
    ]

    def answer(first: str, headers: dict[str, str]) -> bytes | None:
        lasts.append(headers.get("last-event-id"))
        return (stream + parts[len(lasts) - 1]).encode()

    async with playing(answer) as base:
        found = await javascript(
            """
            const found = [];
            for await (const event of client.events("/e")) found.push(event);
            console.log(JSON.stringify(found));
            """,
            base,
        )
    assert found == [
        {"id": "1", "type": "progress", "data": {"a": 1}},
        {"id": "2", "type": "answer", "data": {"b": 2}},
        {"id": "3.end", "type": "end", "data": {"c": 3}},
    ]
    assert lasts == [None, "1", "2"]


@pytest.mark.parametrize("status", ["503 Service Unavailable", None])
async def test_what_lasts_is_told(status: str | None) -> None:
    def answer(first: str, headers: dict[str, str]) -> bytes | None:
        return status and response(status, {"detail": "NATS is away"}, "retry-after: 1")

    async with playing(answer) as base:
        found = await javascript(
            """
            client.patience = 0.5;
            console.log(JSON.stringify(await asked("a", {})));
            """,
            base,
        )
    assert found["error"] == "Unavailable"
    assert status is None or "NATS is away" in found["message"]


async def test_a_job_of_a_file_and_one_of_rows(nats: Settings) -> None:
    async with serving(nats) as served, served.harness.worker():
        found = await javascript(
            """
            const followed = async (source, terms) => {
              const job = await client.submit("grade", source, terms);
              const told = [];
              for await (const one of job.progress()) told.push(one.progress.done);
              const rows = [];
              for await (const { row, custom_id, status, answers, errors } of job.results())
                rows.push([row, custom_id ?? "", status, answers.length,
                  errors.map((one) => [one.name, one.fields ?? one.reason ?? one.letter])]);
              const errors = [];
              for await (const { row } of job.results({ errors: true, after: 2 })) errors.push(row);
              const again = await client.job(job.id);
              return { status: again.state.status, told, rows, errors,
                       late: (await outcome(again.cancel())).status };
            };
            const csv = "custom_id,name,leaves\\na,a,2\\nb,b,many\\nc,bad,0\\nd,broken,1\\n";
            console.log(JSON.stringify({
              file: await followed(new Blob([csv]), { format: "csv" }),
              rows: await followed([{ name: "a", leaves: 1 }, { name: "" }]),
              wrong: await outcome(client.submit("nowhere", [])),
            }));
            """,
            url(served),
        )
    file, rows = found["file"], found["rows"]
    assert file["status"] == rows["status"] == "partial"
    assert file["told"] == sorted(file["told"])
    assert file["told"][-1] == 4
    letter = file["rows"][3][4][0][1]
    assert file["rows"] == [
        [1, "a", "succeeded", 2, []],
        [2, "b", "failed", 0, [["Invalid", ["leaves"]]]],
        [3, "c", "failed", 0, [["Rejected", "no photograph of a plant"]]],
        [4, "d", "failed", 0, [["Failed", letter]]],
    ]
    assert letter
    assert file["errors"] == [3, 4]
    assert file["late"] == 409
    assert [row[4] for row in rows["rows"]] == [[], [["Invalid", ["name"]]]]
    assert (found["wrong"]["error"], found["wrong"]["fields"]) == ("Invalid", ["/endpoint"])


async def test_results_go_on_where_they_broke_off() -> None:
    paths: list[str] = []
    body = [json.dumps({"row": n, "answers": [], "errors": []}) + "\n" for n in (1, 2, 3)]
    head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n"

    def answer(first: str, headers: dict[str, str]) -> bytes | None:
        paths.append(first.split()[1])
        if len(paths) == 1:
            return (head + body[0] + body[1][:9]).encode()
        text = body[1] + body[2]
        return f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()

    async with playing(answer) as base:
        found = await javascript(
            """
            const job = new mq.Job(client, { id: "j", links: { results: "/r" } });
            const rows = [];
            for await (const { row } of job.results()) rows.push(row);
            console.log(JSON.stringify(rows));
            """,
            base,
        )
    assert found == [1, 2, 3]
    assert paths == ["/r?after=0", "/r?after=1"]
