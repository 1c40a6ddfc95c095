"""Dead letters as an operation: choose them, look at them, send them back, drop them.

Sending back keeps promise 2: the original bytes go to the original subject under the same identity
(`Mq-Id`), for the one consumer that gave up (`Mq-Only`), with a message id that only this dead
letter makes. A letter is deleted after JetStream has acknowledged its message; killed in between
and run again, JetStream drops the repeat (and beyond its window the answers' own ids do).

A letter of a replay run goes back into that run: on a subject of the run, so that no live stage
sees it, and the run is then at work again. Its letters are deleted after that.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mqinfer import plan
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.flow import deadletter
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import (
    IDENTITY,
    MSG_ID,
    ONLY,
    RUN,
    header_block,
    header_number,
    retry_id,
)
from mqinfer.operate.alike import pattern
from mqinfer.replay import runs
from mqinfer.rowpacks.unpack import payload_of
from mqinfer.rowpacks.which import row_subject

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs
    from mqinfer.streams import Stored, Streams

_AT_ONCE = 200
_TIMEOUT = 30.0
_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters; what is empty or None lets all through.

    Attributes:
        stages: that gave up.
        kinds: see `deadletter.Kind`.
        reason: text in the error's name or the reason, whatever its case.
        alike: the pattern of the error (`mqinfer.operate.alike`), or its beginning.
        since: dead from then on.
        until: dead until then.
        sequences: numbers in the dead-letter stream, as (first, last).
        limit: the most.
    """

    stages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    reason: str | None = None
    alike: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    sequences: tuple[tuple[int, int], ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse a kind that is none.

        Raises:
            ConfigurationError: naming those there are.
        """
        known = deadletter.Kind.__args__  # type: ignore[attr-defined]
        if unknown := [kind for kind in self.kinds if kind not in known]:
            raise ConfigurationError(
                f"no kind of dead letter is called {', '.join(unknown)}; there are "
                + ", ".join(known)
            )

    @property
    def narrow(self) -> bool:
        """Whether anything but the limit is chosen."""
        parts = (self.stages, self.kinds, self.reason, self.alike, self.since, self.until)
        return any((*parts, self.sequences))

    def takes(self, letter: Letter) -> bool:
        """Whether `letter` is one of them."""
        return (
            (not self.stages or letter.stage in self.stages)
            and (not self.kinds or letter.kind in self.kinds)
            and (not self.reason or self.reason.lower() in letter.line.lower())
            and (not self.alike or pattern(letter.line).startswith(self.alike))
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time <= self.until)
            and (
                not self.sequences
                or any(first <= letter.sequence <= last for first, last in self.sequences)
            )
        )


def parse_sequences(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """`17` and `20-25` as (first, last).

    Raises:
        ConfigurationError: a text is neither.
    """
    ranges = []
    for text in texts:
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text.strip(), re.ASCII)
        if found is None:
            raise ConfigurationError(f"{text!r} is no sequence: write 17, or 20-25")
        ranges.append((int(found[1]), int(found[2] or found[1])))
    return tuple(ranges)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter."""

    stored: Stored

    def _header(self, name: str) -> str:
        return self.stored.headers.get(name, "")

    @property
    def sequence(self) -> int:
        """Its number in the dead-letter stream."""
        return self.stored.sequence

    @property
    def time(self) -> datetime.datetime:
        """When it was given up."""
        return self.stored.time

    @property
    def stage(self) -> str:
        """Who gave up."""
        return self._header(deadletter.STAGE) or self.stored.subject.rpartition(".")[2]

    @property
    def run(self) -> str | None:
        """The replay run that it is of."""
        return self.stored.headers.get(RUN)

    @property
    def kind(self) -> str:
        """See `deadletter.Kind`."""
        return self._header(deadletter.KIND)

    @property
    def reason(self) -> str:
        """What the error says."""
        return self._header(deadletter.REASON)

    @property
    def headers(self) -> dict[str, str]:
        """All of the letter: those of the message, and why it was given up."""
        return self.stored.headers

    @property
    def data(self) -> bytes:
        """The payload of the message."""
        return self.stored.data

    @property
    def attempts(self) -> int:
        """Deliveries until it was given up."""
        return header_number(self._header(deadletter.ATTEMPTS))

    @property
    def line(self) -> str:
        """The error in one line."""
        error = self._header(deadletter.ERROR)
        return f"{error}: {self.reason}" if error else self.reason

    @property
    def traceback(self) -> str:
        """The end of the traceback, or ""."""
        text = self._header(deadletter.TRACEBACK)
        try:
            return str(json.loads(text)) if text else ""
        except ValueError:
            return text

    @property
    def original_headers(self) -> dict[str, str]:
        """Headers of the message itself."""
        own = {MSG_ID, deadletter.PREFIX + "Msg-Id"}
        kept = {
            name: value
            for name, value in self.stored.headers.items()
            if not name.startswith(deadletter.PREFIX) and name not in own
        }
        if message_id := self._header(deadletter.PREFIX + "Msg-Id"):
            kept[MSG_ID] = message_id
        return kept

    @property
    def origin(self) -> tuple[str, int]:
        """Stream and sequence of the message."""
        return self._header(deadletter.STREAM), header_number(self._header(deadletter.SEQUENCE))

    @property
    def subject(self) -> str:
        """Of the message."""
        return self._header(deadletter.SUBJECT)

    def summary(self) -> dict[str, Any]:
        """The facts as plain types."""
        stream, sequence = self.origin
        return {
            "seq": self.sequence,
            "time": self.time,
            "stage": self.stage,
            "kind": self.kind,
            "error": self._header(deadletter.ERROR),
            "reason": self.reason,
            "attempts": self.attempts,
            "id": self._header(IDENTITY),
            "subject": self.subject,
            "stream": stream,
            "stream_seq": sequence,
            "bytes": header_number(self._header(deadletter.OMITTED)) or len(self.stored.data),
        }


@dataclass(slots=True)
class Result:
    """What an operation did."""

    done: int = 0
    by_stage: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)  # runs that are at work again

    def count(self, letter: Letter) -> None:
        """One is done."""
        self.done += 1
        self.by_stage[letter.stage] += 1

    def fail(self, letter: Letter, reason: str) -> None:
        """One could not be done; its letter is kept."""
        self.failed += 1
        if self.failed <= _MAX_PROBLEMS:
            self.problems.append(f"dead letter {letter.sequence} ({letter.stage}): {reason}")
        elif self.failed == _MAX_PROBLEMS + 1:
            self.problems.append("... and more")

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "done": self.done,
            "by_stage": dict(self.by_stage),
            "failed": self.failed,
            "problems": self.problems,
            "reopened": self.reopened,
        }


class DeadLetters:
    """The dead letters of one app.

    Args:
        app: whose.
        store: to look into streams.
        broker: to publish with.
        runs: the replay runs that letters may be of.
    """

    def __init__(self, app: App, streams: Streams, broker: Broker, runs: Runs):
        self._stream = plan.dead_stream_spec(app).name
        self._app = app
        self._streams = streams
        self._broker = broker
        self._runs = runs

    async def count(self) -> int:
        """How many are kept."""
        return sum((await self._streams.subjects(self._stream)).values())

    async def select(self, selection: Selection) -> AsyncIterator[Letter]:
        """Those that `selection` takes and that are kept now, the oldest first."""
        ranges = selection.sequences
        subject = ">"
        if len(selection.stages) == 1:
            subject = plan.dead_subject(self._app, selection.stages[0])
        found = 0
        async for stored in self._streams.messages(
            self._stream,
            subject,
            first=min((first for first, _ in ranges), default=1),
            last=max((last for _, last in ranges), default=None),
            since=selection.since,
        ):
            letter = Letter(stored)
            if not selection.takes(letter):
                continue
            yield letter
            found += 1
            if found == selection.limit:
                return

    async def payload(self, letter: Letter) -> bytes | None:
        """The original bytes; None if they were left out and retention has taken the original."""
        if deadletter.OMITTED not in letter.stored.headers:
            return letter.stored.data
        stream, sequence = letter.origin
        if not stream or not sequence:
            return None  # a stranger's: it is nowhere
        original = await self._streams.message(stream, sequence)
        if original is None:
            return None
        if row_subject(original.subject) == letter.subject:  # it was a row of a pack
            return payload_of(original.data, letter.headers.get(IDENTITY, ""))
        return original.data

    async def retry(
        self, selection: Selection, *, dry_run: bool = False, to: str | None = None
    ) -> Result:
        """Send them back to the stage that gave up, then delete them.

        Args:
            selection: which.
            dry_run: only count them.
            to: the stage that took over from one that was renamed or taken out.

        Raises:
            ConfigurationError: there is no stage `to`, or a run was promoted or discarded
                meanwhile; the letters are kept.
        """
        stages = {task.name for task in plan.tasks(self._app, None if to is None else [to])}
        found: dict[str, Run | None] = {}
        returned: dict[str, list[Letter]] = {}

        async def send_back(letter: Letter) -> None:
            name = letter.run
            if name is None:
                stage = to or letter.stage
                if stage not in stages:
                    raise MqinferError(
                        f"app {self._app.name} has no stage {stage} any more: name the one that "
                        "took over with --to STAGE, or drop the letter"
                    )
                await self._publish(letter, letter.subject, stage)
                await self._delete(letter)
                return
            if name not in found:
                found[name] = await self._runs.find(name)
            run = found[name]
            if run is None:
                raise MqinferError(f"there is no replay run {name}: drop the letter")
            runs.require_open(run)
            subject = runs.retry_subject(self._app, name, letter.subject)
            stage = runs.RETRIES if letter.stage == run.stage else letter.stage
            await self._publish(letter, subject, f"run-{name}-{stage}")
            returned.setdefault(name, []).append(letter)

        result = await self._each(selection, send_back, dry_run)
        for name, letters in returned.items():
            # Only now, or a worker might find nothing to do and end the run again; and before
            # they are deleted, or a kill in between would leave them in a run that is over.
            await self._runs.reopen(name)
            for letter in letters:
                await self._delete(letter)
        result.reopened = sorted(returned)
        return result

    async def drop(self, selection: Selection, *, dry_run: bool = False) -> Result:
        """Delete them."""
        return await self._each(selection, self._delete, dry_run)

    async def _each(self, selection: Selection, act: Any, dry_run: bool) -> Result:
        result = Result()
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(letter: Letter) -> None:
            try:
                await act(letter)
            except MqinferError as error:
                result.fail(letter, str(error))
            else:
                result.count(letter)
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            async for letter in self.select(selection):
                if dry_run:
                    result.count(letter)
                    continue
                await free.acquire()
                group.create_task(one(letter))
        return result

    async def _delete(self, letter: Letter) -> None:
        await self._streams.delete(self._stream, letter.sequence)

    async def _publish(self, letter: Letter, subject: str, consumer: str) -> None:
        payload = await self.payload(letter)
        if payload is None:
            stream, sequence = letter.origin
            raise MqinferError(
                f"its payload was too large to be kept with it, and message {sequence} is no "
                f"longer in stream {stream}: publish it anew, and drop the letter"
            )
        if not letter.subject:
            raise MqinferError("it does not say what subject its message was published on")
        header = header_block(retry_headers(letter, consumer))
        await publish_stored(self._broker, subject, header, payload, timeout=_TIMEOUT)


def retry_headers(letter: Letter, consumer: str) -> Mapping[str, str]:
    """Headers of the message that a dead letter becomes again, for one consumer."""
    pairs = {name: value for name, value in letter.original_headers.items() if name != MSG_ID}
    stamp = letter.time.isoformat()
    return pairs | {
        MSG_ID: retry_id(letter.stored.subject, letter.sequence, stamp),
        ONLY: consumer,
    }
