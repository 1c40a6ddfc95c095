"""The Celery task behind `fastapi_celery`: it calls Triton, and its result is kept in Redis.

Set up as `contenders.celery_app` is: a task is acknowledged when it was done, so that one whose
worker dies is done by another; and for short tasks, of which a worker fetches many ahead.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
from celery import Celery
from tritonclient.grpc import InferenceServerClient, InferInput

from benchmarks.tiny import NAME

app = Celery("asked", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=128,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)


@cache
def triton() -> InferenceServerClient:
    """Of a process, which is forked before it calls."""
    return InferenceServerClient(os.environ["BENCH_TRITON"])


@app.task(name="predict")
def predict(x: float) -> float:
    tensor = InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[x]], np.float32))
    answer = triton().infer(NAME, [tensor], client_timeout=60)
    return float(answer.as_numpy("y")[0, 0])
