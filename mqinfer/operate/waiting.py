"""Waiting: what lies unhandled in the stream, read as this code would read it.

A type that changed meets messages of the older code: `check` says beforehand what would die. A
sample of what waits for each stage and sink is decoded, the oldest messages and some spread evenly
over all the others; of a row it is also seen whether its values fit their columns. Nothing is
consumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer import plan
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError, DecodeError, MqinferError, Unavailable
from mqinfer.identity import CONTENT_TYPE, ONLY, sent_back
from mqinfer.message import Message, Row
from mqinfer.operate.alike import pattern
from mqinfer.ports import ConsumerSpec, Origin
from mqinfer.rowpacks.unpack import raw_rows
from mqinfer.rowpacks.which import may_come_packed, pack_subject, row_subject
from mqinfer.tables.block import build_block
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.check import Report
    from mqinfer.streams import Stored, Streams

SAMPLE = 200  # messages of a stage
_BYTES = 64 * 1024 * 1024  # of payloads of a stage
_SECONDS = 5.0  # for the messages of a stage
_AT_ONCE = 8
_SHOWN = 3  # reasons in a line
_ADVICE = (
    ("missing required field", "older code wrote none; give the field a default"),
    ("Invalid enum value", "keep the member until what older code wrote is handled"),
    ("contains unknown field", "leave out forbid_unknown_fields until these are handled"),
    (
        "Expected ",
        "older code wrote another type; take both (int | str), or a new field with a default",
    ),
)


@dataclass(slots=True)
class Findings:
    """What a sample of messages of one type has shown.

    Attributes:
        kind: the type that this code reads.
        read: messages that were looked at.
        failures: reason -> messages that would be dead letters for it; one example each.
        passed_over: name -> messages that carry a field of this name, which the type has not.
    """

    kind: type[Message]
    read: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    _codec: Codec = field(default_factory=Codec)
    _rows: list[Row] = field(default_factory=list)
    _examples: dict[str, str] = field(default_factory=dict)

    def look(self, data: bytes, content_type: str | None) -> None:
        """Decode one payload."""
        self.read += 1
        try:
            message = self._codec.decode(self.kind, data, content_type)
        except DecodeError as error:
            self._failed(str(error))
            return
        self.passed_over.update(_unknown(self._codec, self.kind, data, content_type))
        if isinstance(message, Row):
            self._rows.append(message)

    def fit(self) -> None:
        """See whether the values of the rows fit their columns."""
        if self._rows:
            schema = schema_of(type(self._rows[0]))
            block = build_block(schema, [(row, Origin(id="")) for row in self._rows])
            for reason in block.refused.values():
                self._failed(reason)
            self._rows.clear()

    def _failed(self, reason: str) -> None:
        reason = " ".join(reason.split())
        self.failures[self._examples.setdefault(pattern(reason), reason)] += 1

    def dying(self, waiting: int) -> str | None:
        """What would be dead letters, in one line; None: nothing.

        Args:
            waiting: messages that wait, of which these are a sample.
        """
        if not self.failures:
            return None
        most = self.failures.most_common()
        reasons = [f"{count:,} x {_advised(reason)}" for reason, count in most[:_SHOWN]]
        if len(most) > _SHOWN:
            reasons.append(f"and {len(most) - _SHOWN} more reasons")
        return (
            f"{self.failures.total():,} of {self._sampled(waiting)} would be dead letters: "
            + "; ".join(reasons)
        )

    def silent(self, waiting: int) -> str | None:
        """What is read, but not all that it carries, in one line; None: nothing."""
        if not self.passed_over:
            return None
        names = ", ".join(f"`{name}`" for name, _ in self.passed_over.most_common(_SHOWN))
        return (
            f"{max(self.passed_over.values()):,} of {self._sampled(waiting)} carry {names}, which "
            f"{self.kind.__name__} has no field for: it is passed over; one that was renamed keeps "
            'its name in messages with msgspec.field(name="...")'
        )

    def _sampled(self, waiting: int) -> str:
        what = f"messages of {self.kind.__name__} that wait"
        if self.read >= waiting:
            return f"{self.read:,} {what}"
        return f"{self.read:,} sampled of {waiting:,} {what}"


def _advised(reason: str) -> str:
    advice = next((advice for part, advice in _ADVICE if part in reason), None)
    return f"{reason} ({advice})" if advice else reason


def _unknown(
    codec: Codec, kind: type[Message], data: bytes, content_type: str | None
) -> Iterable[str]:
    """Names in the payload that are none of the type's fields."""
    config = kind.__struct_config__
    if config.array_like or config.forbid_unknown_fields:
        return ()
    in_json = codec.wire(kind, data, content_type) == "json"
    found: Any = msgspec.json.decode(data) if in_json else msgspec.msgpack.decode(data)
    return set(found) - {*kind.__struct_encode_fields__, config.tag_field}


async def check_waiting(app: App, streams: Streams, report: Report) -> None:
    """Whether this code can read what waits for its stages and sinks; a line each if it cannot."""
    try:
        tasks = plan.tasks(app)
    except ConfigurationError:
        return  # reported by `check_wiring`
    before = len(report.problems)
    read = 0
    for task in tasks:
        if not task.declared:
            continue
        try:
            findings, waiting = await look(app, task, streams)
            if note := await _unseen(app, task, streams):
                report.notes.append(note)
        except MqinferError as error:
            report.notes.append(
                f"stage {task.name}: what waits for it cannot be looked at: {error}"
            )
            if isinstance(error, Unavailable):
                break  # away, or these credentials may not: so it would be for every stage
            continue
        read += findings.read
        if problem := findings.dying(waiting):
            report.found(f"stage {task.name}", problem)
        if note := findings.silent(waiting):
            report.notes.append(f"stage {task.name}: {note}")
    if read and len(report.problems) == before:
        report.checked.append(f"messages: {read:,} of those that wait can be read")


async def _unseen(app: App, task: plan.Task, streams: Streams) -> str | None:
    """What a stage does not see of the type that it reads: rows of when only a sink read them."""
    if task.stage is None or not may_come_packed(task.reads):
        return None
    packs = (await streams.subjects(app.name)).get(pack_subject(app, task.reads), 0)
    if not packs:
        return None
    return (
        f"stage {task.name}: {packs:,} messages hold rows of {task.reads.__name__} in packs, which "
        "only its table reads: the stage sees the rows that workers of this version publish"
    )


async def look(app: App, task: plan.Task, streams: Streams) -> tuple[Findings, int]:
    """Sample what waits for a stage or sink.

    Returns:
        What was found, and how many messages wait.

    Raises:
        MqinferError: the stream cannot be read.
    """
    findings, waiting = Findings(task.reads), 0
    places: list[_Place] = []
    for spec in await _specs(app, task, streams):
        messages, first = await _begins(spec, streams)
        waiting += messages
        places += [_Place(spec, subject, first) for subject in spec.filters if messages]
    readers = plan.readers(app, task.reads)
    bytes_left, end = _BYTES, time.monotonic() + _SECONDS
    for place in places:
        async with contextlib.aclosing(
            _sample(streams, place, max(SAMPLE // len(places), 2))
        ) as sample:
            async for stored in sample:
                if not _for_another(stored.headers, app, task, readers):
                    for payload in _payloads(stored):
                        findings.look(payload, stored.headers.get(CONTENT_TYPE))
                bytes_left -= len(stored.data)
                if bytes_left <= 0 or time.monotonic() > end:
                    break
        if bytes_left <= 0 or time.monotonic() > end:
            break
    findings.fit()
    return findings, waiting


def _payloads(stored: Stored) -> Sequence[bytes]:
    """Of one message, or of the rows of a pack; the pack's own where it cannot be read."""
    if row_subject(stored.subject) is None:
        return (stored.data,)
    try:
        return raw_rows(stored.data)
    except DecodeError:
        return (stored.data,)


def _for_another(
    headers: Mapping[str, str], app: App, task: plan.Task, readers: frozenset[str]
) -> bool:
    """Whether it was sent back to another stage, so that this one passes it over."""
    only = headers.get(ONLY)
    return only != task.name and only in readers and sent_back(headers, app.name)


@dataclass(frozen=True, slots=True)
class _Place:
    spec: ConsumerSpec
    subject: str
    first: int


async def _specs(app: App, task: plan.Task, streams: Streams) -> list[ConsumerSpec]:
    """The consumers of a task; in place of partitions that are not there yet, one for them all."""
    specs = plan.consumer_specs(app, task)
    if task.ordered and await streams.stream_info(specs[0].stream) is None:
        return [ConsumerSpec(task.name, app.name, app.filters(task.reads))]
    return specs


async def _begins(spec: ConsumerSpec, streams: Streams) -> tuple[int, int]:
    """How many messages wait for a consumer, and the sequence of the first that may be one."""
    info = await streams.consumer_info(spec.stream, spec.name)
    if info is None:
        return await streams.pending(spec), 1
    unacknowledged = int(info.get("num_ack_pending", 0))
    done = info["ack_floor"] if unacknowledged else info["delivered"]
    return int(info.get("num_pending", 0)) + unacknowledged, int(done["stream_seq"]) + 1


async def _sample(streams: Streams, place: _Place, size: int) -> AsyncGenerator[Stored]:
    """The oldest messages of a place, then some that lie evenly in the rest, to the newest."""
    stream, subject, start = place.spec.stream, place.subject, place.spec.start
    since = start if place.first == 1 and not isinstance(start, str) else None
    seen = 0
    messages = streams.messages(stream, subject, first=place.first, since=since)
    async with contextlib.aclosing(messages) as oldest:
        count = 0
        async for stored in oldest:
            seen, count = stored.sequence, count + 1
            yield stored
            if count == size // 2:
                break
        else:
            return
    info = await streams.stream_info(stream)
    last = int(info["state"]["last_seq"]) if info else 0
    # Evenly, and closer together towards the end: whoever deploys looks at what was just written.
    even = {seen + 1 + (last - seen) * i // (size // 2 + 1) for i in range(size // 2)}
    wanted = sorted(even | {max(last - 2**i, seen) + 1 for i in range(8)})
    for i in range(0, len(wanted), _AT_ONCE):
        chunk = [at for at in wanted[i : i + _AT_ONCE] if at > seen]
        found = await asyncio.gather(
            *(streams.message(stream, at, subject=subject) for at in chunk)
        )
        for one in found:
            if one is not None and one.sequence > seen:
                seen = one.sequence
                yield one
