"""What the focused tests share: Triton and ClickHouse of their own, and states to wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mqinfer import Message, Worker, plan
from mqinfer.backoff import Backoff
from mqinfer.flow.runner import Runner
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until

SOON = Backoff(initial=0.05, maximum=0.2)


class Number(Message, subject="number"):
    """An input."""

    value: int


class Double(Message, subject="double"):
    """An answer."""

    value: int


def runners_of(worker: Worker, name: str) -> list[Runner]:
    """The runners of one stage or sink: a sink has a second one, for packs of rows."""
    assert worker.engine is not None
    return [runner for runner in worker.engine.runners if runner.name == name]


def runner_of(worker: Worker, name: str) -> Runner:
    """The runner of one stage."""
    (found,) = runners_of(worker, name)
    return found


async def blocked(worker: Worker, *words: str) -> list[str]:
    """Wait until the worker says that it is not ready, with these words."""

    def says() -> list[str] | None:
        reasons = worker.not_ready()
        text = " ".join(reasons)
        return reasons if reasons and all(word in text for word in words) else None

    return await until(says, f"not ready because of {words}")


async def ready(worker: Worker) -> None:
    """Wait until the worker is ready."""
    await until(lambda: not worker.not_ready(), "readiness")


async def done(harness: Harness, *consumers: str, timeout: float = 60.0) -> None:
    """Wait until nothing is left for these stages and sinks."""

    async def empty() -> bool:
        if any([await harness.lag(consumer) for consumer in consumers]):
            return False
        return all([await _counted(harness, consumer) for consumer in consumers])

    await until(empty, f"the end of {consumers}", timeout)


async def _counted(harness: Harness, name: str) -> bool:
    """Whether its consumers have come to the newest message: they count what is stored a bit later.

    (nats-server tells them of a message in a goroutine of its own, after it has acknowledged it.)
    """
    broker: Any = harness.services.broker
    (task,) = plan.tasks(harness.app, [name])
    for spec in plan.consumer_specs(harness.app, task):
        consumer = await broker.client.api(f"$JS.API.CONSUMER.INFO.{spec.stream}.{spec.name}")
        for subject in spec.filters:
            body = {"last_by_subj": subject}
            last = await broker.client.api(f"$JS.API.STREAM.MSG.GET.{spec.stream}", body)
            newest = last["message"]["seq"] if "message" in last else 0
            if newest > consumer["delivered"]["stream_seq"]:
                return False
    return True


async def redeliveries(harness: Harness, name: str) -> int:
    """How often messages of a stage or sink were delivered beyond the first time, in its life."""
    broker: Any = harness.services.broker
    (task,) = plan.tasks(harness.app, [name])
    found = 0
    for spec in plan.consumer_specs(harness.app, task):
        answer = await broker.client.api(f"$JS.API.CONSUMER.INFO.{spec.stream}.{spec.name}")
        # consumer_seq counts deliveries; the stages here read every message of the subject.
        stored = await harness.stored(subject=answer["config"]["filter_subject"])
        found += int(answer["delivered"]["consumer_seq"]) - len(stored)
    return found


def settings_with(base: Settings, **changes: Any) -> Settings:
    """Settings of a test, changed."""
    names = ("nats_url", "triton_url", "clickhouse_url", "blobs", "grace")
    values = {name: getattr(base, name) for name in names}
    return Settings.load({}, **{**values, **changes})


def always(value: object) -> Callable[[], object]:
    """A function that gives `value`."""
    return lambda: value
