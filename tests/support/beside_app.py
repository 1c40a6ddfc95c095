"""An app one of whose stages does all at once: it writes, sets a timer, remembers, is joined on.

    BESIDE_DIES=record python -m mqinfer worker tests.support.beside_app:app

is killed the moment that it knows that what the step is called after is stored; `ack`: the moment
before the message is acknowledged. Only steps of the stage `cut` count.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from mqinfer import App, Context, Message, State, plan
from mqinfer.adapters.jetstream import JetStream
from mqinfer.completion import record, roots
from mqinfer.state.record import bucket_key
from mqinfer.timers import places

ACK_WAIT = 2.0  # seconds: what a dead worker had comes again soon
app = App("beside")


class Photo(Message, key="plant", ordered=True):
    plant: str
    n: int


class Leaf(Message, key="plant"):
    plant: str
    n: int
    count: int


class Due(Message, key="plant"):
    plant: str
    n: int
    count: int


class Grade(Message):
    n: int
    count: int


class Report(Message):
    n: int
    counts: list[int]


class Seen(State):
    count: int = 0


@app.stage(ack_wait=ACK_WAIT, later=Due)
async def cut(photo: Photo, seen: Seen, ctx: Context) -> Leaf:
    seen.count += 1
    await ctx.later(Due(photo.plant, photo.n, seen.count), after=0)
    return Leaf(photo.plant, photo.n, seen.count)


@app.stage(ack_wait=ACK_WAIT)
async def grade(leaf: Leaf) -> Grade:
    return Grade(leaf.n, leaf.count)


@app.join(Photo, of=Grade, ack_wait=ACK_WAIT)
async def report(photo: Photo, grades: list[Grade]) -> Report:
    return Report(photo.n, [grade.count for grade in grades])


# What is stored, in this order, and how its subject begins.
STEPS = {
    "output": f"{app.subject(Leaf)}.",
    "timer": f"{places.stream_of(app.name)}.cut.",
    "record": roots.subject(app, None, ""),
    "state": f"$KV.{plan.memory_bucket(app)}.{bucket_key('cut', None, '')}.",
}


def dying(at: str) -> None:
    """Let this process be killed at a step."""
    publish, ack = JetStream.publish, JetStream.ack

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def publish_one(
        self: JetStream, subject: Any, header: bytes, payload: bytes, done: Any, **options: Any
    ) -> None:
        told = subject if isinstance(subject, str) else subject.decode()

        def stored(error: Exception | None, repeat: bool) -> None:
            if error is None:
                die()
            done(error, repeat)

        mine = at in STEPS and told.startswith(STEPS[at])
        if mine and at == "record":
            mine = record.decode(payload)[0].stage == "cut"
        publish(self, subject, header, payload, stored if mine else done, **options)

    def ack_one(self: JetStream, delivery: Any) -> None:
        if at == "ack" and ".photo." in delivery.subject:
            die()
        ack(self, delivery)

    JetStream.publish, JetStream.ack = publish_one, ack_one  # type: ignore[method-assign]


if at := os.environ.get("BESIDE_DIES"):
    dying(at)
