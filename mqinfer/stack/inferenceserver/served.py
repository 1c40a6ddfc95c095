"""A version of a model that is served: its queue, its instances, and what they do with requests.

Promises kept here: what waits while an instance runs goes together in its next run, where the model
gathers (`dynamic_batching`) and the shapes agree, without a delay for it; each request gets its own
result or its own error, a bad one never fails its neighbours; one whose caller has gone is not run.
An instance whose process died is started again; what it was at is told so, what waited waits on.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mqinfer.backoff import Attempts, Backoff
from mqinfer.stack.inferenceserver import config as configuration
from mqinfer.stack.inferenceserver import wire
from mqinfer.stack.inferenceserver.process import (
    Died,
    Instance,
    LoadFailed,
    Outcome,
    Ran,
    RunFailed,
)
from mqinfer.stack.inferenceserver.refused import Refused, internal, unavailable
from mqinfer.stack.inferenceserver.statistics import Statistics
from mqinfer.stack.inferenceserver.tensors import Signature, Tensor, split, who
from mqinfer.stack.inferenceserver.wire import Request

# Starts of a process that dies while it loads.
_STARTS = Backoff(initial=0.5, maximum=30.0)


class Waiting:
    """A request in the queue or at work.

    Args:
        inputs: as the model sees them.
        outputs: the names of those that it wants.
        batched: whether its tensors begin with the batch's side.
        read: makes the answer of its outputs, at once: they lie where the next run's will.
    """

    __slots__ = ("answer", "arrived", "begun", "inputs", "key", "outputs", "read", "rows")

    def __init__(
        self,
        inputs: list[Tensor],
        outputs: list[str],
        batched: bool,
        read: Callable[[list[Tensor]], bytes],
    ):
        self.inputs = inputs
        self.outputs = outputs
        self.rows = inputs[0].shape[0] if batched and inputs else 1
        # Requests of equal keys may share a run.
        self.key = tuple((one.name, one.datatype, one.shape[1:]) for one in inputs)
        self.read = read
        self.arrived = time.perf_counter_ns()
        self.begun = self.arrived
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def succeed(self, outputs: list[Tensor]) -> None:
        """It has its outputs."""
        if not self.answer.done():
            self.answer.set_result(self.read([one for one in outputs if one.name in self.outputs]))

    def fail(self, error: Refused) -> None:
        """It has none."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Served:
    """One version of one model.

    Args:
        model: its name.
        version: its number.
        instances: its processes, which are started here.
        say: gets each line for the log.

    Attributes:
        config: of the model, completed; known when it has started, as is the signature.
        signature: what it takes and gives.
        statistics: what was counted.
        reason: why its process does not come back that died.
    """

    config: Any
    signature: Signature

    def __init__(
        self, model: str, version: int, instances: Sequence[Instance], say: Callable[[str], None]
    ):
        self.version = version
        self.statistics = Statistics(model, version)
        self.reason = ""
        self._title = f"model {model} {version}"
        self._instances = list(instances)
        self._gathers = False
        self._queue_size = 0
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
            told = await asyncio.gather(*starts)
            self.config = configuration.completed(told[0])
        except BaseException as error:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await asyncio.gather(*(one.end() for one in self._instances))
            if isinstance(error, configuration.BadModel):
                raise LoadFailed(str(error)) from None
            raise
        self.signature = configuration.signature(self.config)
        self._gathers = self.config.HasField("dynamic_batching") and self.config.max_batch_size > 1
        self._queue_size = self.config.dynamic_batching.default_queue_policy.max_queue_size
        self._alive = len(self._instances)
        self._idle = list(self._instances)
        for instance in self._instances:
            instance.lost = functools.partial(self._lost, instance)

    async def infer(self, request: Request, *, streamed: bool = False) -> bytes:
        """Answer a request, in the bytes of a ModelInferResponse, or of a stream's.

        Raises:
            Refused: why there is no answer.
        """
        signature, message = self.signature, request.message
        inputs = signature.read(message, request.raws)
        outputs = signature.wanted(message)
        self.require_ready()

        def read(found: list[Tensor]) -> bytes:
            tensors = [signature.as_asked(one) for one in found]
            return wire.answer(
                signature.model, self.version, message.id, tensors, streamed=streamed
            )

        waiting = Waiting(inputs, outputs, signature.max_batch > 0, read)
        if self._queue_size and len(self._waiting) >= self._queue_size:
            self.statistics.failed("REJECTED", 0)
            raise unavailable(f"{who(message)}Exceeds maximum queue size")
        self._waiting.append(waiting)
        self.statistics.pending += 1
        self._pump_soon()
        try:
            answer = await waiting.answer
        except asyncio.CancelledError:
            self.statistics.failed("CANCELED", time.perf_counter_ns() - waiting.arrived)
            raise
        except Refused:
            self.statistics.failed("BACKEND", time.perf_counter_ns() - waiting.arrived)
            raise
        now = time.perf_counter_ns()
        self.statistics.answered(waiting.begun - waiting.arrived, now - waiting.arrived)
        return answer

    def require_ready(self) -> None:
        """Refuse a request that would not be run.

        Raises:
            Refused: with what Triton says then.
        """
        if not self.ready:
            raise self._not_ready()

    def _not_ready(self) -> Refused:
        return unavailable(
            f"Request for unknown model: '{self.signature.model}' version {self.version} is not at "
            "ready state"
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
            self._run(self._idle.pop(), deque([batch]))
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

    def _run(self, instance: Instance, batches: deque[list[Waiting]]) -> None:
        """Have an instance run the batches, one after the other, and then what waits."""
        while batches:
            batch = [one for one in batches.popleft() if not one.answer.done()]
            if batch:
                break
        else:
            self._busy -= 1
            self._idle.append(instance)
            self._pump()
            return
        now = time.perf_counter_ns()
        for one in batch:
            one.begun = now
        inputs = list(zip(*(one.inputs for one in batch), strict=True))
        wanted = {name for one in batch for name in one.outputs}
        names = [name for name in self.signature.outputs if name in wanted]

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Died):
                self._busy -= 1
                self._died(instance, [batch, *batches])
                return
            if isinstance(outcome, Ran):
                self.statistics.executed(len(batch), sum(one.rows for one in batch), outcome.ns)
                failed = _share(batch, outcome.outputs)
            else:
                failed = outcome
            if failed is not None:
                if len(batch) > 1:  # one of them is bad: find out which
                    batches.extendleft([one] for one in reversed(batch))
                else:
                    text = f"{self.signature.model}: {failed.text}"
                    batch[0].fail(internal(text, by_model=True))
            self._run(instance, batches)

        instance.run(inputs, names, done)

    def _lost(self, instance: Instance) -> None:
        self._idle.remove(instance)
        self._died(instance, [])

    def _died(self, instance: Instance, batches: list[list[Waiting]]) -> None:
        self._alive -= 1
        text = (
            f"Failed to process the request(s) for model instance '{instance.name}', message: "
            f"Stub process '{instance.name}' is not healthy."
        )
        for one in batches[0] if batches else ():
            one.fail(internal(text))
        # What it had not begun with waits on.
        left = [one for batch in batches[1:] for one in batch]
        self._waiting.extendleft(reversed(left))
        self.statistics.pending += len(left)
        self._back.clear()
        task = asyncio.create_task(self._revive(instance))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _revive(self, instance: Instance) -> None:
        """Start a process again that died, as often as it takes."""
        attempts = Attempts(_STARTS)
        self._say(f"{self._title}: the process of {instance.name} {await instance.end()}")
        while True:
            await asyncio.sleep(attempts.next())
            try:
                await instance.start()
            except LoadFailed as error:
                self.reason = str(error)
                self._say(f"{self._title}: {error}")
                self._back.set()
                if not self._alive:
                    self._fail_waiting()
            else:
                self._alive += 1
                self.reason = ""
                self._idle.append(instance)
                self._back.set()
                self._pump()
                return

    def _fail_waiting(self) -> None:
        error = self._not_ready()
        while self._waiting:
            self.statistics.pending -= 1
            self._waiting.popleft().fail(error)
        self._pump()


def _share(batch: list[Waiting], outputs: list[Tensor]) -> RunFailed | None:
    """Give each of a batch its part of the outputs; or why they cannot be cut."""
    if len(batch) == 1:
        batch[0].succeed(outputs)
        return None
    rows = [one.rows for one in batch]
    for output in outputs:
        if not output.shape or output.shape[0] != sum(rows):
            return RunFailed(f"output {output.name} has no batch dimension")
    parts = [split(output, rows) for output in outputs]
    for number, one in enumerate(batch):
        one.succeed([part[number] for part in parts])
    return None
