"""The Celery app that `celery_.py` has workers for; `MQINFER_BENCH_BROKER` is its broker.

Set up for many short tasks as Celery's guide on optimizing says: the worker fetches 128 tasks a
process ahead, no results, no events; and so that nothing is lost: a task is acknowledged when it
was done, messages are persistent, and RabbitMQ confirms them.
"""

from __future__ import annotations

import os

from celery import Celery
from kombu import Exchange, Queue

app = Celery("bench", broker=os.environ["MQINFER_BENCH_BROKER"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    task_queues=[
        Queue(name, Exchange(name, durable=True), routing_key=name, durable=True)
        for name in ("in", "out")
    ],
    task_create_missing_queues=False,
    task_default_queue="in",
    broker_connection_retry_on_startup=True,
)
if app.conf.broker_url.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": True}


@app.task(name="store")
def store(n: int, text: str) -> None:
    """Named by the outputs; nobody runs it here."""


@app.task(name="work")
def work(n: int, text: str) -> None:
    store.apply_async(kwargs={"n": n, "text": text}, queue="out", task_id=f"out-{n}")
