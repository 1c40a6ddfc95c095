"""servers: the embedded Triton beside our own inference server, on the same repository.

Processor time is that of the server with all its processes, which a busy machine changes less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks import tiny
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters.triton import TritonClient
from mqinfer.stack import InferenceServer, StackConfigurationError, TritonServer

CALLS, LONE, IN_FLIGHT = 10_000, 500, 256
PICTURES, BATCH, HEIGHT, WIDTH = 400, 8, 480, 640
KINDS = {"the embedded Triton": TritonServer, "our own server": InferenceServer}
OF_TRITON = 0.7

Found = dict[str, float]


async def measure(options: Options) -> Result:
    """Both in turns, each in a process of its own that is started anew."""
    models = options.folder / "models"
    await asyncio.to_thread(_prepare, models)
    samples: dict[str, list[Found]] = {}
    notes = []
    for repetition in range(options.repeat):
        for name, kind in KINDS.items():
            folder = options.folder / f"{kind.__name__}-{repetition}"
            try:
                found = await _one(options, kind(folder, log=folder / "log", models=models))
            except StackConfigurationError as error:
                if not repetition:
                    notes.append(f"left out, {name}: {error}")
                continue
            samples.setdefault(name, []).append(found)
            options.say(f"{name}: {found['items/s']:,.0f} items/s")
    rows = [
        Row(
            name,
            {what: Figure(tuple(one[what] for one in found), _unit(what)) for what in found[0]},
        )
        for name, found in samples.items()
    ]
    goals = []
    if len(rows) == len(KINDS):
        triton, ours = (row.figures["items/s"] for row in rows)
        goals.append(Goal("of Triton's items a second, gathered", ours.times(triton), OF_TRITON))
    return Result(
        "servers",
        f"y = 2 x + 1; the red of {WIDTH}x{HEIGHT} pixels, {BATCH} at a time",
        rows,
        goals,
        [
            f"items/s: by mqinfer, {IN_FLIGHT} in flight; alone: one call after the other.",
            "ready: from the start of the process, two models loaded. Server ms: processor time "
            "for a call that is alone, of all processes of the server.",
            *notes,
        ],
        chart="items/s",
    )


def _unit(what: str) -> str:
    return "s" if what == "ready" else "ms" if what.endswith("ms") else "items/s"


def _prepare(models: Path) -> None:
    """Write the tiny model, and one that looks at little of much: what is measured is the way."""
    import onnx
    from onnx import TensorProto, helper

    tiny.build_repository(models)
    nodes = [
        helper.make_node("Slice", ["image", "from", "to", "axes"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["red"], to=TensorProto.FLOAT),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", HEIGHT, WIDTH, 3])
    red = helper.make_tensor_value_info("red", TensorProto.FLOAT, ["n", 1, 1, 1])
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [3], values)
        for name, values in (("from", [0, 0, 0]), ("to", [1, 1, 1]), ("axes", [1, 2, 3]))
    ]
    graph = helper.make_graph(nodes, "red", [image], [red], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    target = models / "red" / "1" / "model.onnx"
    target.parent.mkdir(parents=True)
    onnx.save(model, target)
    (models / "red" / "config.pbtxt").write_text(
        f"""
        backend: "onnxruntime"
        max_batch_size: {BATCH}
        input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {HEIGHT}, {WIDTH}, 3 ] }} ]
        output [ {{ name: "red" data_type: TYPE_FP32 dims: [ 1, 1, 1 ] }} ]
        instance_group [ {{ kind: KIND_CPU count: 1 }} ]
        """
    )


async def _one(options: Options, server: TritonServer) -> Found:
    began = time.perf_counter()
    await server.start()
    try:
        await server.wait_ready()
        ready = time.perf_counter() - began
        async with tiny.Callers(server.url) as callers:
            for call in (callers.gathered, callers.direct):
                await tiny.rate(call, 500, IN_FLIGHT)
            count = options.amount(LONE)
            before = _processor(server)
            [times] = await tiny.lone([callers.direct], count)
            used = _processor(server) - before
            gathered = await tiny.rate(callers.gathered, options.amount(CALLS, 500), IN_FLIGHT)
        pictures = await _pictures(server, options.amount(PICTURES, least=BATCH))
    finally:
        await server.stop()
    return {
        "ready": ready,
        "alone": 1e3 * count / sum(times),
        "alone p50 ms": median(times),
        "server ms": 1e3 * used / count,
        "items/s": gathered,
        "pictures/s": pictures,
    }


def _processor(server: TritonServer) -> float:
    """Seconds of processor time that a server's processes have used."""
    top = psutil.Process(server.pid)
    times = [one.cpu_times() for one in (top, *top.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def _pictures(server: TritonServer, count: int) -> float:
    """Pictures a second in batches, two of them under way."""
    client = TritonClient(server.url)
    try:
        pixels = np.full((BATCH, HEIGHT, WIDTH, 3), 7, np.uint8)

        async def run() -> None:
            reply = await client.infer("red", None, {"image": pixels}, timeout=120)
            if not (reply.outputs["red"] == 7).all():
                raise RuntimeError("a wrong answer for a picture")

        await run()
        began = time.perf_counter()
        await _twice(run, count // BATCH)
        return count // BATCH * BATCH / (time.perf_counter() - began)
    finally:
        await client.close()


async def _twice(run: Callable[[], Awaitable[None]], count: int) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            await run()

    await asyncio.gather(work(), work())
