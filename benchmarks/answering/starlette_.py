"""Starlette, which calls Triton once for each request: nothing is kept, nothing is gathered.

That is the limit: what HTTP, Triton's own client and the model take.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from benchmarks.tiny import NAME


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    client = app.state.client = InferenceServerClient(os.environ["BENCH_TRITON"])
    yield
    await client.close()


async def predict(request: Request) -> JSONResponse:
    x = float((await request.json())["x"])
    tensor = InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[x]], np.float32))
    answer = await request.app.state.client.infer(NAME, [tensor], client_timeout=60)
    return JSONResponse({"y": float(answer.as_numpy("y")[0, 0])})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])], lifespan=lifespan)
