"""What `check` says of a changed type is what happens to the messages that wait."""

from __future__ import annotations

import decimal
import enum
import types
from typing import Any

import msgspec
import pytest

from mqinfer import App, Message, wiring
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.codec import Codec
from mqinfer.message import Row
from mqinfer.operate import waiting
from mqinfer.operate.check import Report
from mqinfer.operate.unclaimed import check_unclaimed
from mqinfer.operate.waiting import Findings, check_waiting
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.names import named


class Two(enum.Enum):
    RED = "red"
    BLUE = "blue"


class One(enum.Enum):
    RED = "red"


class Three(enum.Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


Fields = dict[str, Any]


def leaf(fields: Fields, **keywords: Any) -> Any:
    """A type as one version of the code declares it; a field is its type, or that and a default."""
    hints = {name: of[0] if isinstance(of, tuple) else of for name, of in fields.items()}
    space = {name: of[1] for name, of in fields.items() if isinstance(of, tuple)}
    space |= {"__annotations__": hints, "__module__": __name__}
    keywords = {"subject": "leaf", "kw_only": True, **keywords}
    return types.new_class("Leaf", (Message,), keywords, lambda ns: ns.update(space))


def app_of(name: str, kind: Any, handled: list[Any] | None = None) -> App:
    app = App(name)

    async def grade(leaf: Message) -> None:
        if handled is not None:
            handled.append(leaf)

    grade.__annotations__["leaf"] = kind
    app.stage(attempts=1)(grade)
    return app


async def checked(harness: Harness) -> Report:
    broker = harness.services.broker
    assert isinstance(broker, JetStream)
    report = Report()
    await check_waiting(harness.app, Scanner(broker.client), report)
    return report


# The old type, what it writes, the new type; what `check` says, how many die; what is read.
CHANGES: list[tuple[str, Fields, Fields, Fields, dict[str, Any], str | None, str | None, Any]] = [
    (
        "required", {"id": int}, {"id": 1}, {"id": int, "size": int}, {},
        "missing required field `size` (older code wrote none; give the field a default)",
        None, None,
    ),
    (
        "with_default", {"id": int}, {"id": 1}, {"id": int, "size": (int, 7)}, {},
        None, None, {"id": 1, "size": 7},
    ),
    (
        "renamed", {"id": int, "size": int}, {"id": 1, "size": 5},
        {"id": int, "area": (int, 0)}, {},
        None, "carry `size`, which Leaf has no field for", {"id": 1, "area": 0},
    ),
    (
        "renamed_rightly", {"id": int, "size": int}, {"id": 1, "size": 5},
        {"id": int, "area": (int, msgspec.field(name="size"))}, {},
        None, None, {"id": 1, "area": 5},
    ),
    (
        "removed", {"id": int, "size": int}, {"id": 1, "size": 5}, {"id": int}, {},
        None, "carry `size`", {"id": 1},
    ),
    (
        "forbidden", {"id": int, "size": int}, {"id": 1, "size": 5}, {"id": int},
        {"forbid_unknown_fields": True}, "unknown field `size` (leave out forbid_unknown",
        None, None,
    ),
    (
        "gains", {"color": Two}, {"color": Two.BLUE}, {"color": Three}, {},
        None, None, {"color": Three.BLUE},
    ),
    (
        "loses", {"color": Two}, {"color": Two.BLUE}, {"color": One}, {},
        "Invalid enum value 'blue' - at `$.color` (keep the member until", None, None,
    ),
    ("wider", {"id": int}, {"id": 1}, {"id": float}, {}, None, None, {"id": 1.0}),
    (
        "other", {"id": int}, {"id": 1}, {"id": str}, {},
        "Expected `str`, got `int` - at `$.id` (older code wrote another type", None, None,
    ),
    ("both", {"id": int}, {"id": 1}, {"id": int | str}, {}, None, None, {"id": 1}),
    (
        "no_longer_missing", {"id": int | None}, {"id": None}, {"id": int}, {},
        "Expected `int`, got `null`", None, None,
    ),
    ("may_be_missing", {"id": int}, {"id": 1}, {"id": int | None}, {}, None, None, {"id": 1}),
    ("other_wire", {"id": int}, {"id": 1}, {"id": int}, {"wire": "msgpack"}, None, None, {"id": 1}),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
async def test_what_is_said_of_a_changed_type_is_what_happens(change: Any, nats: Settings) -> None:
    name, old_fields, values, new_fields, keywords, problem, note, read = change
    old = leaf(old_fields)
    async with Harness(app_of(f"change_{name}", old), nats) as harness:
        await harness.publish(*[old(**values)] * 3)
    handled: list[Any] = []
    new = leaf(new_fields, **keywords)
    async with Harness(app_of(f"change_{name}", new, handled), nats) as harness:
        report = await checked(harness)
        await harness.drain()
        died = await harness.dead()
        after = await checked(harness)
    if problem is None:
        assert report.problems == []
        assert report.checked == ["messages: 3 of those that wait can be read"]
        assert not died
        assert [msgspec.structs.asdict(one) for one in handled] == [read] * 3
    else:
        (line,) = report.problems
        assert line.startswith(
            "stage grade: 3 of 3 messages of Leaf that wait would be dead letters"
        )
        assert problem in line
        assert len(died) == 3
        assert not handled
    assert [note in line for line in report.notes] == [True] * (note is not None)
    assert after == Report()  # nothing waits any more


# What newer code writes, and whether workers of the older one can read it.
BACKWARDS: list[tuple[Fields, dict[str, Any], Fields, bool]] = [
    ({"id": int, "size": int}, {"id": 1, "size": 2}, {"id": int}, True),
    ({"id": int}, {"id": 1}, {"id": int, "size": int}, False),
    ({"id": int}, {"id": 1}, {"id": int, "size": (int, 0)}, True),
    ({"color": Three}, {"color": Three.GREEN}, {"color": Two}, False),
    ({"color": Three}, {"color": Three.BLUE}, {"color": Two}, True),
    ({"x": float}, {"x": 1.5}, {"x": int}, False),
    ({"x": int | None}, {"x": None}, {"x": int}, False),
    ({"area": (int, msgspec.field(name="size"))}, {"area": 1}, {"size": int}, True),
]


@pytest.mark.parametrize("case", BACKWARDS, ids=named)
def test_what_older_workers_read_of_newer_messages(case: Any) -> None:
    """As docs/changing-types.md says."""
    new, values, old, can = case
    findings = Findings(leaf(old))
    findings.look(Codec().write(leaf(new)(**values))[0], None)
    assert (findings.dying(1) is None) == can


def test_reasons_are_told_once_with_the_most_frequent_first() -> None:
    findings = Findings(leaf({"color": Two, "id": int}))
    for number in range(5):
        findings.look(b'{"color": "c%d", "id": 1}' % number, None)
    findings.look(b'{"color": "red"}', None)
    findings.look(b'{"color": "red", "id": 1}', None)
    findings.look(b"\xff\x00", None)
    findings.look(b"\xff\x00\x01", None)
    told = findings.dying(12_000)
    assert told is not None
    assert told.startswith(
        "8 of 9 sampled of 12,000 messages of Leaf that wait would be dead letters"
    )
    assert "5 x the payload is no Leaf: Invalid enum value 'c0'" in told
    assert told.index("5 x") < told.index("2 x the payload is no json") < told.index("1 x")


class Bill(Row):
    money: decimal.Decimal


def test_rows_must_fit_their_columns() -> None:
    findings = Findings(Bill)
    findings.look(b'{"money": "1.5"}', None)
    findings.look(b'{"money": "1e30"}', None)
    findings.fit()
    told = findings.dying(2)
    assert told is not None
    assert told.startswith("1 of 2 messages of Bill that wait would be dead letters: 1 x column")


async def test_a_sample_lies_over_all_that_waits(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few at fault among many of other types: the oldest, and some in the middle and at the end."""
    monkeypatch.setattr(waiting, "SAMPLE", 40)
    old, new = leaf({"id": int}, key="id"), leaf({"id": int, "size": int}, key="id")
    async with Harness(app_of("sampled", old), nats) as harness:
        for i in range(600):
            now = old if i < 300 else new
            body = b'{"id":%d}' % i if now is old else b'{"id":%d,"size":1}' % i
            await harness.publish_bytes(f"sampled.leaf.{i}", body)
            await harness.publish_bytes("sampled.other", b"{}")
    async with Harness(app_of("sampled", new), nats) as harness:
        broker = harness.services.broker
        assert isinstance(broker, JetStream)
        (task,) = [t for t in waiting.plan.tasks(harness.app) if t.name == "grade"]
        found, lie = await waiting.look(harness.app, task, Scanner(broker.client))
        assert lie == 600
        assert 20 <= found.read <= 60
        assert 10 < found.failures.total() < found.read
        (line,) = (await checked(harness)).problems
        assert f"{found.read} sampled of 600 messages of Leaf that wait" in line


async def test_messages_of_a_subject_that_nothing_claims_are_told(nats: Settings) -> None:
    """A type that was renamed: those that wait for its stage, and those that were handled."""
    old, new = leaf({"id": int}), leaf({"id": int}, subject="blade")
    kept = leaf({"id": int}, subject="leaf", key="id")
    async with Harness(app_of("moved", old), nats) as harness:
        await harness.publish(old(id=1))
        await harness.drain()
        await harness.publish(old(id=2), old(id=3))
        scanner = wiring.scanner(harness.services.broker)

        async def unclaimed(kind: Any) -> Report:
            report = Report()
            await check_unclaimed(app_of("moved", kind), scanner, report)
            return report

        assert await unclaimed(old) == Report()
        assert await unclaimed(kept) == Report()
        (line,) = (await unclaimed(new)).problems
        assert line.startswith(
            "stage grade: 2 messages of moved.leaf wait for it, and this code reads moved.blade: "
        )
        assert 'keeps its subject (class Leaf(Message, subject="leaf"))' in line
    async with Harness(app_of("moved", new), nats) as harness:
        await harness.drain()  # a worker comes all the same
        scanner = wiring.scanner(harness.services.broker)
        report = await unclaimed(new)
        assert not report.problems
        (line,) = report.notes
        assert "app moved: its stream holds 3 messages of moved.leaf since 20" in line
        await harness.publish_bytes("moved.leaf.1", b"{}")
        await harness.publish_bytes("moved.run.r.leaf", b"{}")
        (line,) = (await unclaimed(new)).notes
        assert "4 messages of moved.leaf.>" in line
        (line,) = (await unclaimed(old)).notes
        assert "1 messages of moved.leaf.1" in line


async def test_ordered_types_and_those_at_work_are_looked_at(nats: Settings) -> None:
    """Before their partitions exist, and when some messages of them are done."""
    old = leaf({"id": int}, key="id", ordered=True)
    new = leaf({"id": int, "size": int}, key="id", ordered=True)
    async with Harness(app_of("in_order", old), nats) as harness:
        await harness.publish(*(old(id=i) for i in range(5)))
        async with Harness(app_of("in_order", new), nats) as later:
            assert "5 of 5 messages" in (await checked(later)).problems[0]
        await harness.drain()
        async with Harness(app_of("in_order", new), nats) as later:
            assert (await checked(later)) == Report()
        await harness.publish(*(old(id=i) for i in range(5, 9)))
        async with Harness(app_of("in_order", new), nats) as later:
            assert "4 of 4 messages" in (await checked(later)).problems[0]


async def test_what_was_sent_back_to_another_stage_is_not_judged(nats: Settings) -> None:
    kind = leaf({"id": int})
    app = app_of("sentback", kind)

    async def other(leaf: Message) -> None: ...

    other.__annotations__["leaf"] = kind
    app.stage(other)
    headers = {"Mq-Only": "other", "Nats-Msg-Id": "retry:dead.sentback.1"}
    async with Harness(app, nats) as harness:
        await harness.publish_bytes("sentback.leaf", b"{}", headers)
        report = await checked(harness)
    assert [line.partition(":")[0] for line in report.problems] == ["stage other"]


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"id": 1}', b"\x81\xa2id\x01"], ids=named)
@pytest.mark.parametrize("wire", ["json", "msgpack", "array"])
def test_any_payload_may_wait(data: bytes, wire: str) -> None:
    keywords = {"array_like": True} if wire == "array" else {"wire": wire}
    findings = Findings(leaf({"id": int}, **keywords))
    findings.look(data, None)
    findings.look(data, "application/msgpack")
    findings.look(data, "text/plain")
    assert findings.read == 3
