"""Assembly: puts the parts of one stage together: the same for live work and for replays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mqinfer import plan
from mqinfer.codec import Codec
from mqinfer.flow.beat import Beat
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.handling import Handling, InBatches, OneByOne
from mqinfer.flow.intake import Gate, Source
from mqinfer.flow.job import Job
from mqinfer.flow.lane import Lane
from mqinfer.flow.ledger import Ledger
from mqinfer.flow.reader import Reader
from mqinfer.flow.runner import Runner
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots
from mqinfer.flow.suspects import Suspects
from mqinfer.identity import CONTENT_TYPE
from mqinfer.rowpacks.unpack import Pack
from mqinfer.tables.intotable import IntoTable, dead_letter_row
from mqinfer.tables.packsintotable import PacksIntoTable

if TYPE_CHECKING:
    from mqinfer.ports import Delivery
    from mqinfer.tables.sink import Sink
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Work

HEADERS_ROOM = 64 * 1024  # what subject and headers may add to the largest payload, in bytes
# Messages that may wait for handlers, or be in them. What waits here could be another worker's: no
# more than hides the way to the server, whatever may be in flight while outputs are being stored.
WAITING = 512


@dataclass(frozen=True, slots=True)
class _Both:
    """What two runners of one task have in flight."""

    one: Slots
    other: Slots

    @property
    def in_flight(self) -> int:
        return self.one.in_flight + self.other.in_flight

    @property
    def bytes_in_flight(self) -> int:
        return self.one.bytes_in_flight + self.other.bytes_in_flight


@dataclass(slots=True)
class Assembly:
    """Makes the runners of one worker.

    Attributes:
        services: connections.
        work: what the worker works on.
        beat: of the loop.
        lane: of the suspects of all stages.
    """

    services: Services
    work: Work
    beat: Beat = field(default_factory=Beat)
    lane: Lane = field(default_factory=Lane)

    def runners(self, task: plan.Task, sink: Sink | None, state: object) -> list[Runner]:
        """The runners of one task: a sink has one for single rows, and one for packs of them.

        Args:
            task: the stage or sink.
            sink: its table; None for a stage.
            state: what the stage's lifespan yielded.
        """
        plain = self.runner(task, sink, state)
        if not task.packs:
            return [plain]
        packs = self.runner(task, sink, state, packs=True)
        self.services.metrics.stage(task.name).watch(
            _Both(plain.slots, packs.slots),
            lambda: self.work.waiting.get(task.name),
            lambda: plain.blocked or packs.blocked,
        )
        return [plain, packs]

    def runner(
        self, task: plan.Task, sink: Sink | None, state: object, *, packs: bool = False
    ) -> Runner:
        """The runner of one task's messages, or of the packs of rows that a sink has beside them.

        They share all that has a name: dead letters, the ledger, metrics. Arguments as of
        `runners`.
        """
        app, services = self.work.app, self.services
        # Not the loop's own time, which stands still together with it in uvloop.
        clock = time.monotonic
        binding = self.work.binding(task, clock)
        metrics = services.metrics.stage(task.name)
        codec = Codec(services.store)

        def released(job: Job, storing: bool) -> None:
            runner.released(job, storing)

        name = plan.state_bucket(app)
        bucket = services.broker.bucket(name)
        ledger = Ledger(binding.consumer, name=name, bucket=bucket, broker=services.broker)
        emitter = Emitter(
            app,
            task.name,
            binding.writes,
            run=binding.run,
            codec=codec,
            store=services.store,
            inline_limit=services.inline_limit,
            broker=services.broker,
            pack=binding.pack,
        )
        settler = Settler(
            task.name,
            task.limits,
            broker=services.broker,
            emitter=emitter,
            ledger=ledger,
            dead_subject=None if task.dead else plan.dead_subject(app, task.name),
            metrics=metrics,
            released=released,
            clock=clock,
            run=binding.run,
            policy=binding.policy,
        )
        handling = self._handling(task, settler, sink, packs)
        slots = self._slots(task, handling, binding.slots)
        runner = Runner(
            task.name,
            source=Source(
                binding.stream,
                (binding.packs if packs else None) or binding.consumer,
                binding.feed,
                recreate=lambda: self.work.recreate(task),
                gates=self._gates(task, handling, emitter),
                told=not packs,
            ),
            reader=Reader(
                task.name,
                binding.consumer,
                self._decoder(task, codec, packs),
                state,
                services.store,
                binding.run,
                app.name,
                plan.readers(app, task.reads, binding.run),
                task.reads.__mqinfer__.foreign_ids,
            ),
            limits=task.limits,
            handling=handling,
            settler=settler,
            slots=slots,
            metrics=metrics,
            suspects=Suspects(
                binding.consumer,
                bucket=bucket,
                limits=task.limits,
                lane=self.lane,
                handlers=handling.concurrency * handling.batch_size,
            ),
            ledger=ledger,
            policy=binding.policy,
            beat=self.beat,
            clock=clock,
        )
        metrics.watch(slots, lambda: self.work.waiting.get(task.name), lambda: runner.blocked)
        return runner

    def _handling(
        self, task: plan.Task, settler: Settler, sink: Sink | None, packs: bool
    ) -> Handling:
        if sink is not None:
            return (PacksIntoTable if packs else IntoTable)(sink, settler, task.limits)
        assert task.stage is not None
        return (InBatches if task.stage.signature.batch else OneByOne)(task.stage, settler)

    def _slots(
        self, task: plan.Task, handling: Handling, make: Callable[[int, int], Slots] | None
    ) -> Slots:
        largest = self.services.broker.max_payload + HEADERS_ROOM
        waiting = max(WAITING, handling.concurrency * handling.batch_size)
        if make is not None:
            return make(largest, waiting)
        limits = task.limits
        # What single rows and packs of them take together is the sink's.
        size = limits.max_bytes // 2 if task.packs else limits.max_bytes
        return Slots(limits.max_in_flight, size, largest, max_unhandled=waiting)

    def _decoder(self, task: plan.Task, codec: Codec, packs: bool) -> Callable[[Delivery], Any]:
        if task.dead:
            name = self.work.app.name
            return lambda delivery: dead_letter_row(name, delivery)
        if packs:
            row = task.row
            assert row is not None
            return lambda delivery: Pack(
                row, delivery.data, delivery.headers.get(CONTENT_TYPE), codec
            )
        decode, kind = codec.decode, task.reads
        return lambda delivery: decode(kind, delivery.data, delivery.headers.get(CONTENT_TYPE))

    def _gates(self, task: plan.Task, handling: Handling, emitter: Emitter) -> list[Gate]:
        """What may keep a task from pulling."""
        broker, inference = self.services.broker, self.services.inference
        gates: list[Gate] = [lambda: broker.blocked]
        if isinstance(handling, IntoTable):
            gates.append(lambda: handling.blocked)
        if task.stage is not None and task.stage.models and inference is not None:
            models = task.stage.models
            gates.append(lambda: inference.blocked(models))
        limit = task.limits.max_downstream
        readers = plan.ahead(self.work.app, task)
        if limit is not None and readers:

            def behind() -> str | None:
                for reader in readers:
                    waiting = self.work.waiting.get(reader.name, 0)
                    what = "messages wait"
                    if packs := self.work.packs.get(reader.name, 0):
                        # The server counts packs. Most that wait are as those that are written now.
                        waiting += round(packs * (emitter.rows_a_pack(reader.reads) - 1))
                        what = "rows or so wait"
                    if waiting > limit:
                        return f"{waiting:,} {what} for {reader.name} (max_downstream={limit:,})"
                return None

            gates.append(behind)
        return gates
