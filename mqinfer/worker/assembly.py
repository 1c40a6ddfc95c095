"""Assembly: puts the parts of one stage together: the same for live work and for replays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.codec import Codec
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
from mqinfer.tables.intotable import IntoTable, dead_letter_row

if TYPE_CHECKING:
    from mqinfer.message import Message
    from mqinfer.ports import Delivery
    from mqinfer.tables.sink import Sink
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Work

HEADERS_ROOM = 64 * 1024  # what subject and headers may add to the largest payload, in bytes
# Messages that may wait for handlers, or be in them. What waits here could be another worker's: no
# more than hides the way to the server, whatever may be in flight while outputs are being stored.
WAITING = 512


@dataclass(slots=True)
class Assembly:
    """Makes the runners of one worker.

    Attributes:
        services: connections.
        work: what the worker works on.
        lane: of the suspects of all stages.
    """

    services: Services
    work: Work
    lane: Lane = field(default_factory=Lane)

    def runner(self, task: plan.Task, sink: Sink | None, state: object) -> Runner:
        """The runner of one task.

        Args:
            task: the stage or sink.
            sink: its table; None for a stage.
            state: what the stage's lifespan yielded.
        """
        app, services = self.work.app, self.services
        clock = asyncio.get_running_loop().time
        binding = self.work.binding(task, clock)
        metrics = services.metrics.stage(task.name)
        codec = Codec(services.store)

        def released(job: Job, storing: bool) -> None:
            runner.released(job, storing)

        name = plan.state_bucket(app)
        bucket = services.broker.bucket(name)
        ledger = Ledger(binding.consumer, name=name, bucket=bucket, broker=services.broker)
        settler = Settler(
            task.name,
            task.limits,
            broker=services.broker,
            emitter=Emitter(
                app,
                task.name,
                binding.writes,
                run=binding.run,
                codec=codec,
                store=services.store,
                inline_limit=services.inline_limit,
                broker=services.broker,
            ),
            ledger=ledger,
            dead_subject=None if task.dead else plan.dead_subject(app, task.name),
            metrics=metrics,
            released=released,
            clock=clock,
            run=binding.run,
            policy=binding.policy,
        )
        handling = self._handling(task, settler, sink)
        slots = self._slots(task, handling, binding.slots)
        runner = Runner(
            task.name,
            source=Source(
                binding.stream,
                binding.consumer,
                binding.feed,
                recreate=lambda: self.work.recreate(task),
                gates=self._gates(task, handling),
            ),
            reader=Reader(
                task.name,
                binding.consumer,
                self._decoder(task, codec),
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
            clock=clock,
        )
        metrics.watch(slots, lambda: self.work.waiting.get(task.name), lambda: runner.blocked)
        return runner

    def _handling(self, task: plan.Task, settler: Settler, sink: Sink | None) -> Handling:
        if sink is not None:
            return IntoTable(sink, settler, task.limits)
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
        return Slots(limits.max_in_flight, limits.max_bytes, largest, max_unhandled=waiting)

    def _decoder(self, task: plan.Task, codec: Codec) -> Callable[[Delivery], Message]:
        if task.dead:
            name = self.work.app.name
            return lambda delivery: dead_letter_row(name, delivery)
        decode, kind = codec.decode, task.reads
        return lambda delivery: decode(kind, delivery.data, delivery.headers.get(CONTENT_TYPE))

    def _gates(self, task: plan.Task, handling: Handling) -> list[Gate]:
        """What may keep a task from pulling."""
        broker, inference = self.services.broker, self.services.inference
        gates: list[Gate] = [lambda: broker.blocked]
        if isinstance(handling, IntoTable):
            gates.append(lambda: handling.blocked)
        if task.stage is not None and task.stage.models and inference is not None:
            models = task.stage.models
            gates.append(lambda: inference.blocked(models))
        limit = task.limits.max_downstream
        readers = [other.name for other in plan.ahead(self.work.app, task)]
        if limit is not None and readers:

            def behind() -> str | None:
                for reader in readers:
                    waiting = self.work.waiting.get(reader, 0)
                    if waiting > limit:
                        return f"{waiting:,} messages wait for {reader} (max_downstream={limit:,})"
                return None

            gates.append(behind)
        return gates
