"""Malformed requests by the thousands against a live gateway: each is a 4xx, and the gateway alive.

    python -m tests.gateway.malformed --count 10000 --seed 1

Each is a request that would be accepted, in which one thing is broken that no gateway may accept:
so a 2xx is as wrong as a 5xx, a connection that ends without an answer, or an answer that is late.
They go over sockets as they are, as no client library would send them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mqinfer.testing import nats_only
from tests.support.gateway import Served, serving

GRADE = "/v1/endpoints/grade/requests"
_LIMIT = 60.0  # seconds, on a busy machine
_BOUNDARY = "limit"
Body = Callable[[random.Random], bytes]


@dataclass
class Sent:
    """A request, and what is broken in it."""

    what: str
    path: str = GRADE
    method: str = "POST"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    body: bytes = b""
    length: bool = True  # whether it says how long its body is

    def bytes(self) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1".encode("latin-1"), b"host: localhost"]
        lines += [name.encode("latin-1") + b": " + value for name, value in self.headers]
        if self.length and self.method == "POST":
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def text(pick: random.Random, most: int = 12) -> str:
    """Some characters, of all sorts."""
    sorts = ("abcdefgh", "0123456789", "\u00e4\u4e2d\U0001f331", "\"'\\/{}[]:,", "\t\n\x00\x7f")
    return "".join(pick.choice(pick.choice(sorts)) for _ in range(pick.randint(1, most)))


def value(pick: random.Random, depth: int = 3) -> Any:
    """Anything that JSON has."""
    if depth and pick.random() < 0.3:
        return [value(pick, depth - 1) for _ in range(pick.randint(0, 3))]
    if depth and pick.random() < 0.3:
        return {text(pick): value(pick, depth - 1) for _ in range(pick.randint(0, 3))}
    number = pick.choice([pick.randint(-(10**25), 10**25), pick.random()])
    return pick.choice([None, True, False, number, text(pick)])


# --- bodies: JSON of which one thing is wrong ---------------------------------------------------


def _asked(pick: random.Random) -> dict[str, Any]:
    return {"input": {"name": "a", "leaves": pick.randint(0, 3)}}


def _broken_json(pick: random.Random) -> bytes:
    """No JSON any more: one that ends too early, or has what no JSON has outside of texts."""
    data = json.dumps(_asked(pick)).encode()
    if pick.random() < 0.5:
        return data[: pick.randint(0, len(data) - 1)]
    junk = bytes(pick.choice(b"\x00\x01\x7f\xff;=<>$@") for _ in range(pick.randint(1, 5)))
    return pick.choice([junk + data, data + junk])


def _wrong_field(pick: random.Random) -> bytes:
    data = _asked(pick)
    where, wrong = pick.choice(
        [
            ("name", pick.choice([None, 1, True, [], {}, "", "x" * pick.randint(41, 400)])),
            ("leaves", pick.choice([None, "1", 0.5, -pick.randint(1, 10**9), 101, [], {}, 10**30])),
            ("hold", pick.choice([None, 0, [], {}])),
            ("picture", pick.choice([0, [], {}, {"base64": "?"}, {"base64": 1}, {"part": "none"},
                                     {"url": "http://localhost/"}, "../" + "x" * 9, "/etc/passwd",
                                     "uploads/none", {"base64": "", "part": "a"}])),
        ]
    )  # fmt: skip
    data["input"][where] = wrong
    return json.dumps(data).encode()


def _no_object(pick: random.Random) -> bytes:
    found = value(pick)
    while isinstance(found, dict) and "input" in found:
        found = value(pick)
    return json.dumps(found).encode()


def _no_input(pick: random.Random) -> bytes:
    found = pick.choice([None, 1, "a", [], [value(pick)], {}, {"leaves": 1}, {text(pick): 1}])
    return json.dumps({"input": found}).encode()


def _more(pick: random.Random) -> bytes:
    return json.dumps({**_asked(pick), f"x{text(pick)}": value(pick)}).encode()


def _webhook(pick: random.Random) -> bytes:
    url = pick.choice([text(pick), "http://127.0.0.1/", "file:///etc/passwd", 1, [], "https://x"])
    return json.dumps({**_asked(pick), "webhook": {"url": url}}).encode()


def _deep(pick: random.Random) -> bytes:
    n = pick.randint(1, 4000)
    return pick.choice(
        [b"[" * n, b'{"input":' * n, b'{"input":{"picture":' + b"[" * n + b"]" * n + b"}}"]
    )


def _no_utf8(pick: random.Random) -> bytes:
    return b'{"input": {"name": "' + bytes(pick.randint(128, 255) for _ in range(3)) + b'\xff"}}'


def _large(pick: random.Random) -> bytes:
    return b'{"input": {"name": "a", "hold": "' + b"x" * pick.randint(100_001, 150_000) + b'"}}'


BODIES: list[Body] = [
    _broken_json, _wrong_field, _no_object, _no_input, _more, _webhook, _deep, _no_utf8, _large,
]  # fmt: skip


def _of_jobs(pick: random.Random) -> bytes:
    data: dict[str, Any] = {"endpoint": "grade", "rows": [{"name": "a"}]}
    name, wrong = pick.choice(
        [
            ("endpoint", pick.choice([None, 1, "", text(pick)])),
            ("rows", pick.choice([None, 1, {}, [1], ["a", {}], [None]])),
            ("file", pick.choice(["a", 1, None, "uploads/x.csv"])),  # beside rows
            ("format", pick.choice(["xml", 1, "csv"])),
            ("max_failures", pick.choice([-1, "1", 0.5, None, 10**30])),
            ("deadline", pick.choice([0, -1, "soon", "", None, [], "1y", 1e300])),
            ("keep", pick.choice([0, "x", {}, True])),
            ("chunk", pick.choice([0, 5001, "1", None])),
            (f"x{text(pick)}", value(pick)),
        ]
    )
    data[name] = wrong
    return json.dumps(data).encode()


# --- requests -----------------------------------------------------------------------------------

_JSON = ("content-type", b"application/json")
_FORM = ("content-type", f"multipart/form-data; boundary={_BOUNDARY}".encode())


def _body(pick: random.Random) -> Sent:
    make = pick.choice(BODIES)
    return Sent(make.__name__, headers=[_JSON], body=make(pick))


def _job(pick: random.Random) -> Sent:
    if pick.random() < 0.7:
        return Sent("job", "/v1/jobs", headers=[_JSON], body=_of_jobs(pick))
    make = pick.choice([_broken_json, _no_object, _deep, _no_utf8, _large])
    return Sent(f"job {make.__name__}", "/v1/jobs", headers=[_JSON], body=make(pick))


def _media_type(pick: random.Random) -> Sent:
    kinds = ("text/plain", "application/xml", "application/jsonx", "", "*/*", "json", text(pick))
    kind = pick.choice(kinds).encode("utf-8").translate(None, b"\x00\n\r").strip() or b"x"
    where = pick.choice([GRADE, "/v1/jobs", "/v1/files"])
    return Sent("media type", where, headers=[("content-type", kind)], body=b"{}")


def _form(pick: random.Random) -> Sent:
    head = b'Content-Disposition: form-data; name="%s"\r\n\r\n'
    part = b"--limit\r\n" + head % b"input" + b'{"name": "a"}\r\n'
    broken = pick.choice(
        [
            part,  # no end
            part + part + b"--limit--\r\n",  # twice
            b"--limit\r\nContent-Disposition: form-data\r\n\r\nx\r\n--limit--\r\n",
            b"--limit\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--limit--\r\n",
            b"--limit\r\n" + head % b"input" + b"[1]\r\n--limit--\r\n",
            b"--limit\r\n" + head % b"input" + b"{\r\n--limit--\r\n",
            b"--limit\r\n" + head % b"other" + b"1\r\n--limit--\r\n",  # no name of a photo
            b"--limit\r\nX: " + b"y" * 9000 + b"\r\n\r\nx\r\n--limit--\r\n",
            bytes(pick.randint(0, 255) for _ in range(pick.randint(0, 300))),
            b"--" + b"x" * pick.randint(1, 300),
        ]
    )
    where = GRADE if pick.random() < 0.7 else "/v1/files"
    return Sent("form", where, headers=[_FORM], body=broken)


def _boundary(pick: random.Random) -> Sent:
    kind = pick.choice(
        [b"multipart/form-data", b"multipart/form-data; boundary=",
         b"multipart/form-data; boundary=" + b"x" * 300, b"multipart/form-data; boundary"]
    )  # fmt: skip
    where = pick.choice([GRADE, "/v1/files"])
    return Sent("boundary", where, headers=[("content-type", kind)], body=b"--x--\r\n")


def _key(pick: random.Random) -> Sent:
    key = pick.choice([b"", b"a b", b"x" * 256, b"\xe4", b"\xff\xfe", b"a\tb"])
    headers = [_JSON, ("idempotency-key", key)]
    if pick.random() < 0.3:
        headers = [_JSON, ("idempotency-key", b"a"), ("idempotency-key", b"b")]
    where, body = pick.choice(
        [
            (GRADE, json.dumps(_asked(pick)).encode()),
            ("/v1/jobs", b'{"endpoint": "grade", "rows": []}'),
        ]
    )
    return Sent("key", where, headers=headers, body=body)


def _address(pick: random.Random) -> Sent:
    pieces = ["v1", "requests", "jobs", "endpoints", "files", "result", "events", "..", "%2e%2e",
              "%00", "grade-" + "0" * 32, "job-grade-" + "0" * 32, "*", "%3e", "$JS", "a.b", "%ff",
              "%", "%zz", "x" * 3000]  # fmt: skip
    path = "/x/" + "/".join(pick.choice(pieces) for _ in range(pick.randint(1, 5)))
    known = ["/v1/requests/", "/v1/jobs/", "/v1/endpoints/", "/docs/"]
    if pick.random() < 0.7:
        path = pick.choice(known) + pick.choice(pieces) + pick.choice(["", "/", "/result", "/x"])
    return Sent("address", path, "GET")


def _method(pick: random.Random) -> Sent:
    method = pick.choice(["PUT", "PATCH", "TRACE", "OPTIONS", "FOO", "get", "PROPFIND"])
    where = pick.choice([GRADE, "/v1/jobs", "/v1/files", "/v1/endpoints", "/openapi.json"])
    return Sent("method", where, method)


def _query(pick: random.Random) -> Sent:
    wrong = pick.choice(["", "x", "-1", "1.5", "%00", "9" * 20, "%D9%A3", "1001", "0"])
    return Sent("query", f"/v1/jobs?limit={wrong or '%20'}", "GET")


def _origin(pick: random.Random) -> Sent:
    name = pick.choice(
        [("origin", b"https://evil.example"), ("origin", b"null"),
         ("sec-fetch-site", b"cross-site"), ("sec-fetch-site", bytes([pick.randint(128, 255)]))]
    )  # fmt: skip
    return Sent("origin", headers=[_JSON, name], body=json.dumps(_asked(pick)).encode())


def _head(pick: random.Random) -> Sent:
    """A head that is no HTTP."""
    good = json.dumps(_asked(pick)).encode()
    sent = Sent("head", headers=[_JSON], body=good)
    match pick.randint(0, 7):
        case 0:
            sent.headers.append((pick.choice(["a b", "x\x00y", "", "a(b"]), b"1"))
        case 1:
            sent.headers.append(("x", bytes([pick.choice([0, 1, 10])]) + b"y\x00"))
        case 2:
            sent.headers.append(("host", b"other"))
        case 3:
            sent.headers.append(("content-length", str(len(good) + 1).encode()))
        case 4:
            sent.headers.append(("transfer-encoding", pick.choice([b"gzip", b"chunked, x", b"x"])))
        case 5:
            sent.headers.append(("content-length", pick.choice([b"-1", b"1e3", b"x", b"+5", b""])))
            sent.length = False
        case 6:
            sent.path = pick.choice(["no-slash\x00", "/ v1", "/\x7f", "/\xe4"])
        case _:
            sent.method = pick.choice(["PO ST", "", "P\x00ST", "(POST)"])
            sent.length = False
    return sent


def _chunked(pick: random.Random) -> Sent:
    """A body in chunks whose frame is broken."""
    sizes = [b"-1", b"zz", b"ffffffffffffffffffffffff", b"5;" + b"x" * 70_000, b"", b" 5"]
    body = pick.choice(sizes) + b"\r\nhello\r\n0\r\n\r\n"
    headers = [_JSON, ("transfer-encoding", b"chunked")]
    return Sent("chunked", headers=headers, body=body, length=False)


SORTS = (
    _body, _body, _body, _job, _job, _media_type, _form, _form, _boundary, _key, _address, _method,
    _query, _origin, _head, _chunked,
)  # fmt: skip


def made(count: int, seed: int) -> list[Sent]:
    """So many of them; the same for the same seed."""
    pick = random.Random(seed)
    return [pick.choice(SORTS)(pick) for _ in range(count)]


async def status(served: Served, one: Sent) -> int:
    """The status of the answer; 0: there is none."""
    base = served.http.base_url
    async with asyncio.timeout(_LIMIT):
        reader, writer = await asyncio.open_connection(base.host, base.port)
        try:
            writer.write(one.bytes())
            head = await reader.readline()
            return int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0
        except ConnectionError:
            return 0
        finally:
            writer.close()


async def through(served: Served, sent: list[Sent], at_once: int = 16) -> Counter[str]:
    """Send them all; how many of each sort there were, with their status.

    Raises:
        AssertionError: one had another answer than a 4xx.
    """
    counts: Counter[str] = Counter()
    waiting = iter(sent)
    wrong: list[tuple[int, bytes]] = []

    async def client() -> None:
        for one in waiting:
            found = await status(served, one)
            counts[f"{one.what} {found}"] += 1
            if not 400 <= found < 500:
                wrong.append((found, one.bytes()[:600]))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(client())
    assert not wrong, (len(wrong), wrong[:5])
    assert (await served.http.get("/readyz")).status_code == 200
    asked = await served.ask(name="a")
    assert asked.status_code == 202
    return counts


async def _run(count: int, seed: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            nats_only(Path(folder)) as settings,
            serving(settings, max_body=100_000, max_upload=100_000) as served,
        ):
            counts = await through(served, made(count, seed))
    seconds = time.monotonic() - began
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    print(f"{counts.total():,} malformed requests, each a 4xx, in {seconds:.0f} s; seed {seed}")


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    asyncio.run(_run(asked.count, asked.seed))


if __name__ == "__main__":
    main()
