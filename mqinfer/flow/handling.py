"""Handling: calls a handler in whichever shape it was written.

One message or a batch, coroutine or generator, on the event loop or in a thread: each becomes
"jobs in, every job answered or failed by the settler".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer.context import current
from mqinfer.errors import Reject, Retry, Snooze, Unavailable
from mqinfer.flow.early import Early
from mqinfer.flow.job import Job
from mqinfer.flow.settler import Settler
from mqinfer.flow.threads import Threads
from mqinfer.hooks import run as inside
from mqinfer.message import Message, Rejected
from mqinfer.split import Split

if TYPE_CHECKING:
    from mqinfer.context import Context
    from mqinfer.stage import Stage

# Outputs of one message that are held until its handler ends; beyond it they are published while
# the handler still runs, so that memory stays bounded. With `early=True` each leaves at once.
CHUNK = 1000
# Coroutines of a stage that run at once, unless it says otherwise.
HANDLERS = 512


class Handling(Protocol):
    """What a runner does with decoded messages.

    `batch_size` counts messages, or where there is `weigh` what that says of each.
    """

    concurrency: int
    batch_size: int
    batch_wait: float
    runs_user_code: bool
    weigh: Callable[[Job], int] | None

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold so many threads that only a new process helps."""

    async def run(self, jobs: Sequence[Job]) -> None:
        """Answer or fail every job; raises only CancelledError."""

    def close(self) -> None:
        """Release threads."""


class OneByOne:
    """A handler that takes one message."""

    batch_size = 1
    batch_wait = 0.0
    runs_user_code = True
    weigh: Callable[[Job], int] | None = None

    def __init__(self, stage: Stage, settler: Settler):
        self._stage = stage
        self._settler = settler
        self._handler = stage.handler
        self._wants_context = stage.signature.wants_context
        self._with_state = stage.signature.with_state
        self._kind = stage.signature.kind
        self._around = stage.around
        # A coroutine without a context has no way to send anything before it returns.
        self._may_be_early = self._wants_context or self._kind != "coroutine"
        self._size = 1 if stage.early else CHUNK
        self._threads = _threads(stage)
        self.concurrency = concurrency_of(stage)

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle the one job."""
        (job,) = jobs
        settler = self._settler
        current.set(job.context)
        arguments: tuple[Any, ...] = (job.message,)
        if self._wants_context:
            arguments = (job.message, job.context)
        memory = job.memory
        early = Early(job, settler, self._size) if self._may_be_early else None
        try:
            if memory is not None:
                arguments = self._with_state(job.message, job.context, memory.begin())
            if self._around:
                handler = partial(self._outputs, early, arguments)
                outputs = await inside(self._around, job.message, job.context, handler)
            elif early is None or self._kind == "coroutine":
                outputs = settler.emitter.checked(await self._handler(*arguments))
            else:
                outputs = await self._outputs(early, arguments)
            if not settler.emitter.plain:
                await settler.emitter.prepare(outputs)
            if memory is not None:
                memory.seal()
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
            settler.failed(job, error)
        else:
            if early is None:
                settler.answered(job, outputs)
            else:
                settler.answered(job, outputs, early.first, early.sent)
        finally:
            if early is not None:
                early.close()

    async def _outputs(self, early: Early | None, arguments: tuple[Any, ...]) -> Sequence[Message]:
        """What the handler gives and has not sent yet, as a sequence."""
        checked = self._settler.emitter.checked
        if early is None or self._kind == "coroutine":
            return checked(await self._handler(*arguments))
        if self._kind == "async_generator":
            return await early.drain(self._handler(*arguments))
        return checked(await self._threads.call(self._call, (early, *arguments)))

    def _call(self, early: Early, *arguments: Any) -> Any:
        result = self._handler(*arguments)
        return early.collect(result) if isinstance(result, Iterator) else result

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._threads.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._threads.close()


class InBatches:
    """A handler that takes a list of messages and returns one result for each.

    Args:
        stage: whose it is.
        settler: of the stage.
        sides: what the messages of one call have in common; None: nothing. While a model has a
            canary, whose share each is of: a call of the handler asks one version for them all.
    """

    runs_user_code = True
    weigh: Callable[[Job], int] | None = None

    def __init__(
        self,
        stage: Stage,
        settler: Settler,
        sides: Callable[[Context], tuple[bool, ...]] | None = None,
    ):
        self._stage = stage
        self._settler = settler
        self._sides = sides
        self._threads = _threads(stage)
        self.concurrency = concurrency_of(stage)
        self.batch_size = stage.limits.batch_size
        self.batch_wait = stage.limits.batch_wait

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle the batch; if it fails for what may be one message's fault, handle its halves.

        A server that is away, or a handler that asks to come again, is the fault of none of them.
        """
        split = Split(self._apart(jobs))
        while part := split.take():
            current.set(part[0].context)
            if self._stage.later:
                _forget_timers(part)
            try:
                results = await self._results(part)
            except (Retry, Snooze, Unavailable) as error:
                for job in part:
                    self._settler.failed(job, error)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome
                for job in split.refused(part):
                    self._settler.failed(job, error)
            else:
                await self._answer(part, results)

    def _apart(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """The messages by what those of one call have in common; what is of no share goes first."""
        if self._sides is None:
            return [jobs]
        found: dict[tuple[bool, ...], list[Job]] = {}
        for job in jobs:
            assert job.context is not None
            found.setdefault(self._sides(job.context), []).append(job)
        return [found[side] for side in sorted(found)]

    async def _answer(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        """Settle each message by its own result."""
        settler = self._settler
        for job, result in zip(jobs, results, strict=True):
            try:
                if isinstance(result, Rejected):
                    raise Reject(result.reason)  # noqa: TRY301 - one path for every outcome
                outputs = settler.emitter.checked(result)
                if not settler.emitter.plain:
                    await settler.emitter.prepare(outputs)
                if job.memory is not None:
                    job.memory.seal()
            except Exception as error:  # noqa: BLE001
                settler.failed(job, error)
            else:
                settler.answered(job, outputs)

    async def _results(self, jobs: Sequence[Job]) -> Sequence[Any]:
        messages = [job.message for job in jobs]
        contexts = [job.context for job in jobs]
        arguments: tuple[Any, ...] = (messages,)
        if self._stage.signature.wants_context:
            arguments = (messages, contexts)
        if self._stage.signature.state is not None:
            states = [job.memory.begin() for job in jobs if job.memory is not None]
            arguments = self._stage.signature.with_state(messages, contexts, states)
        handler = partial(self._returned, arguments, len(jobs))
        try:
            if self._stage.around:
                results: Sequence[Any] = await inside(
                    self._stage.around, messages, contexts, handler
                )
            else:
                results = await handler()
        finally:
            # A version that was asked during the batch was asked for each of its messages.
            first = contexts[0]
            if first is not None and first.trial is not None:
                for context in contexts:
                    if context is not None:
                        context.trial = first.trial
        # A model that answered during the batch answered for each of its messages.
        for job in jobs[1:]:
            if job.context is not None and contexts[0] is not None:
                job.context.models.update(contexts[0].models)
        return results

    async def _returned(self, arguments: tuple[Any, ...], count: int) -> Sequence[Any]:
        """What the handler returned, one result for each of so many messages."""
        if self._stage.signature.kind == "coroutine":
            results = await self._stage.handler(*arguments)
        else:
            results = await self._threads.call(self._stage.handler, arguments)
        if results is None and not self._stage.writes:
            return [None] * count
        if not isinstance(results, (list, tuple)) or len(results) != count:
            found = len(results) if isinstance(results, (list, tuple)) else type(results).__name__
            raise TypeError(
                f"stage {self._stage.name}: a batch handler returns a list with one result for "
                f"each of its {count} messages, this one returned {found}"
            )
        return results

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._threads.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._threads.close()


def _forget_timers(jobs: Sequence[Job]) -> None:
    """What was asked for in a handling that failed, of the whole batch, is asked for anew."""
    for job in jobs:
        if job.context is not None:
            job.context.timers = None


def concurrency_of(stage: Stage) -> int:
    """How many handlers of a stage are at work at once."""
    if stage.signature.batch:
        return stage.limits.concurrency or 2
    if stage.limits.concurrency is not None:
        return min(stage.limits.concurrency, stage.limits.max_in_flight)
    if stage.signature.kind in ("function", "generator"):
        return 2 * (os.cpu_count() or 1)
    return min(stage.limits.max_in_flight, HANDLERS)


def _threads(stage: Stage) -> Threads:
    """The threads of a plain `def`; none is started before it is needed."""
    return Threads(concurrency_of(stage), f"stage-{stage.name}")
