"""Assembly: puts the parts of one stage together: the same for live work and for replays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer import plan
from mqinfer.codec import Codec
from mqinfer.completion import record, roots
from mqinfer.completion.several import Several
from mqinfer.completion.tracker import Tracker, Waiting
from mqinfer.completion.waited import asked_of, endpoints_of, joins_of, recorder
from mqinfer.flow.beat import Beat
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.handling import Handling, InBatches, OneByOne, concurrency_of
from mqinfer.flow.intake import Source
from mqinfer.flow.intime import InTime
from mqinfer.flow.job import DeliveryContext, Job, TimedContext
from mqinfer.flow.lane import Lane
from mqinfer.flow.lanes import InLane, InTurns, Places, Turn
from mqinfer.flow.ledger import Ledger
from mqinfer.flow.policy import Policy
from mqinfer.flow.reader import Reader
from mqinfer.flow.runner import Runner
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots, SparingSlots
from mqinfer.flow.suspects import Suspects
from mqinfer.identity import CONTENT_TYPE
from mqinfer.jobs.driving import Driving
from mqinfer.jobs.telling import Telling as TellingJobs
from mqinfer.joins.handler import as_stage
from mqinfer.joins.telling import Telling as TellingJoins
from mqinfer.joins.tracking import Deadlines, Records
from mqinfer.requests.atonce import at_once
from mqinfer.requests.passing import Canceled, Passing
from mqinfer.requests.seen import Seen
from mqinfer.requests.telling import Telling as TellingRequests
from mqinfer.requests.tracking import Open
from mqinfer.rowpacks.unpack import Pack
from mqinfer.state.remembering import Remembering
from mqinfer.state.states import States
from mqinfer.tables.intotable import IntoTable, dead_letter_row
from mqinfer.tables.packsintotable import PacksIntoTable
from mqinfer.timers.setter import Setter
from mqinfer.tracing.handling import traced
from mqinfer.tracing.inserts import of_inserts
from mqinfer.worker.gates import gates

if TYPE_CHECKING:
    from mqinfer.completion.recorder import Recorder
    from mqinfer.ports import Delivery
    from mqinfer.tables.sink import Sink
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Binding, Work

log = structlog.get_logger("mqinfer.worker")

HEADERS_ROOM = 64 * 1024  # what subject and headers may add to the largest payload, in bytes
# Messages that may wait for handlers, or be in them. What waits here could be another worker's: no
# more than hides the way to the server, whatever may be in flight while outputs are being stored.
WAITING = 512
# Of what comes of jobs a stage has this part of its limit in flight, beside what is live, and so
# many at least. With more at a time a live message waited longer for its turns of the loop: of 512
# for 300 ms where it is 90 ms of 128, at the same rate (on a busy machine).
BULK_PART, BULK = 16, 64


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
        turn: of the loop, for messages of jobs.
        setters: of the timers of stages that set any; to be closed in the end.
        canceled: what is known of canceled requests.
        seen: open requests as they were given out.
    """

    services: Services
    work: Work
    beat: Beat = field(default_factory=Beat)
    lane: Lane = field(default_factory=Lane)
    turn: Turn = field(default_factory=Turn)
    setters: list[Setter] = field(default_factory=list)
    canceled: Canceled = field(default_factory=Canceled)
    seen: Seen = field(default_factory=Seen)

    def runners(self, task: plan.Task, sink: Sink | None, state: object) -> list[Runner]:
        """The runners of one task.

        A sink has one for single rows and one for packs of them, a stage below an endpoint one for
        live messages and one for those of jobs.

        Args:
            task: the stage or sink.
            sink: its table; None for a stage.
            state: what the stage's lifespan yielded.
        """
        # Not the loop's own time, which stands still together with it in uvloop.
        binding = self.work.binding(task, time.monotonic)
        places = _places(task) if binding.bulk and task.stage is not None else None
        plain = self._runner(task, binding, sink, state, places=places)
        if not task.packs and not binding.bulk:
            return [plain]
        packs, bulk = task.packs, binding.bulk is not None
        beside = self._runner(task, binding, sink, state, packs=packs, bulk=bulk, places=places)
        self.services.metrics.stage(task.name).watch(
            _Both(plain.slots, beside.slots),
            lambda: self.work.lag.get(task.name),
            lambda: plain.blocked or beside.blocked,
        )
        return [plain, beside]

    def _runner(
        self,
        task: plan.Task,
        binding: Binding,
        sink: Sink | None,
        state: object,
        *,
        packs: bool = False,
        bulk: bool = False,
        places: Places | None = None,
    ) -> Runner:
        """The runner of one task's messages, or of what it has a further consumer for.

        They share all that has a name: dead letters, the ledger, metrics. Arguments as of
        `runners`, and places for handlers that two of them share.
        """
        app, services, clock = self.work.app, self.services, time.monotonic
        metrics = services.metrics.stage(task.name)
        codec = Codec(services.store)

        def released(job: Job, storing: bool) -> None:
            runner.released(job, storing)

        def again(job: Job, delay: float) -> None:
            runner.again(job, delay)

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
            recorder=self._recorder(task, binding, codec),
        )
        setter = self._setter(task, binding, codec)
        settler = Settler(
            task.name,
            task.limits,
            broker=services.broker,
            emitter=emitter,
            ledger=ledger,
            dead_subject=None if task.dead else plan.dead_subject(app, task.name),
            metrics=metrics,
            released=released,
            again=again,
            clock=clock,
            run=binding.run,
            policy=binding.policy,
            timers=setter,
            at_once=at_once(
                None if bulk else task.stage, app, binding.among, services.broker, self.seen
            ),
        )
        if bulk and task.tracker:
            limits = replace(task.limits, batch_wait=plan.BULK_WAIT, batch_size=plan.BULK_BATCH)
            task = replace(task, limits=limits)
        handling = self._handling(task, settler, sink, packs, binding, codec)
        handling = self._with_states(task, handling, settler, codec, binding)
        if bulk:
            handling = InTurns(handling, self.turn)
        if binding.aside is not None:
            handling = InTime(
                handling,
                settler,
                late=binding.aside.late,
                busy=binding.aside.busy,
                turn=self.turn,
                alone=_alone(task),
            )
        if places is not None:
            handling = InLane(handling, places, bulk=bulk)
        handling = self._for_requests(task, handling, settler, binding)
        slots = self._slots(task, handling, binding.slots, bulk=bulk)
        # Where there is something of jobs beside it, or it is a request.
        live = not bulk and (binding.bulk is not None or task.endpoint is not None)
        runner = Runner(
            task.name,
            source=Source(
                binding.stream,
                (binding.packs if packs else None)
                or (binding.bulk if bulk else None)
                or binding.consumer,
                binding.feed,
                recreate=lambda: self.work.recreate(task),
                gates=gates(self.work, self.services, task, binding, handling, emitter),
                told=not (packs or bulk),
                heard=self.turn.live if live else None,
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
                TimedContext if task.stage and task.stage.later else DeliveryContext,
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
        metrics.watch(slots, lambda: self.work.lag.get(task.name), lambda: runner.blocked)
        return runner

    def _setter(self, task: plan.Task, binding: Binding, codec: Codec) -> Setter | None:
        """Sets the timers of a stage; None where it has none, and in a run, which sets none."""
        app, services = self.work.app, self.services
        if task.stage is None or not task.stage.later:
            return None
        if services.timers is None or binding.created is None:
            log.info("timers are not set in a run", stage=task.name, run=binding.run)
            return None
        emitter = Emitter(
            app,
            task.name,
            task.stage.later,
            run=None,
            codec=codec,
            store=services.store,
            inline_limit=services.inline_limit,
            broker=services.broker,
            pack=False,  # one message is one timer
        )
        key = task.reads.__mqinfer__.key
        setter = Setter(app, task.name, key, emitter, services.timers, binding.created)
        self.setters.append(setter)
        return setter

    def _handling(
        self,
        task: plan.Task,
        settler: Settler,
        sink: Sink | None,
        packs: bool,
        binding: Binding,
        codec: Codec,
    ) -> Handling:
        if sink is not None:
            made = (PacksIntoTable if packs else IntoTable)(sink, settler, task.limits)
            return of_inserts(made, task.name, self.services.tracing)
        if task.tracker:
            return Records(self._tracker(binding), settler, task.limits)
        if task.deadline is not None:
            join, stages = task.deadline, self.work.app.stages
            readers = [name for name, stage in stages.items() if stage.reads is join.root]
            return Deadlines(join, readers, self._tracker(binding), settler, task.limits)
        if task.endpoint is not None:
            return Open(
                self.work.app,
                task.endpoint,
                self._tracker(binding),
                roots=self.services.broker.bucket(roots.bucket(self.work.app)),
                seen=self.seen,
                broker=self.services.broker,
                settler=settler,
                limits=task.limits,
            )
        if task.jobs:
            return Driving(
                self.work.app,
                self._tracker(binding),
                roots=self.services.broker.bucket(roots.bucket(self.work.app)),
                broker=self.services.broker,
                core=self.services.core,
                store=self.services.store,
                turn=self.turn,
                settler=settler,
                limits=task.limits,
                inline_limit=self.services.inline_limit,
            )
        assert task.stage is not None
        stage = traced(as_stage(task.stage, codec), self.services.tracing)
        batch, sides = stage.signature.batch, self.services.sides
        return InBatches(stage, settler, sides) if batch else OneByOne(stage, settler)

    def _recorder(self, task: plan.Task, binding: Binding, codec: Codec) -> Recorder | None:
        if task.stage is None:
            return None
        broker = self.services.broker
        return recorder(
            *(self.work.app, task.stage, binding.run, binding.among, codec),
            max_payload=lambda: broker.max_payload,
        )

    def _tracker(self, binding: Binding) -> Tracker:
        app, services = self.work.app, self.services
        assert services.streams is not None
        broker, store = services.broker, services.store
        joins = joins_of(app, binding.among)
        ways: list[Waiting] = [TellingJoins(app, binding.run, joins, broker=broker, store=store)]
        if endpoints_of(app, binding.among):
            ways.append(TellingRequests(app, broker=broker, store=store, seen=self.seen))
            ways.append(TellingJobs(app, broker=broker, core=services.core, store=store))
        return Tracker(
            app,
            binding.run,
            bucket=services.broker.bucket(roots.bucket(app)),
            streams=services.streams,
            waiting=Several(ways),
            max_payload=lambda: services.broker.max_payload,
        )

    def _for_requests(
        self, task: plan.Task, handling: Handling, settler: Settler, binding: Binding
    ) -> Handling:
        """The handling of a stage below an endpoint, which passes over what nobody waits for."""
        app = self.work.app
        if task.stage and app.endpoints and task.name in asked_of(app, binding.among):
            return Passing(handling, settler, self.canceled, alone=_alone(task))
        return handling

    def _with_states(
        self, task: plan.Task, handling: Handling, settler: Settler, codec: Codec, binding: Binding
    ) -> Handling:
        """The handling of a stage that remembers."""
        if task.remembers is None:
            return handling
        app, broker = self.work.app, self.services.broker
        states = States(
            task.name,
            task.remembers,
            starts=binding.subjects or (app.subject(task.reads),),
            bucket=broker.bucket(plan.memory_bucket(app)),
            codec=codec,
            created=lambda: broker.stream_created(app.name),
            max_payload=lambda: broker.max_payload,
            clock=time.monotonic,
            run=binding.run,
            passes=(binding.policy or Policy()).passes,
        )
        return Remembering(handling, states, settler)

    def _slots(
        self,
        task: plan.Task,
        handling: Handling,
        make: Callable[[int, int], Slots] | None,
        *,
        bulk: bool,
    ) -> Slots:
        largest = self.services.broker.max_payload + HEADERS_ROOM
        waiting = max(WAITING, handling.concurrency * handling.batch_size)
        if make is not None:
            return make(largest, waiting)
        limits = task.limits
        # What single rows and packs of them take together is the sink's.
        size = limits.max_bytes // 2 if task.packs else limits.max_bytes
        if not bulk:
            return Slots(limits.max_in_flight, size, largest, max_unhandled=waiting)
        count = max(min(limits.max_in_flight, BULK), limits.max_in_flight // BULK_PART)
        # Whoever gathers batches must be able to have them.
        kind = SparingSlots if task.stage is not None and handling.batch_size == 1 else Slots
        return kind(count, size // 4, largest, max_unhandled=waiting)

    def _decoder(self, task: plan.Task, codec: Codec, packs: bool) -> Callable[[Delivery], Any]:
        if task.dead:
            name = self.work.app.name
            return lambda delivery: dead_letter_row(name, delivery)
        if task.tracker:
            return record.read
        if task.waits or task.jobs:  # a root: what is in it is for stages; or a state
            return lambda delivery: delivery
        if packs:
            row = task.row
            assert row is not None
            return lambda delivery: Pack(
                row, delivery.data, delivery.headers.get(CONTENT_TYPE), codec
            )
        read = codec.reader(task.reads)
        return lambda delivery: read(delivery.data, delivery.headers.get(CONTENT_TYPE))


def _alone(task: plan.Task) -> bool:
    """Whether the handler of a stage is a coroutine for one message, which can be cancelled."""
    assert task.stage is not None
    signature = task.stage.signature
    return not signature.batch and signature.kind in ("coroutine", "async_generator")


def _places(task: plan.Task) -> Places | None:
    """Places for the handlers of a stage that bounds them, which live messages and jobs share."""
    assert task.stage is not None
    return None if task.limits.concurrency is None else Places(concurrency_of(task.stage))
