"""Live: the work of an ordinary worker, the messages of an app as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from mqinfer import plan
from mqinfer.errors import ConflictError, MqinferError, PermissionDenied, Unavailable
from mqinfer.flow.ordered.leases import Leases
from mqinfer.flow.ordered.owner import Owner
from mqinfer.rowpacks.which import pack_consumer
from mqinfer.state.states import ensure_states
from mqinfer.timers.keeper import Keeper
from mqinfer.timers.ontime import OnTime
from mqinfer.worker import known
from mqinfer.worker.known import Known, Place
from mqinfer.worker.survey import survey
from mqinfer.worker.work import Binding, Running

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker, ConsumerSpec
    from mqinfer.timers.table import Table

log = structlog.get_logger("mqinfer.worker")

LAG_EVERY = 1.0  # seconds between looks at how far consumers are
NOTE_EVERY = 60.0  # seconds between notes of it, for whoever comes when a consumer is gone


class LiveWork:
    """Stages and sinks of an app; see `mqinfer.worker.work.Work`.

    Args:
        app: the app.
        broker: its server.
        stages: names of stages and sinks; None is all.
        drain: end when nothing is left to do.
        timers: of the app; None keeps no schedules.
    """

    def __init__(
        self,
        app: App,
        broker: Broker,
        *,
        stages: Sequence[str] | None = None,
        drain: bool = False,
        timers: Table | None = None,
    ):
        self.app = app
        self.run_name = ""
        self.tasks = plan.tasks(app, stages)
        self._names = {task.name for task in self.tasks}
        self.waiting: dict[str, int] = {}
        self.lag: dict[str, int] = {}
        self.packs: dict[str, int] = {}
        self.floors: dict[str, int] = {}  # consumer -> all up to this sequence is done
        self._broker = broker
        self._drain = drain
        self._created: dict[str, str | None] = {}  # stream -> when it was made
        self._bucket = broker.bucket(plan.state_bucket(app))
        self._places: dict[str, Place] = {}  # of the tasks here
        self._noted: set[str] = set()  # tasks whose place was written down
        self._note_at = 0.0  # when they are next, in the loop's time
        self._denied = False  # whether these credentials may not
        self._clocked = [task.name for task in self.tasks if task.clock is not None]
        self._keeper: Keeper | None = None
        if timers is not None and self._clocked:
            kept = broker.bucket(plan.schedule_bucket(app), replicas=app.replicas)
            self._keeper = Keeper(app.name, plan.clocked(app), timers, kept)

    # --- consumers ------------------------------------------------------------------------------

    async def survey(self) -> None:
        """Refuse to begin with the past unasked, and write down which stages there are.

        Raises:
            ConflictError: a stage is new in an app that ran before, or may have been renamed.
        """
        await self._survey()
        if self._keeper is not None:
            await self._keeper.begin()

    async def _survey(self) -> None:
        before = await self._recall()
        if before is not None:
            await self._take_over(before)
        everything = [task.name for task in plan.tasks(self.app)]
        new = [task for task in self.tasks if await self._is_new(task)]
        if not new and before is not None and all(name in before.stages for name in everything):
            return  # an ordinary start
        try:
            found = await survey(self.app, self._broker, self._recall)
        except PermissionDenied:
            return  # then the consumers cannot be made either, which says what is missing
        doubtful = {one.name for one in found.beginnings if one.doubtful}
        await self._write([name for name in everything if name not in doubtful], {})
        if refusal := found.refusal(self.app, self._names):
            raise ConflictError(refusal)
        for one in found.beginnings:
            if one.messages and one.name in self._names:
                log.info("a stage begins with what the stream keeps", stage=one.name, says=str(one))
        for orphan in found.orphans:
            log.warning("a consumer without a stage", says=str(orphan))

    async def _recall(self) -> Known | None:
        self._created[self.app.name] = created = await self._broker.stream_created(self.app.name)
        return await known.load(self._bucket, created)

    async def _take_over(self, before: Known) -> None:
        """Where the stages were, in case a consumer is gone."""
        for task in self.tasks:
            place, stream = before.stages.get(task.name), plan.stream_of(self.app, task)
            if place is None or not place.floors:
                continue
            if stream not in self._created:
                self._created[stream] = await self._broker.stream_created(stream)
            if self._created[stream] == place.created:
                self.floors.update(place.floors)

    async def _is_new(self, task: plan.Task) -> bool:
        spec = plan.consumer_specs(self.app, task)[0]
        return await self._broker.consumer_state(spec.stream, spec.name) is None

    async def ensure(self, task: plan.Task) -> None:
        """Make the consumers of a task, and the partitions of an ordered one.

        Raises:
            ConflictError: the number of partitions was changed, or the stage ran without order
                before.
        """
        await ensure_states(self.app, task, self._broker)
        if task.ordered:
            await self._ensure_partitions(task)
        else:
            await self.recreate(task)
        stream = plan.stream_of(self.app, task)
        if self._created.get(stream) is None:
            self._created[stream] = await self._broker.stream_created(stream)

    async def _ensure_partitions(self, task: plan.Task) -> None:
        copy = plan.copy_spec(self.app, task.reads)
        specs = plan.consumer_specs(self.app, task)
        stream = self.app.name
        if (
            await self._broker.consumer_state(copy.name, specs[0].name) is None
            and await self._broker.consumer_state(stream, task.name) is not None
        ):
            raise ConflictError(
                f"stage {task.name} has read {task.reads.__name__} without order before: where it "
                f"was does not carry over. Give it another name= (it begins at the oldest "
                f"message), or delete consumer {task.name} of stream {stream}"
            )
        await self._broker.ensure_stream(copy)
        await self.recreate(task)

    async def recreate(self, task: plan.Task) -> None:
        """Make what an operator deleted (or nobody made yet), from where it last was.

        It may as well be there: a pull that hears nothing asks for it too.
        """
        if task.ordered:
            await self._ensure_tokens(task)
        for spec in plan.consumer_specs(self.app, task):
            floor = self.floors.get(spec.name, 0)
            if floor and await self._is_gone(spec):
                spec = replace(spec, start_sequence=floor + 1)
            state = await self._broker.ensure_consumer(spec)
            # One that began later than at the oldest message is not made again from there.
            self.floors[spec.name] = max(floor, state.acknowledged_floor)

    async def _ensure_tokens(self, task: plan.Task) -> None:
        """Make the tokens of the partitions, one each, whoever is first."""
        name = plan.owners_bucket(self.app)
        bucket = self._broker.bucket(name, replicas=self.app.replicas)
        await bucket.ensure()
        there = set(await bucket.names())
        for number in range(self.app.partitions):
            if (token := plan.token(task, number)) not in there:
                await bucket.save(token, b"", 0)
        places = plan.places(self.app, task)
        for spec in (places.tokens, places.present, places.wanting):
            await self._broker.ensure_consumer(spec)

    async def _is_gone(self, spec: ConsumerSpec) -> bool:
        """Whether the consumer was deleted, and not its whole stream, whose numbers begin anew."""
        if await self._broker.consumer_state(spec.stream, spec.name) is not None:
            return False
        return await self._broker.stream_created(spec.stream) == self._created.get(spec.stream)

    def binding(self, task: plan.Task, clock: Callable[[], float]) -> Binding:
        """A task's own consumer, or its partitions."""
        plain = Binding(
            plan.stream_of(self.app, task),
            task.name,
            self._broker,
            task.writes,
            created=lambda: self._created.get(self.app.name),
        )
        if task.clock is not None and task.clock.catch_up != "all":
            return replace(plain, policy=OnTime(self.app.name, task.clock))
        if task.packs:
            return replace(plain, packs=pack_consumer(task.name))
        if bulk := plan.bulk_consumer(self.app, task):
            return replace(plain, bulk=bulk)
        if not task.ordered:
            return plain
        owner = Owner(self._broker, plan.places(self.app, task), task.limits, clock)
        return replace(
            plain,
            feed=owner,
            policy=Leases(owner),
            slots=lambda largest, _: owner.windows(largest),
        )

    # --- how far everything is ------------------------------------------------------------------

    async def watch(self, worker: Running) -> None:
        """Keep the lag of the consumers that matter here, and the schedules; end a drain."""
        if self._keeper is None:
            await self._watch(worker)
            return
        async with asyncio.TaskGroup() as group:
            keeping = [
                group.create_task(self._keeper.keep(name), name=f"schedule of {name}")
                for name in self._clocked
            ]
            await self._watch(worker)
            for task in keeping:
                task.cancel()

    async def _watch(self, worker: Running) -> None:
        upstream = plan.upstream(self.app, self.tasks)
        watched = {task.name: task for task in upstream}
        for task in self.tasks:
            watched.update({other.name: other for other in plan.downstream(self.app, task)})
        quiet = 0
        # A drain that has little to do ends soon; what takes longer is looked at less often.
        pause = LAG_EVERY / 64 if self._drain else LAG_EVERY
        while not worker.stopping:
            try:
                lags = {name: await self._lag(task) for name, task in watched.items()}
            except Unavailable:
                quiet = 0
            else:
                # A deadline that has not come is nothing left to do.
                done = not any(lags[task.name] for task in upstream if not task.waits)
                quiet = quiet + 1 if done and worker.complete and worker.idle else 0
                ends = self._drain and quiet >= 2
                await self._note(last=ends)
                if ends:
                    log.info("nothing is left to do", app=self.app.name)
                    worker.stop()
            if self._drain:
                # The server may not have counted yet what was stored a moment ago.
                pause = LAG_EVERY / 4 if quiet else min(2 * pause, LAG_EVERY / 4)
            await asyncio.sleep(pause)

    async def _lag(self, task: plan.Task) -> int:
        found = [
            await self._broker.consumer_state(spec.stream, spec.name)
            for spec in plan.consumer_specs(self.app, task)
        ]
        states = [state for state in found if state is not None]
        created = self._created.get(plan.stream_of(self.app, task))
        # A place in a stream of no date is nowhere: a stage that is being made has it in a moment.
        if states and len(states) == len(found) and task.name in self._names and created:
            floors = {state.name: state.acknowledged_floor for state in states}
            self._places[task.name] = Place(created, floors)
        for state in states:
            floor = max(self.floors.get(state.name, 0), state.acknowledged_floor)
            self.floors[state.name] = floor
        # What comes of jobs is bounded by itself, and holds up nothing live.
        bulk = plan.bulk_consumer(self.app, task)
        self.waiting[task.name] = sum(state.waiting for state in states if state.name != bulk)
        if task.packs:
            name = pack_consumer(task.name)
            self.packs[task.name] = sum(one.waiting for one in states if one.name == name)
        lag = self.lag[task.name] = sum(state.lag for state in states)
        if self._drain and task.ordered and not lag:
            # What is published is not in a partition yet, but it is left to do.
            lag = int(await self._broker.uncopied(plan.copy_spec(self.app, task.reads)))
        return lag

    async def _note(self, *, last: bool = False) -> None:
        """Write down where the stages are, now and then."""
        now = asyncio.get_running_loop().time()
        begun = self._places.keys() - self._noted
        if not (last or begun or now >= self._note_at):
            return
        # The bucket keeps a value no longer than the stream keeps a message.
        self._note_at = now + min(NOTE_EVERY, (self.app.max_age or NOTE_EVERY * 4) / 4)
        self._noted |= begun
        try:
            await self._write((), self._places)
        except MqinferError as error:
            log.debug("where the stages are was not written down", reason=str(error))

    async def _write(self, names: Iterable[str], places: Mapping[str, Place]) -> None:
        """Add to the list of stages; a worker that may not write it works all the same."""
        created = self._created.get(self.app.name)
        if created is None or self._denied:
            return
        try:
            await known.add(self._bucket, created, names, places)
        except PermissionDenied as error:
            self._denied = True  # asking again and again would be in the way of what is allowed
            log.warning("stages are not written down (see: mqinfer permissions)", reason=str(error))
