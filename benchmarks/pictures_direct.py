"""The limit of the inference benchmark: the same work by hand, without queue and database.

A process of its own: `python -m benchmarks.pictures_direct TRITON FOLDER BATCH IN_FLIGHT PICTURES`.
It reads the JPEGs of a folder into memory, and so often as it takes decodes and shrinks them in
threads, sends full batches with so many requests in flight, and keeps the answers in a list. Prints
one line of JSON: seconds, processor seconds, and the class found on each distinct picture.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from benchmarks.vision import SIDE, fit, verdict
from mqinfer.image import decode

MODEL = "efficientnet_lite0"


async def classify(
    url: str, jpegs: list[bytes], *, batch: int, in_flight: int, pictures: int
) -> dict[str, Any]:
    """Classify so many pictures, the JPEGs over and over."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    found: dict[int, tuple[int, float]] = {}
    numbers: Iterator[int] = iter(range(pictures))

    def prepare(jpeg: bytes) -> Any:
        return fit(decode(jpeg, target=SIDE))

    async with InferenceServerClient(url) as client:

        async def work() -> None:
            while chosen := [n for _, n in zip(range(batch), numbers, strict=False)]:
                small = await asyncio.gather(
                    *(loop.run_in_executor(pool, prepare, jpegs[n % len(jpegs)]) for n in chosen)
                )
                tensor = InferInput("image", [len(small), SIDE, SIDE, 3], "UINT8")
                tensor.set_data_from_numpy(np.stack(small))
                answer = await client.infer(MODEL, [tensor], client_timeout=60)
                logits = answer.as_numpy("logits")
                found.update((n, verdict(row)) for n, row in zip(chosen, logits, strict=True))

        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        seconds, used = time.perf_counter() - wall, time.process_time() - cpu
    pool.shutdown()
    if len(found) != pictures:
        raise RuntimeError(f"{len(found)} answers for {pictures} pictures")
    labels = [found[n][0] for n in range(min(pictures, len(jpegs)))]
    return {"wall": seconds, "cpu": used, "labels": labels}


def read_folder(folder: Path) -> list[bytes]:
    """The JPEGs of a folder, by name."""
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    batch, in_flight, pictures = map(int, sys.argv[3:6])
    jpegs = read_folder(folder)
    done = asyncio.run(classify(url, jpegs, batch=batch, in_flight=in_flight, pictures=pictures))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
