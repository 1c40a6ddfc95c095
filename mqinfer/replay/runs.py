"""Runs: the replays of an app, kept where every command and worker finds them.

A run is one value in the bucket `<app>-runs`. Every change of it is conditional on the revision
that was read, so that two commands at once cannot undo one another. What a run has answered is not
kept here: its consumers know, and they survive everything that the stream survives.

A name is never used twice. JetStream would drop the messages of a second run of the same name, for
their ids are those of the first.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from mqinfer import plan
from mqinfer.bucket import Bucket, change
from mqinfer.completion.waited import bulk_kinds
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.joinwiring import below
from mqinfer.message import key_token
from mqinfer.replay.ranges import Bounds, Wanted, fixed
from mqinfer.replay.run import (
    FINISH,
    LATE,
    OPEN,
    REOPEN,
    RESUME,
    STOP,
    Run,
    State,
    Transition,
    may,
    moved,
)

if TYPE_CHECKING:
    from mqinfer.app import App

__all__ = ["Bounds", "RunStore", "Runs", "Wanted", "check", "taken"]

# Subject and consumer of messages that come back; neither a type nor a stage should be called so.
RETRIES = "mqinfer-retry"
# No hyphen: `run-<run>-<stage>` must say which part is which, and stages may have hyphens.
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")


class RunStore(Bucket, Protocol):
    """What runs need of JetStream beside a worker's broker: their bucket, and the streams."""

    async def bounds(self, stream: str) -> Bounds | None:
        """What a stream holds, or None if there is no such stream."""

    async def sequence_at(self, stream: str, moment: datetime.datetime) -> int | None:
        """The first sequence that was stored at `moment` or later, or None."""

    async def count(self, stream: str, filters: Sequence[str], start: int, end: int) -> int:
        """Messages of these subjects from `start` to `end`."""

    async def waiting_after(self, stream: str, filters: Sequence[str], end: int) -> int:
        """Messages of these subjects after `end`."""

    async def pulling(self, stream: str, prefix: str) -> list[str]:
        """The consumers with this prefix that somebody asks for messages."""

    async def erase(self, stream: str, prefix: str, subject: str) -> None:
        """Delete the consumers with this prefix and the messages of this subject."""

    async def purge(self, stream: str, subject: str) -> None:
        """Delete the messages of this subject, if there is such a stream."""


def bucket(app: App) -> str:
    """Where the runs of an app are kept."""
    return f"{app.name}-runs"


def retry_subject(app: App, run: str, subject: str) -> str:
    """Where a message that a run could not answer goes back to it.

    What was made in the run goes where it was. A live message must not come again for the live
    stages, so it has a subject in the run.

    Args:
        app: the app.
        run: name of the run.
        subject: of the message; ">" is that of all live messages.
    """
    own = f"{app.name}.run.{run}."
    if subject.startswith(own):
        return subject
    return f"{own}{RETRIES}.{subject.removeprefix(f'{app.name}.')}"


def filters(app: App, run: Run) -> tuple[str, ...]:
    """The subjects of the messages that the replayed stage of a run reads."""
    if run.retries:
        return (retry_subject(app, run.name, ">"),)
    reads = app.stages[run.stage].reads
    lanes = (False, True) if reads in bulk_kinds(app) else (False,)
    if run.key is None:
        return tuple(one for bulk in lanes for one in app.filters(reads, bulk=bulk))
    key = key_token(run.key)
    return tuple(f"{app.subject(reads, bulk=bulk)}.{key}" for bulk in lanes)


class Runs:
    """The runs of one app.

    Args:
        app: the app.
        store: where they are kept.
        now: the time of day.
    """

    def __init__(
        self,
        app: App,
        store: RunStore,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.app = app
        self.store = store
        self._now = now

    async def create(
        self,
        *,
        stage: str,
        wanted: Wanted,
        name: str | None = None,
        key: str | None = None,
        models: Mapping[str, str] | None = None,
        rate: float | None = None,
        share: float = 1.0,
        downstream: bool = False,
        beside: float | None = None,
        late: float = LATE,
    ) -> Run:
        """Fix a range and keep it under a name; of a shadow (`beside`) only where it begins.

        Raises:
            ConfigurationError: the stage, a model, the key or the range cannot be.
            ConflictError: the name was used before.
        """
        created = self._now().replace(microsecond=0)
        name = name or f"r{created:%Y%m%d_%H%M%S}"
        draft = Run(
            name=name,
            stage=stage,
            start=1,
            end=0,
            total=0,
            key=key,
            models=dict(models or {}),
            rate=rate,
            share=share,
            downstream=downstream,
            created=created,
            token=uuid.uuid4().hex,
            packs=True,
            beside=beside,
            late=late,
        )
        check(self.app, draft)
        bounds = await self.store.bounds(self.app.name)
        if bounds is None:
            raise ConfigurationError(f"there is no stream {self.app.name}: nothing was published")
        notes: tuple[str, ...] = ()
        if beside is not None:
            start, end, total = bounds.last + 1, OPEN, 0
        else:
            start, end, notes = await fixed(wanted, bounds, self.app.name, self.store)
            total = await self.store.count(self.app.name, filters(self.app, draft), start, end)
        stages = tuple(task.name for task in taken(self.app, draft))
        run = msgspec.structs.replace(
            draft, start=start, end=end, total=total, notes=notes, stages=stages
        )
        await self.store.ensure()
        if not await self.store.save(name, msgspec.json.encode(run), 0):
            raise ConflictError(
                f"there is a run {name} already, and a name is never used twice: choose another, "
                f"or go on with that one (mqinfer worker APP --run {name})"
            )
        return run

    async def find(self, name: str) -> Run | None:
        """A run, or None if there is none."""
        found = await self.store.load(name)
        return None if found is None else msgspec.json.decode(found[0], type=Run)

    async def get(self, name: str) -> Run:
        """A run.

        Raises:
            ConfigurationError: there is none of that name; the text lists those there are.
        """
        run = await self.find(name)
        if run is None:
            names = ", ".join(await self.store.names()) or "none"
            raise ConfigurationError(f"app {self.app.name} has no run {name}; it has: {names}")
        return run

    async def all(self) -> list[Run]:
        """Every run, the oldest first."""
        found = [await self.find(name) for name in await self.store.names()]
        return sorted((run for run in found if run), key=lambda run: (run.created, run.name))

    async def change(self, name: str, function: Callable[[Run], Run]) -> Run:
        """Change a run; tried again when another command was quicker.

        Raises:
            ConfigurationError: there is no such run, or `function` refuses.
            ConflictError: others keep changing it.
        """

        def changed(value: bytes | None) -> bytes | None:
            if value is None:
                return None
            before = msgspec.json.decode(value, type=Run)
            after = function(before)
            return value if after == before else msgspec.json.encode(after)

        _, value = await change(self.store, name, changed, what=f"run {name}")
        return await self.get(name) if value is None else msgspec.json.decode(value, type=Run)

    async def finish(self, seen: Run) -> Run:
        """The last message is settled; does nothing when dead letters were sent back meanwhile.

        Args:
            seen: the run as it was before its consumers were looked at.
        """
        now = self._now()
        return await self.change(
            seen.name,
            lambda run: (
                moved(run, FINISH, finished=now)
                if may(run, FINISH) and run.retries == seen.retries
                else run
            ),
        )

    async def end(self, name: str) -> Run:
        """Fix the end of a shadow: what is stored by now is its range; done when that is settled.

        One that has an end keeps it.

        Raises:
            ConfigurationError: there is no such run.
        """
        run = await self.get(name)
        bounds = await self.store.bounds(self.app.name)
        if not run.open or bounds is None:
            return run
        last = max(bounds.last, run.start - 1)
        total = await self.store.count(self.app.name, filters(self.app, run), run.start, last)
        return await self.change(
            name,
            lambda now: msgspec.structs.replace(now, end=last, total=total) if now.open else now,
        )

    async def reopen(self, name: str) -> Run:
        """Dead letters were sent back: the run goes on with them.

        Raises:
            ConfigurationError: nothing can go back to it; see `require_open`.
        """

        def wish(run: Run) -> Run:
            require_open(run)
            return moved(run, REOPEN, retries=run.retries + 1)

        return await self.change(name, wish)

    async def stop(self, name: str) -> Run:
        """End its workers in order; `resume` goes on."""
        return await self.change(name, lambda run: _if_may(run, STOP))

    async def resume(self, name: str) -> Run:
        """Let workers go on with a run that was stopped."""
        run = await self.change(name, lambda run: _if_may(run, RESUME))
        check(self.app, run)
        return run


def require_open(run: Run) -> None:
    """Refuse a run that dead letters cannot go back to.

    Raises:
        ConfigurationError: it is promoted, discarded, or was never done; the text says what to do.
    """
    if run.state in (State.DISCARDING, State.DISCARDED):
        raise ConfigurationError(f"run {run.name} was discarded: drop the letter")
    if run.state is State.PROMOTED or not run.applied:
        raise ConfigurationError(
            f"run {run.name} is promoted, and its rows would change under their readers: undo that "
            f"(mqinfer runs undo APP {run.name}), send the letter back, and promote it again"
        )
    if run.finished is None:
        raise ConfigurationError(
            f"run {run.name} is still at work: send the letter back when it is done "
            f"(mqinfer worker APP --run {run.name})"
        )


def _if_may(run: Run, transition: Transition) -> Run:
    return moved(run, transition) if may(run, transition) else run


def check(app: App, run: Run) -> None:
    """Check a run against the app.

    Raises:
        ConfigurationError: what does not fit.
    """
    if not _NAME.fullmatch(run.name):
        raise ConfigurationError(
            f"a run's name is up to 40 letters, digits and _ (no hyphen): {run.name!r}"
        )
    if run.stage not in app.stages:
        raise ConfigurationError(
            f"app {app.name} has no stage {run.stage}; it has {', '.join(app.stages)}"
        )
    kind = app.stages[run.stage].reads
    if run.key is not None and kind.__mqinfer__.key is None:
        raise ConfigurationError(
            f"stage {run.stage} reads {kind.__name__}, which has no key= to choose by"
        )
    known = {model.name for model in app.models.values()}
    unknown = [name for name in run.models if name not in known]
    if unknown:
        raise ConfigurationError(
            f"app {app.name} has no model {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    if run.rate is not None and run.rate <= 0:
        raise ConfigurationError(f"a rate is more than 0 messages a second, not {run.rate:g}")
    if not 0 < run.share <= 1:
        raise ConfigurationError(f"a share is more than 0 and at most 1, not {run.share:g}")
    if run.beside is not None:
        if not 0 < run.beside <= 1:
            raise ConfigurationError(f"a share is more than 0 and at most 1, not {run.beside:g}")
        if not set(app.rows.values()) & set(app.stages[run.stage].writes):
            raise ConfigurationError(
                f"stage {run.stage} writes no rows, which is what a shadow is compared by: replay "
                "it with --downstream"
            )
    tasks = taken(app, run)
    ours = {task.name for task in tasks}
    for task in tasks[1:]:
        others = [
            other.name
            for other in plan.tasks(app)
            if task.stage is not None and task.reads in other.writes and other.name not in ours
        ]
        if others:
            raise ConfigurationError(
                f"stage {task.name} also reads what {', '.join(others)} writes: promoting this run "
                f"would hide answers that it did not make anew; replay without --downstream"
            )


def taken(app: App, run: Run) -> list[plan.Task]:
    """The stages that a run takes, the replayed one first, each after those it reads from.

    A join is taken where the run handles its roots, and comes after all that is below these.
    """
    (first,) = plan.tasks(app, [run.stage])
    order: list[plan.Task] = []
    seen: set[str] = set()
    joins = _joins(app, first) if run.downstream else {}

    def visit(task: plan.Task) -> None:
        if task.name in seen:
            return
        seen.add(task.name)
        if run.downstream:
            for other in plan.downstream(app, task):
                if other.stage is not None:
                    visit(other)
            for name, under in joins.items():
                if task.name in under:
                    visit(*plan.tasks(app, [name]))
        order.insert(0, task)

    visit(first)
    return order


def _joins(app: App, first: plan.Task) -> dict[str, set[str]]:
    """The joins whose roots are handled from `first` on, and the stages below these."""
    kinds = [first.reads]
    found: dict[str, set[str]] = {}
    for kind in kinds:  # grows
        for stage in app.stages.values():
            if stage.join is not None and stage.join.root is kind:
                found[stage.name] = {one.name for one in below(app.stages, kind)}
            elif stage.reads is not kind:
                continue
            kinds += [one for one in stage.writes if one not in kinds]
    return found
