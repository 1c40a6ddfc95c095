"""The header block of an output: put together from parts, and no value can break it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Message
from mqinfer.codec import Codec
from mqinfer.flow.emitter import Emitter
from mqinfer.identity import header_block, output_id, parse_header_block


class Told(Message, key="name"):
    name: str


app = App("headers")


def emitter(stage: str, run: str | None) -> Emitter:
    broker: Any = SimpleNamespace(full=False, max_payload=1 << 20)
    codec = Codec()
    return Emitter(
        app, stage, (Told,), run=run, codec=codec, store=None, inline_limit=0, broker=broker
    )


def job(models: dict[str, str], headers: dict[str, str]) -> Any:
    context = SimpleNamespace(id="p1", models=models, headers=headers)
    return SimpleNamespace(context=context, ancestors=("first",))


text = st.text(st.characters(codec=None), max_size=20)
name = st.from_regex("[A-Za-z0-9_]{1,20}", fullmatch=True)  # what App and Runs let through


@given(name, name, st.dictionaries(text, text, max_size=3), text, text)
def test_no_value_breaks_the_block(
    stage: str, run: str, models: dict[str, str], trace: str, state: str
) -> None:
    headers = {"traceparent": trace, "tracestate": state}
    ((_, block, _),) = emitter(stage, run).make(job(models, headers), [Told("a")])
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    body = block.removesuffix(b"\r\n\r\n")
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert b"\r" not in body.replace(b"\r\n", b"")
    known = {"Content-Type", "Mq-Stage", "Mq-Run", "Nats-Msg-Id", "Mq-Ancestors", "Mq-Models"}
    names = [line.partition(b":")[0].decode() for line in body.split(b"\r\n")[1:]]
    assert set(names) <= known | {"traceparent", "tracestate"}
    assert len(names) == len(set(names))
    assert parse_header_block(block)["Mq-Ancestors"] == "first p1"


def test_the_block_is_what_header_block_makes_of_its_pairs() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    made = emitter("tell", "r1").make(job({"b": "2", "a": "1"}, trace), [Told("x"), Told("y")], 3)
    for index, (subject, block, payload) in enumerate(made, 3):
        name = "xy"[index - 3]
        assert subject == f"headers.run.r1.told.{name}".encode()
        assert payload == b'{"name":"%b"}' % name.encode()
        pairs = {
            "Content-Type": "application/json",
            "Mq-Stage": "tell",
            "Mq-Run": "r1",
            "Nats-Msg-Id": output_id("p1", "tell", "r1", index),
            "Mq-Ancestors": "first p1",
            "Mq-Models": "a=1 b=2",
            **trace,
        }
        assert block == header_block(pairs)
