"""Ten thousand messages that nobody meant to send: each becomes an answer or a dead letter."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from mqinfer import App, Blob, Context, Message, Settings
from mqinfer.adapters.scan import Scanner
from mqinfer.backoff import Backoff
from mqinfer.flow.deadletter import SEQUENCE, STAGE
from mqinfer.identity import IDENTITY, MSG_ID
from mqinfer.testing import Harness, nats_only, until

INPUTS = 12_000
SEED = 20_261_121
SOON = Backoff(initial=0.001, maximum=0.002)


class Loose(Message):
    whole: int = 0
    real: float = 0.0
    text: str = ""
    raw: bytes = b""
    color: Literal["red", "blue"] = "red"
    day: datetime.date | None = None
    at: datetime.datetime | None = None
    names: dict[str, int] | None = None
    any: Any = None
    blob: Blob | None = None
    blobs: list[Blob] | None = None
    pixels: np.ndarray | None = None  # type: ignore[type-arg]
    floats: NDArray[np.float32] | None = None
    small: NDArray[np.uint8] | None = None


class Packed(Loose, wire="msgpack"):
    pass


class Seen(Message, key="text"):
    sequence: int
    text: str
    any: Any = None


app = App("fuzz")


@app.stage(attempts=2, backoff=SOON)
async def loose(message: Loose, ctx: Context) -> Seen:
    return Seen(ctx.sequence, message.text, message.any)


@app.stage(attempts=2, backoff=SOON)
async def packed(message: Packed, ctx: Context) -> Seen:
    return Seen(ctx.sequence, message.text, message.any)


# --- what is sent ---------------------------------------------------------------------------------

TEXTS = (
    "",
    "a",
    "a b",
    "a:b",
    "a\nb",
    "a\r\nb",
    "nul\x00nul",
    "%00",
    "ä€😀",
    "\u2028\x85\xa0",
    ">",
    "*.>",
    "x" * 300,
    "y" * 3_000,
    "z" * 5_000,
    "k" * 40_000,
)
NUMBERS = (0, -1, 2**31, 2**63, 2**64, -(2**64), 10**400, 0.5, 1e308, float("inf"), float("nan"))


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that JSON and msgpack can hold."""
    match rng.randrange(9 if depth < 4 else 5):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(NUMBERS)
        case 2:
            return rng.choice(TEXTS)
        case 3:
            return rng.randbytes(rng.randrange(40)).hex()
        case 4:
            return rng.randrange(-(10**6), 10**6)
        case 5 | 6:
            return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
        case _:
            keys = [*Loose.__struct_fields__, "base64", "dtype", "shape", "data", "zzz"]
            return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def array(rng: random.Random) -> Any:
    """The wire form of an array, more or less."""
    found: dict[str, Any] = {
        "dtype": rng.choice(
            [
                "<f4",
                "|u1",
                "<i8",
                ">f8",
                "<c16",
                "|O",
                "object",
                "f0",
                "<U5",
                "S",
                "<M8[s]",
                "float32",
                "a,b",
                "",
                7,
                "<f4" * 50,
                "bool",
                "i3",
                "V8",
            ]
        ),
        "shape": rng.choice(
            [
                [],
                [2],
                [2, 2],
                [-1],
                [0],
                [2**40, 2**40],
                [2**70],
                "2",
                [1.5],
                [True],
                [1] * 70,
                [10**400],
                None,
            ]
        ),
        "base64": base64.b64encode(rng.randbytes(rng.choice([0, 4, 8, 16, 17]))).decode(),
    }
    if rng.random() < 0.2:
        found["base64"] = rng.choice(["%%%", "A", "AAAA====", "ä", 3, None])
    if rng.random() < 0.1:
        del found[rng.choice(list(found))]
    return found


def document(rng: random.Random) -> dict[str, Any]:
    """Fields of the type, right or wrong."""
    good: dict[str, Any] = {
        "whole": 7,
        "real": 0.5,
        "text": "t",
        "color": "blue",
        "day": "2026-05-01",
        "at": "2026-05-01T00:00:00Z",
        "names": {"a": 1},
        "any": [1],
        "blob": "a/b.png",
    }
    for _ in range(rng.randrange(3)):
        name = rng.choice(Loose.__struct_fields__)
        if name in ("pixels", "floats", "small"):
            good[name] = rng.choice([array(rng), nested(rng.choice([1, 3, 40, 70]), 1), value(rng)])
        elif name in ("blob", "blobs"):
            bad = rng.choice(["../x", "/etc/passwd", "a\x00", "", {"base64": "%%"}, {"base64": 1}])
            good[name] = bad if name == "blob" else [bad]
        elif name == "text":
            good[name] = rng.choice(TEXTS)
        else:
            good[name] = value(rng)
    return good


def nested(depth: int, leaf: Any) -> Any:
    """A list in a list in a list."""
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def encoded(rng: random.Random, wire: str) -> bytes:
    """Some document in bytes."""
    if rng.random() < 0.02:
        depth = rng.choice([200, 2_000, 60_000])
        if wire == "json":
            return b'{"any":' + b"[" * depth + b"]" * depth + b"}"
        return b"\x81\xa3any" + b"\x91" * depth + b"\xc0"
    found = document(rng) if rng.random() < 0.8 else value(rng)
    if wire == "json":
        return json.dumps(found, ensure_ascii=rng.random() < 0.5).encode()
    try:
        return msgspec.msgpack.encode(found)
    except OverflowError:
        return b"\xcf" + bytes(8)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` with some bytes changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                del changed[place:]
            case 1:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                changed[place:place] = rng.choice(
                    [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800", b"9" * 5000, b"\0"]
                )
            case _:
                del changed[place : place + rng.randrange(1, 9)]
    return bytes(changed)


NAMES = (
    "Mq-Ancestors",
    "Mq-Models",
    "Mq-Run",
    "Mq-Stage",
    "Mq-Dead-Stage",
    "Mq-Dead-Sequence",
    "Mq-Dead-Kind",
    "mq-id",
    "traceparent",
    "X-Ä",
    "",
    " ",
    "a b",
    "Nats-Foo",
    "NATS/1.0",
    "content-type",
    "\x00",
    "Nats-Subject",
    "Nats-Sequence",
)
VALUES = (
    b"",
    b" ",
    b"a=b c= =d e",
    b"a=b" * 500,
    b"id " * 5_000,
    b"\xff\xfe\x80",
    b"\x00",
    "ä€😀".encode(),
    b"a\nMq-Id: injected",
    b"a\rb",
    b":::",
    b"x" * 30_000,
    b"1" * 5_000,
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"\xe2\x80\xa8",
)
TYPES = (
    b"application/json",
    b"application/msgpack",
    b"application/json; charset=utf-8",
    b"text/json",
    b"application/cloudevents+json",
    b"text/plain",
    b"",
    b" ",
    b"\xff",
    b"a\nb",
    b"APPLICATION/JSON",
    b"application/x-python-pickle",
    b";" * 3000,
)
ONLYS = (b"loose", b"packed", b"nobody", b"", b"\xff", b"*")


def header(rng: random.Random, number: int) -> bytes:
    """A header block, well formed or not."""
    unique = str(number).encode()
    lines = []
    if rng.random() < 0.5:
        identity = rng.choice(TEXTS).encode()[:20_000]
        identity = rng.choice([identity, b"\xff\x80", b"\xed\xa0\x80", b"\x7f"]) + unique
        lines.append(rng.choice([b"Mq-Id: ", b"Nats-Msg-Id: "]) + identity)
    if rng.random() < 0.5:
        lines.append(b"Content-Type: " + rng.choice(TYPES))
    if rng.random() < 0.1:
        lines.append(b"Mq-Only: " + rng.choice(ONLYS))
    lines += [
        rng.choice(NAMES).encode() + b":" + rng.choice(VALUES) for _ in range(rng.randrange(3))
    ]
    rng.shuffle(lines)
    block = b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    match rng.randrange(12):
        case 0:  # not even a block
            return rng.choice(
                [
                    b"NATS/1.0\r\n\r\n",
                    b"NATS/1.0 503\r\n\r\n",
                    rng.randbytes(30) + b"\r\n\r\n",
                    b"NATS/9.9\r\n:\r\n::\r\n\r\n",
                    b"NATS/1.0\r\nno colon\r\n\r\n",
                ]
            )
        case 1:
            return b"NATS/1.0\r\n" + mutated(rng, block[10:]) + b"\r\n\r\n"
        case 2:
            return block + b"trailing: yes\r\n\r\n"
    return block


def commands(rng: random.Random) -> Iterator[bytes]:
    """Protocol bytes of every publish."""
    for number in range(INPUTS):
        wire = rng.choice(["json", "msgpack"])
        payload = encoded(rng, wire)
        if rng.random() < 0.25:
            payload = mutated(rng, payload)
        elif rng.random() < 0.1:
            payload = rng.randbytes(rng.randrange(60))
        subject = b"fuzz.loose" if (wire == "json") == (rng.random() < 0.9) else b"fuzz.packed"
        if rng.random() < 0.3:
            yield b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
            continue
        block = header(rng, number)[:60_000]
        yield b"HPUB %b %d %d\r\n%b%b\r\n" % (
            subject,
            len(block),
            len(block) + len(payload),
            block,
            payload,
        )


async def publish(settings: Settings, rng: random.Random) -> None:
    """Over a plain socket, so that no client has a say in what is sent."""
    url = urlsplit(settings.nats_servers[0])
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        for number, command in enumerate(commands(rng)):
            writer.write(command)
            if number % 200 == 199:  # the server answers, so it has taken what came before
                writer.write(b"PING\r\n")
                await writer.drain()
                while (line := await reader.readline()) != b"PONG\r\n":
                    assert line.startswith((b"PING", b"INFO")), line
    finally:
        writer.close()


# --- the account ----------------------------------------------------------------------------------


def given(headers: Mapping[str, str]) -> str | None:
    """The id that a publisher gave, as it came; see `identity.input_id`."""
    return headers.get(IDENTITY) or headers.get(MSG_ID) or None


async def test_every_message_becomes_an_answer_or_a_dead_letter(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with nats_only(tmp_path) as settings, Harness(app, settings) as harness:
        async with harness.worker() as worker:
            await publish(settings, rng)

            async def done() -> bool:
                return await harness.lag("loose") == 0 == await harness.lag("packed")

            await until(done, "an end of the work", timeout=180)
            await until(lambda: not worker.not_ready(), "readiness")
        client = harness.services.broker.client  # type: ignore[attr-defined]
        inputs, answers = {}, Counter[int]()
        async for stored in Scanner(client).messages("fuzz"):
            if stored.subject.startswith("fuzz.seen."):
                answers[msgspec.json.decode(stored.data)["sequence"]] += 1
            else:
                inputs[stored.sequence] = stored
        dead = Counter[int]()
        async for stored in Scanner(client).messages("fuzz-dead"):
            dead[int(stored.headers[SEQUENCE])] += 1
            assert stored.headers[STAGE] in ("loose", "packed")
            assert stored.headers["Mq-Dead-Reason"]
        assert len(inputs) > 0.95 * INPUTS >= 10_000
        assert answers.total() > 1_000
        assert dead.total() > 1_000
        # A CRLF in an id ends it, and what is mutated may lose a digit, so a few share one, byte by
        # byte; they are one message to whoever answers.
        answered = {
            (stored.subject, given(stored.headers))
            for sequence, stored in inputs.items()
            if answers[sequence]
        }
        wrong = {}
        for sequence, stored in inputs.items():
            expected = 1  # whomever Mq-Only names: nobody sent it back
            found = answers[sequence] + dead[sequence]
            identity = (stored.subject, given(stored.headers))
            repeated = found == 0 and identity in answered and identity[1] is not None
            if found != expected and not repeated:
                wrong[sequence] = (answers[sequence], dead[sequence], expected, stored)
        print(f"{len(inputs)} inputs, {answers.total()} answers, {dead.total()} dead letters")
        shown = [(*counts, stored.headers, stored.data[:80]) for *counts, stored in wrong.values()]
        assert not wrong, shown[:3]


async def test_messages_at_the_limits_of_the_protocol(nats: Settings) -> None:
    """The first ended the worker, the fourth could never be settled, before they were found."""
    long_key = json.dumps({"text": "k" * 40_000}).encode()
    shape = {"dtype": "<f4", "shape": [10**400], "base64": ""}
    async with Harness(app, nats) as harness:
        await harness.publish_bytes("fuzz.loose", long_key)  # a subject longer than NATS takes
        await harness.publish_bytes("fuzz.loose", json.dumps({"pixels": shape}).encode())
        await harness.publish_bytes(
            "fuzz.loose",
            b"not json",
            {"X-One": "x" * 30_000, "Mq-Id": "y" * 30_000, "Z": "z" * 200},
        )
        big = {f"X-{number}": "x" * 16_330 for number in range(4)}
        await harness.publish_bytes("fuzz.loose", b"not json", big)
        await harness.publish_bytes("fuzz.loose", b"{}", {"Mq-Id": "a b\tc", "Content-Type": ""})
        await harness.drain()
        found = await harness.dead()
        assert [letter.kind for letter in found] == ["rejected", "decode", "decode", "decode"]
        assert "the value of a key must be shorter" in found[0].reason
        assert len(found[2].headers["Mq-Id"]) < 200
        assert found[2].headers["X-One"] == "x" * 30_000
        assert found[3].headers["Mq-Dead-Headers-Omitted"] == "X-3"
        assert found[3].data == b"not json"
        (seen,) = [raw for raw in await harness.stored() if raw.subject.startswith("fuzz.seen")]
        assert seen.headers["Mq-Ancestors"].startswith("a%20b%09c~")
