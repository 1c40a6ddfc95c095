"""A version of a model that is served: its queue, its instances, and what they do with requests.

Promises kept here: what waits while an instance runs goes together in its next run, where the model
gathers (`dynamic_batching`) and the shapes agree, without a delay for it; each request gets its own
result or its own error, a bad one never fails its neighbours; one whose caller has gone is not run.
An instance whose process died is started again; what it was at is told so, what waited waits on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mqinfer.backoff import Attempts, Backoff
from mqinfer.stack.inferenceserver.process import Died, Instance, LoadFailed, Ran, RunFailed
from mqinfer.stack.inferenceserver.refused import Refused, internal, unavailable
from mqinfer.stack.inferenceserver.statistics import Statistics
from mqinfer.stack.inferenceserver.tensors import Signature, Tensor, split

# Starts of a process that dies while it loads.
_STARTS = Backoff(initial=0.5, maximum=30.0)


class Waiting:
    """A request in the queue or at work."""

    __slots__ = ("answer", "arrived", "begun", "inputs", "key", "outputs", "rows")

    def __init__(self, inputs: list[Tensor], outputs: list[str], batched: bool):
        self.inputs = inputs
        self.outputs = outputs
        self.rows = inputs[0].shape[0] if batched and inputs else 1
        # Requests of equal keys may share a run.
        self.key = tuple((one.name, one.datatype, one.shape[1:]) for one in inputs)
        self.arrived = time.perf_counter_ns()
        self.begun = self.arrived
        self.answer: asyncio.Future[list[Tensor]] = asyncio.get_running_loop().create_future()


class Served:
    """One version of one model.

    Args:
        signature: what it takes and gives.
        version: its number.
        instances: its processes, which are started here.
        gathers: whether requests share runs.
        queue_size: how many requests may wait; 0 for any number.
        say: gets each line for the log.
    """

    def __init__(
        self,
        signature: Signature,
        version: int,
        instances: Sequence[Instance],
        *,
        gathers: bool,
        queue_size: int,
        say: Callable[[str], None],
    ):
        self.signature = signature
        self.version = version
        self.statistics = Statistics(signature.model, version)
        self.reason = ""
        self._instances = list(instances)
        self._gathers = gathers and signature.max_batch > 1
        self._queue_size = queue_size
        self._say = say
        self._waiting: deque[Waiting] = deque()
        self._idle: list[Instance] = []
        self._alive = 0
        self._closing = False
        self._soon = False
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._back = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a request would be run."""
        return self._alive > 0 and not self._closing

    async def start(self) -> None:
        """Start its processes.

        Raises:
            LoadFailed: one of them does not load; then none is left.
        """
        starts = [asyncio.create_task(one.start()) for one in self._instances]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await asyncio.gather(*(one.end() for one in self._instances))
            raise
        self._alive = len(self._instances)
        self._idle = list(self._instances)

    async def infer(self, request: Any) -> list[Tensor]:
        """Answer a ModelInferRequest.

        Raises:
            Refused: why there is no answer.
        """
        inputs = self.signature.read(request)
        outputs = self.signature.wanted(request)
        self.require_ready()
        waiting = Waiting(inputs, outputs, self.signature.max_batch > 0)
        if self._queue_size and len(self._waiting) >= self._queue_size:
            self.statistics.failed("REJECTED", 0)
            raise unavailable(
                f"[request id: {request.id or '<id_unknown>'}] Exceeds maximum queue size"
            )
        self._waiting.append(waiting)
        self.statistics.pending += 1
        self._pump_soon()
        try:
            found = await waiting.answer
        except asyncio.CancelledError:
            self.statistics.failed("CANCELED", time.perf_counter_ns() - waiting.arrived)
            raise
        except Refused:
            self.statistics.failed("BACKEND", time.perf_counter_ns() - waiting.arrived)
            raise
        self.statistics.answered(
            waiting.begun - waiting.arrived, time.perf_counter_ns() - waiting.arrived
        )
        return [self.signature.as_asked(one) for one in found]

    def require_ready(self) -> None:
        """Refuse a request that would not be run.

        Raises:
            Refused: with what Triton says then.
        """
        if not self.ready:
            raise unavailable(
                f"Request for unknown model: '{self.signature.model}' version {self.version} is "
                "not at ready state"
            )

    async def wait_back(self) -> None:
        """Return when a process that died was started again, or could not be.

        Raises:
            LoadFailed: it could not.
        """
        if not self.ready:
            await self._back.wait()
        if not self.ready:
            raise LoadFailed(self.reason)

    async def close(self) -> None:
        """Finish what was accepted, take nothing new, and end the processes."""
        self._closing = True
        if self._alive:
            await self._quiet.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the processes, whatever they are at."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting()
        await asyncio.gather(*(one.end() for one in self._instances))

    # --- the queue --------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """Hand out work when all that came in together has been read."""
        self._quiet.clear()
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._soon = False
        while self._idle and (batch := self._next()):
            self._busy += 1
            self._spawn(self._work(self._idle.pop(), batch))
        if not self._waiting and not self._busy:
            self._quiet.set()

    def _next(self) -> list[Waiting]:
        """Take what is to run next: the first that waits, and what may go with it."""
        waiting = self._waiting
        batch: list[Waiting] = []
        left: list[Waiting] = []
        rows = 0
        while waiting:
            one = waiting.popleft()
            if one.answer.done():  # its caller has gone
                self.statistics.pending -= 1
            elif not batch or (
                one.key == batch[0].key and rows + one.rows <= self.signature.max_batch
            ):
                batch.append(one)
                rows += one.rows
                if not self._gathers or rows >= self.signature.max_batch:
                    break
            else:
                left.append(one)
        waiting.extendleft(reversed(left))
        self.statistics.pending -= len(batch)
        return batch

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, instance: Instance, batch: list[Waiting]) -> None:
        try:
            await self._run(instance, batch)
        except Died as error:
            self._alive -= 1
            self._died(instance, batch, error)
        else:
            self._idle.append(instance)
        finally:
            self._busy -= 1
            self._pump()

    def _died(self, instance: Instance, batch: list[Waiting], error: Died) -> None:
        self._say(f"model {self.signature.model} {self.version}: {instance.name} {error}")
        text = (
            f"Failed to process the request(s) for model instance '{instance.name}', message: "
            f"Stub process '{instance.name}' is not healthy."
        )
        for one in batch:
            _fail(one, internal(text))
        if not self._closing:
            self._back.clear()
            self._spawn(self._revive(instance))
        elif not self._alive:
            self._fail_waiting()

    async def _run(self, instance: Instance, batch: list[Waiting]) -> None:
        if len(batch) > 1:
            try:
                await self._run_together(instance, batch)
            except RunFailed:  # one of them is bad: find out which
                pass
            else:
                return
        for one in batch:
            if one.answer.done():
                continue
            try:
                ran = await self._timed(instance, [one])
            except RunFailed as error:
                _fail(one, internal(f"{self.signature.model}: {error}", by_model=True))
            else:
                _succeed(one, [found for found in ran.outputs if found.name in one.outputs])

    async def _run_together(self, instance: Instance, batch: list[Waiting]) -> None:
        """Run several requests as one batch and cut the results apart again.

        Raises:
            RunFailed: the model refused it, or its results cannot be cut.
        """
        ran = await self._timed(instance, batch)
        rows = [one.rows for one in batch]
        for output in ran.outputs:
            if not output.shape or output.shape[0] != sum(rows):
                raise RunFailed(f"output {output.name} has no batch dimension")
        parts = [split(output, rows) for output in ran.outputs]
        for number, one in enumerate(batch):
            _succeed(one, [part[number] for part in parts if part[number].name in one.outputs])

    async def _timed(self, instance: Instance, batch: list[Waiting]) -> Ran:
        now = time.perf_counter_ns()
        for one in batch:
            one.begun = now
        inputs = list(zip(*(one.inputs for one in batch), strict=True))
        wanted = {name for one in batch for name in one.outputs}
        names = [name for name in self.signature.outputs if name in wanted]
        ran = await instance.run(inputs, names)
        self.statistics.executed(len(batch), sum(one.rows for one in batch), ran.ns)
        return ran

    async def _revive(self, instance: Instance) -> None:
        """Start a process again that died, as often as it takes."""
        attempts = Attempts(_STARTS)
        while True:
            await instance.end()
            try:
                await instance.start()
            except LoadFailed as error:
                self.reason = str(error)
                self._say(f"model {self.signature.model} {self.version}: {error}")
                self._back.set()
                if not self._alive:
                    self._fail_waiting()
                await asyncio.sleep(attempts.next())
            else:
                self._alive += 1
                self.reason = ""
                self._idle.append(instance)
                self._back.set()
                self._pump()
                return

    def _fail_waiting(self) -> None:
        error = unavailable(
            f"Request for unknown model: '{self.signature.model}' version {self.version} is not "
            "at ready state"
        )
        while self._waiting:
            self.statistics.pending -= 1
            _fail(self._waiting.popleft(), error)


def _fail(one: Waiting, error: Refused) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)


def _succeed(one: Waiting, outputs: list[Tensor]) -> None:
    if not one.answer.done():
        one.answer.set_result(outputs)
