"""FastAPI before Celery and Redis: a task for each request, whose result is waited for in a thread.

As many threads as there are clients. To give out the id and be asked for the result, which is the
other way that people go, takes at least one request more for each.
"""

# Without `from __future__ import annotations`: FastAPI reads those of the handler.
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.answering import celery_tasks

THREADS = 64


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(lifespan=lifespan)


class Number(BaseModel):
    x: float


@app.post("/predict")
def predict(number: Number) -> dict[str, float]:
    return {"y": celery_tasks.predict.delay(number.x).get(timeout=60)}
