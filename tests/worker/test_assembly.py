"""Assembly: what keeps a task from pulling, and what its work changes of its parts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer import App, Row, plan
from mqinfer.flow.policy import Policy
from mqinfer.flow.slots import Slots
from mqinfer.identity import MSG_ID, ONLY, RUN, retry_id
from mqinfer.inference.canaried import Canaried
from mqinfer.observe import Metrics
from mqinfer.worker.assembly import HEADERS_ROOM, WAITING, Assembly
from mqinfer.worker.services import Services
from mqinfer.worker.work import Binding
from tests.support.flow import Delivered, Double, FakeBroker, Number, Strange, turns


class Grade(Row, frozen=True, table="grade", order_by="position"):
    position: str


def declared(**limits: Any) -> App:
    app = App("t")
    leaf = app.model("leaf")

    @app.stage(name="s", models=(leaf,), **limits)
    async def stage(number: Number) -> Double:
        return Double(number.value)

    @app.stage
    async def behind(double: Double) -> Grade:
        return Grade("x")

    return app


class Bound:
    """A work that binds every task in the test's way."""

    def __init__(self, app: App, broker: Any, **binding: Any) -> None:
        self.app = app
        self.tasks = plan.tasks(app)
        self.waiting: dict[str, int] = {}
        self.lag: dict[str, int] = {}
        self.packs: dict[str, int] = {}
        self.recreated: list[str] = []
        self._broker = broker
        self._binding = binding

    def binding(self, task: plan.Task, clock: Any) -> Binding:
        chosen = {"stream": "t", "consumer": task.name, "feed": self._broker}
        return Binding(**{**chosen, "writes": task.writes, **self._binding})

    async def recreate(self, task: plan.Task) -> None:
        self.recreated.append(task.name)


class Assembled:
    """An assembly over fakes."""

    def __init__(self, app: App, **binding: Any) -> None:
        self.broker: Any = FakeBroker()
        self.models: dict[str, str] = {}  # model -> why it does not answer
        inference: Any = SimpleNamespace(
            blocked=lambda models: next(
                (self.models[model.name] for model in models if model.name in self.models), None
            ),
            canaried=Canaried({}),
        )
        self.work: Any = Bound(app, self.broker, **binding)
        self.metrics = Metrics(app.name)
        self.sink: Any = SimpleNamespace(schema=SimpleNamespace(name="grade"), blocked=None)
        self.assembly = Assembly(
            Services(self.broker, None, inference, None, self.metrics), self.work
        )

    def task(self, name: str) -> plan.Task:
        return next(task for task in self.work.tasks if task.name == name)

    def runner(self, name: str = "s") -> Any:
        task = self.task(name)
        return self.assembly.runners(task, None if task.stage else self.sink, None)[0]

    def reason(self, runner: Any) -> str | None:
        return next((reason for gate in runner.source.gates if (reason := gate())), None)


# --- gates --------------------------------------------------------------------------------------


async def test_a_stage_does_not_pull_while_what_it_needs_is_away() -> None:
    made = Assembled(declared())
    runner = made.runner()
    assert made.reason(runner) is None
    made.models["another"] = "not this stage's"
    assert made.reason(runner) is None
    made.models["leaf"] = "model leaf is not loaded"
    assert made.reason(runner) == "model leaf is not loaded"
    made.broker.blocked = "the stream is full"
    assert made.reason(runner) == "the stream is full"


async def test_a_stage_waits_for_those_behind_it() -> None:
    made = Assembled(declared(max_downstream=1_000))
    runner = made.runner()
    made.work.waiting = {"behind": 1_000, "s": 1_000_000}
    assert made.reason(runner) is None
    made.work.waiting["behind"] = 1_001
    assert made.reason(runner) == "1,001 messages wait for behind (max_downstream=1,000)"
    free = Assembled(declared(max_downstream=None))
    free.work.waiting = {"behind": 10**9}
    assert free.reason(free.runner()) is None


async def test_before_a_sink_rows_are_counted_not_their_packs() -> None:
    made = Assembled(declared(max_downstream=1_000))
    app = made.work.app

    @app.stage(max_downstream=1_000)
    async def grades(strange: Strange) -> list[Grade]:
        return [Grade(str(n)) for n in range(200)]

    made.work.tasks = plan.tasks(app)
    runner = made.runner("grades")
    made.work.waiting = {"sink-grade": 10}
    made.work.packs = {"sink-grade": 9}
    assert made.reason(runner) is None  # before the first pack nobody knows
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop, 0.0))
    await turns()
    made.broker.on_message(Delivered(1))
    await turns()
    assert len(made.broker.published) == 1
    made.broker.answer_all()
    assert made.reason(runner) == "1,801 rows or so wait for sink-grade (max_downstream=1,000)"
    made.work.packs, made.work.waiting = {"sink-grade": 4}, {"sink-grade": 4}
    assert made.reason(runner) is None
    stop.set()
    await task


async def test_a_sink_waits_for_its_table_and_no_model() -> None:
    made = Assembled(declared())
    made.models["leaf"] = "model leaf is not loaded"
    runner = made.runner("sink-grade")
    assert made.reason(runner) is None
    made.sink.blocked = "clickhouse is away"
    assert made.reason(runner) == "clickhouse is away"


# --- what a work changes ------------------------------------------------------------------------


async def answers(made: Assembled, **headers: str) -> Any:
    """The runner of the stage at work on one message."""
    runner = made.runner()
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop, 0.0))
    await turns()
    made.broker.on_message(Delivered(1, headers=headers))
    await turns()
    made.broker.answer_all()
    stop.set()
    await task
    return runner


async def test_plain_work_has_slots_by_its_limits() -> None:
    made = Assembled(declared(max_in_flight=2_000, max_bytes=1 << 25))
    runner = await answers(made)
    assert made.broker.subjects() == ["t.double"]
    assert made.broker.heard() == [("ack", 1)]
    slots = runner.slots
    assert (slots.max_messages, slots.max_unhandled, slots.max_bytes) == (2_000, WAITING, 1 << 25)
    assert slots.largest == made.broker.max_payload + HEADERS_ROOM
    sink = made.runner("sink-grade").slots  # as many rows as its handlers take
    assert sink.max_unhandled == 2 * plan.SINK_BATCH


async def test_a_run_writes_apart_and_only_for_its_consumer() -> None:
    made = Assembled(declared(), run="again", consumer="s-again", stream="elsewhere")
    runner = await answers(made, **{ONLY: "s-again"})
    (output,) = made.broker.published
    assert output.subject == "t.run.again.double"
    assert output.headers[RUN] == "again"
    assert (runner.source.stream, runner.source.consumer) == ("elsewhere", "s-again")
    made = Assembled(declared(), run="again", consumer="s-again")
    await answers(made, **{ONLY: "s", MSG_ID: retry_id("dead.t.s", 1, "2026")})
    assert (made.broker.published, made.broker.heard()) == ([], [("ack", 1)])


class Beside(Policy):
    """One more message beside each answer."""

    def after_answer(self, job: Any, outputs: int) -> list[Any]:
        return [Strange(outputs)]


async def test_a_policy_reaches_runner_and_settler_and_its_types_may_be_written() -> None:
    made = Assembled(declared(), policy=Beside(), writes=(Double, Strange))
    await answers(made)
    assert made.broker.subjects() == ["t.double", "t.strange"]

    class Nothing(Policy):
        def admits(self, delivery: Any) -> bool:
            return False

    made = Assembled(declared(), policy=Nothing())
    await answers(made)
    assert (made.broker.published, made.broker.heard()) == ([], [("ack", 1)])


async def test_a_work_may_make_the_slots() -> None:
    asked: list[tuple[int, int]] = []

    def make(largest: int, waiting: int) -> Slots:
        asked.append((largest, waiting))
        return Slots(3, 10, largest)

    made = Assembled(declared(), slots=make)
    runner = made.runner()
    assert runner.slots.max_messages == 3
    assert asked == [(made.broker.max_payload + HEADERS_ROOM, WAITING)]


async def test_a_consumer_is_made_again_by_its_work() -> None:
    made = Assembled(declared())
    await made.runner().source.recreate()
    assert made.work.recreated == ["s"]


async def test_its_metrics_read_what_is_so_now() -> None:
    made = Assembled(declared())
    runner = made.runner()
    stage = made.metrics.stage("s")
    assert stage.gauges() == {"in_flight": 0, "in_flight_bytes": 0, "blocked": False}
    made.work.lag["s"] = 5
    runner.slots.arrive(10)
    assert stage.gauges() == {"in_flight": 1, "in_flight_bytes": 10, "lag": 5, "blocked": False}


@pytest.mark.parametrize("name", ["s", "behind"])
async def test_suspects_of_all_stages_share_one_lane(name: str) -> None:
    made = Assembled(declared())
    assert made.runner(name)._suspects.lane is made.assembly.lane
